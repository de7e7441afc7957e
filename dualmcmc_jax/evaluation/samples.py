"""How good samples are, and what they cost."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from dualmcmc_jax.evaluation import drawing
from dualmcmc_jax.features import classifiers, inception, spaces
from dualmcmc_jax.metrics import neighbours
from dualmcmc_jax.runtime import parallel
from dualmcmc_jax.training.params import Params

MODELS = ("generator", "revised")
NUM_KEPT = 1000
"""Samples kept for energies, nearest neighbours and figures; of all others only their features' moments stay."""
K_NEAREST = 5

Metrics = dict[str, float]


def compare(
    config, space: spaces.Space, known: spaces.Statistics, drawn: Iterator[dict[str, np.ndarray]], num: int
) -> tuple[Metrics, dict[str, np.ndarray]]:
    """Compares num samples, drawn a batch at a time as by `samples.sampler`, with the training data.

    Returns:
      Their distances and scores by "MODEL/NAME", and the first NUM_KEPT samples of each model.
    """
    is_inception = space.name == "inception"
    frechet, kernel = ("fid", "kid") if is_inception else (f"frechet_{space.name}", f"kernel_distance_{space.name}")
    verdict = classifiers.digits_judge() if config.data.source == "digits" else None
    num_neighbours = min(config.evaluation.num_neighbours, num)
    real = known.features[:num_neighbours]
    moments = {name: frechet.Accumulator(space.size) for name in MODELS}
    scores = {name: frechet.InceptionScore(num, inception.NUM_CLASSES) for name in MODELS}
    compared, kept, classes = ({name: [] for name in MODELS} for _ in range(3))
    done = 0
    for part in drawn:
        for name, x in part.items():
            extracted, logits = space.extract(x)
            moments[name].add(extracted)
            if done < num_neighbours:
                compared[name].append(extracted[: num_neighbours - done])
            if done < NUM_KEPT:
                kept[name].append(x[: NUM_KEPT - done])
            if is_inception:
                scores[name].add(logits)
            if verdict:
                classes[name].append(verdict(x))
        done += len(x)
    found = {}
    for name in MODELS:
        near = np.concatenate(compared[name])
        of_name = {frechet: frechet.frechet(moments[name].moments(), known.moments)}
        of_name[kernel] = frechet.kernel_distance(near, real)
        if is_inception:
            of_name["inception_score"], of_name["inception_score_std"] = scores[name].score()
        of_name |= neighbours.neighbourhoods(real, near, k=K_NEAREST)
        if verdict:
            of_name |= classifiers.verdict(np.concatenate(classes[name]))
        found |= named(name, of_name)
    return found, {name: np.concatenate(parts) for name, parts in kept.items()}


def cost(config, params: Params, draw: Callable, *, seed: int) -> Metrics:
    """Seconds and network evaluations per 1,000 samples; a gradient of the energy counts as one evaluation.

    draw is `samples.sampler(config)`, perhaps compiled already.
    """
    plain = config.copy_and_resolve_references()
    settings = drawing.at_test_time(config)
    plain.evaluation.x_chain = (0, settings.x_chain.step_size, settings.energy.temperature)
    num = drawing.group_size(config) * len(parallel.available())
    found = {}
    for name, draw_one, num_steps in (
        ("generator", drawing.sampler(plain), 0),
        ("revised", draw, settings.x_chain.num_steps),
    ):
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            parallel.collect(draw_one(params, num_samples=num, seed=seed))
            seconds.append(time.perf_counter() - start)
        found[f"{name}/seconds_per_1000"] = min(seconds[1:]) * 1000 / num
        found[f"{name}/network_evaluations_per_1000"] = 1000 * (1 + num_steps)
    return found


def named(prefix: str, metrics: Metrics) -> Metrics:
    """The same metrics as "prefix/name"."""
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def learned(config, metrics: Metrics) -> Metrics:
    """The metrics without those of networks that the config's losses leave untaught."""
    loss = config.loss
    taught = {name: any(loss[name].values()) for name in Params._fields}
    autoencoder, adversarial = loss.elbo.weight, any(loss.generated.values())
    untaught = ()
    if not taught["energy"]:
        untaught += ("energy/", "auroc/", "long_run/", "likelihood/ebm/", "density/ebm/", "chain/x/")
    if not (taught["generator"] or autoencoder or adversarial):
        untaught += ("generator/", "energy/generator/", "reconstruction/", "density/generator/", "chain/z/")
    if not (taught["encoder"] or autoencoder or loss.generated.posterior_weight):
        by_encoder = ("log_likelihood_by_importance", "effective_sample_size")
        untaught += ("reconstruction/encoder", *(f"density/generator/{name}" for name in by_encoder))
    return {name: value for name, value in metrics.items() if not name.startswith(untaught)}
