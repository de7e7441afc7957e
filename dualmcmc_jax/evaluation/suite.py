"""Every number and figure of a trained model."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dualmcmc_jax.data import sources
from dualmcmc_jax.data.batches import subset, to_float
from dualmcmc_jax.evaluation import (
    drawing,
    ground_truth_density,
    likelihood,
    linear_gaussian,
    out_of_distribution,
    reconstruction,
    revisions,
    samples,
)
from dualmcmc_jax.features import spaces
from dualmcmc_jax.metrics import neighbours
from dualmcmc_jax.report import curves, figures
from dualmcmc_jax.training.params import Params


class Inputs(NamedTuple):
    """What an evaluation takes besides a model."""

    dataset: sources.Dataset
    held_out: np.ndarray
    space: spaces.Space


def inputs(config, dataset: sources.Dataset, inception_weights: Path | None) -> Inputs:
    """Puts together and checks them.

    Raises:
      ValueError: fewer examples than asked for, or than a comparison takes, or weights that are not Inception's.
    """
    asked, there, least = config.evaluation.num_held_out, len(dataset.test), samples.K_NEAREST + 1
    if asked > there:
        raise ValueError(f"evaluation.num_held_out: found {asked}, expected at most {there}, all that are held out")
    for name in ("num_samples", "num_neighbours", "light_samples"):
        if config.evaluation[name] < least:
            raise ValueError(f"evaluation.{name}: found {config.evaluation[name]}, expected {least} or more")
    if len(dataset.train) < least or not there:
        found = f"{len(dataset.train)} training and {there} held-out examples"
        raise ValueError(f"data.source: found {found}, expected at least {least} and 1 to evaluate with")
    held_out = dataset.test[subset(there, asked)] if asked else dataset.test
    if config.evaluation.ais_temperatures and not likelihood.box(config):
        expected = f"0, because the range of {config.data.source!r} is not known"
        raise ValueError(
            f"evaluation.ais_temperatures: found {config.evaluation.ais_temperatures}, expected {expected}"
        )
    return Inputs(dataset, held_out, spaces.space(config, dataset.train, inception_weights))


def light(config, given: Inputs) -> Callable[..., samples.Metrics]:
    """measure(params): distances and reconstruction of few examples, evaluation.light_samples, as "light/NAME".

    Their names say so because distances of few samples are larger than those of many.
    """
    num = config.evaluation.light_samples
    few = given.held_out[subset(len(given.held_out), num)]
    draw, measure = drawing.sampler(config), reconstruction.reconstructor(config)
    num_features = config.evaluation.num_neighbours
    known = functools.cache(lambda: spaces.statistics(given.space, given.dataset.train, num_features=num_features))

    def run(params: Params) -> samples.Metrics:
        seed = config.train.seed
        found, _ = samples.compare(config, given.space, known(), draw(params, num_samples=num, seed=seed), num)
        found |= samples.named("reconstruction", measure(params, few, seed=seed))
        return samples.named("light", samples.learned(config, found))

    return run


class Findings(NamedTuple):
    """What an evaluation found.

    Attributes:
      metrics: by name, as for `report`.
      kept: some samples, [N, ...], of each of quality.MODELS.
      energies: [N] of training and held-out data and of those samples, by name.
      others: [N] energies of sets that are no data, by name.
      distances: [N] to the nearest training example, of samples and held-out data, by name.
      nearest: [N, 5], places in the training data of the nearest to the revised samples.
      chains: the long x-chains; None if the x-revision has no steps.
      known: the comparison with the data's known density; None if it has none.
    """

    metrics: samples.Metrics
    kept: dict[str, np.ndarray]
    energies: dict[str, np.ndarray]
    others: dict[str, np.ndarray]
    distances: dict[str, np.ndarray]
    nearest: np.ndarray
    chains: out_of_distribution.LongRun | None
    known: ground_truth_density.Known | None


def evaluate(config, given: Inputs, params: Params, *, step: int, seed: int) -> Findings:
    """Every number, of the parameters after `step`; seed: of samples and chains."""
    settings, train, held_out = config.evaluation, given.dataset.train, given.held_out
    others = out_of_distribution.out_of_distribution(config, held_out)
    known = spaces.statistics(given.space, train, num_features=settings.num_neighbours)
    num, draw = settings.num_samples, drawing.sampler(config)
    compared, kept = samples.compare(config, given.space, known, draw(params, num_samples=num, seed=seed), num)
    found = {
        "step": step,
        "seed": seed,
        "features": given.space.name,
        "num_features": given.space.size,
        "num_samples": num,
        "num_train": len(train),
        "num_held_out": len(held_out),
        "x_chain": drawing.x_chain(config),
    }
    found |= compared | samples.cost(config, params, draw, seed=seed)
    found |= samples.named("reconstruction", reconstruction.reconstructor(config)(params, held_out, seed=seed))

    measure = out_of_distribution.meter(config)
    sets = {"train": train[subset(len(train), len(held_out))], "held_out": held_out, **kept}
    of_sets, of_others = ({name: measure(params, x) for name, x in group.items()} for group in (sets, others))
    for name, values in (of_sets | of_others).items():
        found |= {f"energy/{name}/mean": float(values.mean()), f"energy/{name}/std": float(values.std())}
    for name, values in of_others.items():
        found[f"auroc/{name}"] = out_of_distribution.auroc(of_sets["held_out"], values)
    chains = out_of_distribution.long_run(config)(params, seed=seed) if config.x_chain.num_steps else None
    if chains:
        found |= _long_run(chains)

    vectors = lambda x: to_float(x, np.float32).reshape(len(x), -1)
    compared = kept | {"held_out": held_out[subset(len(held_out), samples.NUM_KEPT)]}
    near = {name: neighbours.nearest(x, train, num=5, to_vector=vectors) for name, x in compared.items()}
    closest = {name: distance[:, 0] for name, (distance, _) in near.items()}
    for name, distance in closest.items():
        found[f"{name}/nearest_train_median"] = float(np.median(distance))
        found[f"{name}/nearest_train_1_percent"] = float(np.percentile(distance, 1))
    truth = ground_truth_density.of(config)
    compared = ground_truth_density.compare(config, truth, params, held_out, kept, seed=seed) if truth else None
    found |= compared.metrics if compared else {}
    if linear_gaussian.applies(config):
        found |= linear_gaussian.measure(config, params, train)
    if settings.ais_temperatures:
        found |= likelihood.measure(config, params, held_out, seed=seed)
    return Findings(found, kept, of_sets, of_others, closest, near["revised"][1], chains, compared)


def draw(config, given: Inputs, params: Params, found: Findings, workdir: Path, *, seed: int) -> dict[str, Figure]:
    """Every figure, by name; curves are those of the workdir's metrics.jsonl."""
    history, held_out, kept = curves.read(workdir), given.held_out, found.kept
    made = {"samples": figures.samples({name: x[:100] for name, x in kept.items()})}
    if found.known:
        made["samples"] = figures.known(found.known.log_densities, kept, half_width=found.known.half_width)
    if len(config.data.shape) == 3:
        revised = revisions.revisions(config, held_out)(params, seed=seed)
        between = revisions.interpolations(config, held_out)(params, seed=seed)
        nearest = given.dataset.train[found.nearest[:6]]
        made["z_revision"] = figures.z_revision(**revised)
        if drawing.x_chain(config)[0]:
            made["x_revision"] = figures.x_revision(**revised)
        made["interpolation"] = figures.interpolation(**between)
        made["neighbours"] = figures.neighbours(samples=kept["revised"][:6], nearest=nearest, distances=found.distances)
    made["reconstruction"] = curves.reconstruction(history, found.metrics)
    if any(config.loss.energy.values()):
        made["energies"] = curves.energies(found.energies, found.others)
    if found.chains:
        steps, states, energy = found.chains
        typical = found.energies["held_out"].mean()
        states = drawing.finish(states)[:, :8]
        made["long_run"] = figures.long_run(states=states, steps=steps, energy=energy, held_out=typical)
    if any("/" not in name for name in history):
        made["training"] = curves.training(history)
    return made


def _long_run(chains: out_of_distribution.LongRun) -> samples.Metrics:
    """Mean energy, change since the trained length and, of images, the share of pixels outside [-1, 1]."""
    found = {}
    for step, x in zip(chains.steps, chains.states, strict=True):
        found[f"long_run/{step}/energy"] = float(chains.energy[step].mean())
        found[f"long_run/{step}/rms_change"] = float(np.sqrt(np.mean((x - chains.states[0]) ** 2)))
        if x.ndim == 4:
            found[f"long_run/{step}/share_outside_range"] = float(np.mean(np.abs(x) > 1))
    return found
