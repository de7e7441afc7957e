"""How good are samples, and what do they cost?"""

import time
from collections.abc import Callable, Iterator

import numpy as np

from dualmcmc_jax.evaluation import interpolation, sampling, trajectories
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.features import classifiers, inception, spaces
from dualmcmc_jax.metrics import frechet, neighbours
from dualmcmc_jax.metrics.inception_score import InceptionScore
from dualmcmc_jax.metrics.kernel_distance import kernel_distance
from dualmcmc_jax.model import Model
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.runtime import parallel

GROUPS = {"generator": Group("generator", needs=("generator",)), "revised": Group("revised")}
"""The models whose samples are compared."""
NUM_KEPT = 1000
"""Number of samples that are kept for other questions and figures. Of all others only the features' moments stay."""
K_NEAREST = 5
"""The neighbour to which the balls of precision, recall, density and coverage reach."""

_DISTANCES = {
    f"{{group}}/frechet_{space}": Metric(f"frechet {space.replace('_', ' ')}", "lower") for space in spaces.NAMES
}
_DISTANCES |= {
    f"{{group}}/kernel_distance_{space}": Metric(f"kernel distance {space.replace('_', ' ')}", "lower")
    for space in spaces.NAMES
}
SECTIONS = (
    Section(
        title="Samples",
        note=(
            "↓ lower is better, ↑ higher is better. Frechet and kernel distances are to the training data, depend "
            "on the number of samples, and the kernel distance may fall below 0. Precision and density: how many "
            "samples lie among data; recall and coverage: how much of the data lies among samples. Costs are per "
            "1,000 samples; an energy's gradient counts as one network evaluation. svc score: 7.7 of real "
            "digits, 3.0 of a Gaussian; class entropy: at most 2.303 nats."
        ),
        metrics={
            "{group}/fid": Metric("fid", "lower"),
            "{group}/kid": Metric("kid", "lower"),
            **_DISTANCES,
            "{group}/inception_score": Metric("inception score", "higher"),
            "{group}/inception_score_std": Metric("inception score std"),
            "{group}/precision": Metric("precision", "higher"),
            "{group}/recall": Metric("recall", "higher"),
            "{group}/density": Metric("density", "higher"),
            "{group}/coverage": Metric("coverage", "higher"),
            "{group}/svc_score": Metric("svc score", "higher"),
            "{group}/class_entropy": Metric("class entropy", "higher", "nats"),
            "{group}/seconds_per_1000": Metric("seconds per 1000", "lower"),
            "{group}/network_evaluations_per_1000": Metric("network evaluations per 1000", "lower"),
        },
        groups=GROUPS,
    ),
)
CAPTIONS = {
    "samples": sampling.CAPTION,
    "x_revision": "The x-revision: every third state of some chains, and their mean energy.",
    "interpolation": "Along the arc from one latent to another.",
}


def check(config, *, num_train: int, num_held_out: int) -> None:
    """Raise ValueError if there are fewer samples or examples than a comparison takes."""
    least = K_NEAREST + 1
    for name in ("num_samples", "num_neighbours", "light_samples"):
        if config.evaluation[name] < least:
            raise ValueError(f"evaluation.{name}: found {config.evaluation[name]}, expected {least} or more")
    if num_train < least or not num_held_out:
        counts = f"{num_train} training and {num_held_out} held-out examples"
        raise ValueError(f"data.source: found {counts}, expected at least {least} and 1 to evaluate with")


def applies(config, dataset) -> bool:
    """Samples can be drawn from every model."""
    return True


def measure(model: Model, inputs: Inputs) -> Measured:
    """Compare samples with the training data, and measure what they cost. The arrays are the kept samples by model."""
    metrics, kept = compare(model, inputs, num_samples=model.config.evaluation.num_samples)
    return Measured(metrics | cost(model, seed=inputs.seed), kept)


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict:
    """Draw samples and, of images, trajectories of the x-chain and an interpolation.

    `ground_truth_density` draws the samples if the density of the data is known.
    """
    made = {}
    if inputs.dataset.density is None:
        made["samples"] = sampling.figure({name: x[:100] for name, x in measured.arrays.items()})
    if model.makes_images:
        if model.config.x_chain.num_steps:
            made["x_revision"] = trajectories.x_figure(trajectories.x_trajectory(model, seed=inputs.seed))
        points = interpolation.interpolate(model, inputs.held_out, seed=inputs.seed)
        made["interpolation"] = interpolation.figure(points)
    return made


