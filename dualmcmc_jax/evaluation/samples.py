"""How close are samples to the training data, and how expensive are they to draw?

Samples are compared twice: as the generator makes them, and after the x-revision.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np

from dualmcmc_jax.core.samplers import gradients_per_step
from dualmcmc_jax.evaluation import interpolation, sampling, trajectories
from dualmcmc_jax.evaluation.question import Inputs, Measured
from dualmcmc_jax.features import classifiers, inception, spaces
from dualmcmc_jax.metrics import frechet, neighbours
from dualmcmc_jax.metrics.inception_score import InceptionScore
from dualmcmc_jax.metrics.kernel_distance import kernel_distance
from dualmcmc_jax.model import Model
from dualmcmc_jax.report.sections import Group, Metric, Section
from dualmcmc_jax.runtime import parallel

GROUPS = {"generator": Group("generator", needs=("generator",)), "revised": Group("after x-revision")}
"""The two kinds of samples: g(z), and samples after the x-revision."""
NUM_KEPT = 1000
"""Number of samples of each kind that are kept for other questions and figures. This limit bounds the memory in use."""
K_NEAREST = 5
"""k of the k-th nearest neighbor that defines precision, recall, density and coverage."""

_DISTANCES = {
    f"{{group}}/frechet_{space}": Metric(f"Frechet distance, {label}", "lower")
    for space, label in spaces.LABELS.items()
}
_DISTANCES |= {
    f"{{group}}/kernel_distance_{space}": Metric(f"Kernel distance (squared MMD), {label}", "lower")
    for space, label in spaces.LABELS.items()
}
SECTIONS = (
    Section(
        title="Samples",
        note=(
            "Samples compared with the training data, before and after the x-revision (MCMC steps on the energy). "
            "Frechet distances depend on the number of samples, so compare them only if this number is equal. The "
            "estimate of the kernel distance is unbiased and can be slightly negative. Precision and density measure "
            "how realistic the samples are; recall and coverage measure how much of the training data they cover. A "
            "network evaluation is one call of the generator or one gradient of the energy."
        ),
        metrics={
            "{group}/fid": Metric("FID", "lower"),
            "{group}/kid": Metric("KID", "lower"),
            **_DISTANCES,
            "{group}/inception_score": Metric("Inception Score", "higher"),
            "{group}/inception_score_std": Metric("Inception Score, standard deviation over splits"),
            "{group}/precision": Metric("Precision", "higher"),
            "{group}/recall": Metric("Recall", "higher"),
            "{group}/density": Metric("Density", "higher"),
            "{group}/coverage": Metric("Coverage", "higher"),
            "{group}/svc_score": Metric("Digit-classifier score", "higher", "real digits: 7.7"),
            "{group}/classifier_score": Metric("MNIST-classifier score", "higher", "at most 10"),
            "{group}/confident_share": Metric(
                f"Share with a class of probability above {classifiers.CONFIDENT}", "higher"
            ),
            "{group}/class_entropy": Metric("Entropy of digit classes", "higher", "nats, at most 2.303"),
            "{group}/seconds_per_1000": Metric("Time per 1,000 samples", "lower", "seconds"),
            "{group}/network_evaluations_per_1000": Metric("Network evaluations per 1,000 samples", "lower"),
        },
        groups=GROUPS | {"held_out": Group("held-out data")},
    ),
)
CAPTIONS = {
    "samples": "Samples of the generator (left), and samples after the x-revision (right).",
    "x_revision": (
        "The x-revision. Top: some chains, one per row, from the generator's sample (left) to the end of the "
        "chain (right). Bottom: the mean energy along the chains; lower energy means higher density."
    ),
    "interpolation": "Generated images between two latents, from left to right, one pair of latents per row.",
}


def check(config, *, num_train: int, num_held_out: int) -> None:
    """Raise ValueError unless there are enough samples and examples for K_NEAREST neighbors."""
    least = K_NEAREST + 1
    for name in ("num_samples", "num_neighbours", "light_samples"):
        if config.evaluation[name] < least:
            raise ValueError(f"evaluation.{name}: found {config.evaluation[name]}, expected {least} or more")
    if num_train < least or not num_held_out:
        counts = f"{num_train} training and {num_held_out} held-out examples"
        expected = f"at least {least} training examples and 1 held-out example for an evaluation"
        raise ValueError(f"data.source: found {counts}, expected {expected}")


def applies(config, dataset) -> bool:
    """Return True, because every model can be sampled."""
    return True


def measure(model: Model, inputs: Inputs) -> Measured:
    """Compare samples with the training data and measure the cost of sampling; the arrays are the kept samples.

    In the feature space of the MNIST classifier, held-out examples are compared with the training data as well.
    """
    metrics, kept = compare(model, inputs, num_samples=model.config.evaluation.num_samples)
    if inputs.space.name == "mnist_classifier":
        metrics |= compare_held_out(inputs)
    return Measured(metrics | cost(model, seed=inputs.seed), kept)


def draw(model: Model, inputs: Inputs, measured: Measured) -> dict:
    """Draw the samples and, if they are images, trajectories of the x-chain and an interpolation of latents.

    If the data have a ground-truth density, `ground_truth_density` draws the figure "samples" instead.
    """
    drawn = {}
    if inputs.dataset.density is None:
        drawn["samples"] = sampling.figure({name: x[:100] for name, x in measured.arrays.items()})
    if model.makes_images:
        if model.config.x_chain.num_steps:
            drawn["x_revision"] = trajectories.x_figure(trajectories.x_trajectory(model, seed=inputs.seed))
        points = interpolation.interpolate(model, inputs.held_out, seed=inputs.seed)
        drawn["interpolation"] = interpolation.figure(points)
    return drawn


def compare(model: Model, inputs: Inputs, *, num_samples: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Draw samples and compare them with the training data.

    Args:
      model: the model.
      inputs: the inputs of the evaluation; its held-out examples are not used.
      num_samples: number of samples of each kind.

    Returns:
      Distances and scores by "GROUP/METRIC", and the first NUM_KEPT samples of each group [M, ...].
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


def compare_held_out(inputs: Inputs) -> dict[str, float]:
    """Compare held-out examples with the training data by the MNIST classifier: metrics by "held_out/METRIC"."""
    features, logits = inputs.space.extract(inputs.held_out)
    moments = frechet.Accumulator(inputs.space.size)
    moments.add(features)
    distance = frechet.frechet_distance(moments.moments(), inputs.statistics().moments)
    metrics = {"frechet_mnist_classifier": distance} | classifiers.scores_of_mnist(logits)
    return {f"held_out/{name}": value for name, value in metrics.items()}


def compare_stream(
    parts: Iterator[dict[str, np.ndarray]],
    space: spaces.Space,
    statistics: spaces.Statistics,
    *,
    num_samples: int,
    num_neighbours: int,
    classifier: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Compare samples that arrive in batches with statistics of the training data.

    Args:
      parts: batches of samples [B, ...] by group, such as `sampling.stream` yields.
      space: the feature space of the comparison.
      statistics: statistics of the training data in that space.
      num_samples: total number of samples in all batches.
      num_neighbours: number of samples, and of training examples, for the metrics that compare all pairs.
      classifier: a function from images [B, H, W, C] to class probabilities [B, classes]; None omits its scores.

    Returns:
      Distances and scores by "GROUP/METRIC", and the first NUM_KEPT samples of each group [M, ...].
    """
    is_inception, is_mnist = space.name == "inception", space.name == "mnist_classifier"
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
            if is_mnist:
                classes[name].append(logits)
            elif classifier:
                classes[name].append(classifier(x))
        done += len(x)
    metrics = {}
    for name in GROUPS:
        fake = np.concatenate(features[name])
        group_metrics = {frechet_name: frechet.frechet_distance(moments[name].moments(), statistics.moments)}
        group_metrics[kernel_name] = kernel_distance(fake, real)
        if is_inception:
            group_metrics["inception_score"], group_metrics["inception_score_std"] = inception_scores[name].score()
        group_metrics |= neighbours.neighbourhoods(real, fake, k=K_NEAREST)
        if is_mnist:
            group_metrics |= classifiers.scores_of_mnist(np.concatenate(classes[name]))
        elif classifier:
            group_metrics |= classifiers.scores(np.concatenate(classes[name]))
        metrics |= {f"{name}/{metric}": value for metric, value in group_metrics.items()}
    return metrics, {name: np.concatenate(x) for name, x in kept.items()}


def cost(model: Model, *, seed: int) -> dict[str, float]:
    """Measure the time, and count the network evaluations, of drawing 1,000 samples.

    The time is that of the fastest of three runs, which follow one run for compilation. A gradient of the energy
    counts as one network evaluation.

    Returns:
      Seconds and counts by "GROUP/METRIC".
    """
    num_steps, step_size, temperature = model.x_chain
    num_samples = model.group_size * len(parallel.available())
    metrics = {}
    chain = model.config.x_chain
    # A proposal is one call of each network. A broad proposal is one more call of the inference model.
    proposing = 3 * chain.proposals + chain.broad_proposals if chain.resample else 1
    generator = model.with_resampling(0).with_x_chain(0, step_size, temperature)
    for name, sampler, starts, steps in (("generator", generator, 1, 0), ("revised", model, proposing, num_steps)):
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            parallel.collect(sampling.stream(sampler, num_samples=num_samples, seed=seed))
            seconds.append(time.perf_counter() - start)
        metrics[f"{name}/seconds_per_1000"] = min(seconds[1:]) * 1000 / num_samples
        metrics[f"{name}/network_evaluations_per_1000"] = 1000 * (starts + steps * gradients_per_step(chain))
    return metrics