def compare(model: Model, inputs: Inputs, *, num_samples: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Compare samples with the training data.

    Returns:
      Distances and scores by "GROUP/METRIC", and the first NUM_KEPT samples of each group.
    """
    config = model.config
    return compare_stream(
        sampling.stream(model, num_samples=num_samples, seed=inputs.seed),
        inputs.space,
        inputs.statistics(),
        num_samples=num_samples,
        num_neighbours=config.evaluation.num_neighbours,
        classifier=classifiers.CLASSIFIERS[kind]() if (kind := inputs.dataset.classifier) else None,
    )


def compare_stream(
    parts: Iterator[dict[str, np.ndarray]],
    space: spaces.Space,
    statistics: spaces.Statistics,
    *,
    num_samples: int,
    num_neighbours: int,
    classifier: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Compare samples that arrive a batch at a time, as from `sampling.stream`, with statistics of data.

    Args:
      parts: batches of samples by group.
      space: the feature space.
      statistics: statistics of the data in that space.
      num_samples: number of samples in all batches together.
      num_neighbours: number of samples, and of features of data, that are compared pair by pair.
      classifier: images -> class probabilities [B, classes], or None.

    Returns:
      Distances and scores by "GROUP/METRIC", and the first NUM_KEPT samples of each group.
    """
    is_inception = space.name == "inception"
    frechet_name, kernel_name = (
        ("fid", "kid") if is_inception else (f"frechet_{space.name}", f"kernel_distance_{space.name}")
    )
    num_neighbours = min(num_neighbours, num_samples)
    real = statistics.features[:num_neighbours]
    moments = {name: frechet.Accumulator(space.size) for name in GROUPS}
    inception_scores = {name: InceptionScore(num_samples, inception.NUM_CLASSES) for name in GROUPS}
    features, kept, classes = ({name: [] for name in GROUPS} for _ in range(3))
    done = 0
    for part in parts:
        for name, x in part.items():
            extracted, logits = space.extract(x)
            moments[name].add(extracted)
            if done < num_neighbours:
                features[name].append(extracted[: num_neighbours - done])
            if done < NUM_KEPT:
                kept[name].append(x[: NUM_KEPT - done])
            if is_inception:
                inception_scores[name].add(logits)
            if classifier:
                classes[name].append(classifier(x))
        done += len(x)
    metrics = {}
    for name in GROUPS:
        near = np.concatenate(features[name])
        of_group = {frechet_name: frechet.frechet_distance(moments[name].moments(), statistics.moments)}
        of_group[kernel_name] = kernel_distance(near, real)
        if is_inception:
            of_group["inception_score"], of_group["inception_score_std"] = inception_scores[name].score()
        of_group |= neighbours.neighbourhoods(real, near, k=K_NEAREST)
        if classifier:
            of_group |= classifiers.scores(np.concatenate(classes[name]))
        metrics |= {f"{name}/{metric}": value for metric, value in of_group.items()}
    return metrics, {name: np.concatenate(x) for name, x in kept.items()}


def cost(model: Model, *, seed: int) -> dict[str, float]:
    """Measure seconds and count network evaluations per 1,000 samples, by "GROUP/METRIC".

    A gradient of the energy counts as one evaluation.
    """
    num_steps, step_size, temperature = model.x_chain
    num_samples = model.group_size * len(parallel.available())
    metrics = {}
    for name, sampler, steps in (
        ("generator", model.with_x_chain(0, step_size, temperature), 0),
        ("revised", model, num_steps),
    ):
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            parallel.collect(sampling.stream(sampler, num_samples=num_samples, seed=seed))
            seconds.append(time.perf_counter() - start)
        metrics[f"{name}/seconds_per_1000"] = min(seconds[1:]) * 1000 / num_samples
        metrics[f"{name}/network_evaluations_per_1000"] = 1000 * (1 + steps)
    return metrics
