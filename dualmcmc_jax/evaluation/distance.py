"""How far apart are two sets of examples, such as two folders of images?"""

from pathlib import Path

import numpy as np

from dualmcmc_jax.features import spaces
from dualmcmc_jax.metrics import frechet, neighbours
from dualmcmc_jax.metrics.kernel_distance import kernel_distance

LEAST = 6
"""Least number of examples in a set, so that each example has a fifth nearest neighbor."""


def measure(config, x: np.ndarray, reference: np.ndarray, inception_weights: Path | None) -> tuple[str, dict]:
    """Compare a set of examples with a reference set, by the same metrics as samples with the training data.

    Without Inception's weights, images are compared by the principal components of the pixels of the reference set.

    Args:
      config: the whole config (uses data.shape, evaluation.batch_size and evaluation.num_neighbours).
      x: [N, ...], uint8 images or float vectors.
      reference: [M, ...], examples of the same kind.
      inception_weights: path of the file with Inception's weights, or None.

    Returns:
      The name of the feature space for readers, and {metric: value}.

    Raises:
      ValueError: a set has fewer than `LEAST` examples, or Inception's weights cannot be used.
    """
    for name, examples in (("input", x), ("reference", reference)):
        if len(examples) < LEAST:
            raise ValueError(f"{name}: found {len(examples)} examples, expected {LEAST} or more")
    space = spaces.space(config, reference, inception_weights)
    num_features = config.evaluation.num_neighbours
    real = spaces.statistics(space, reference, num_features=num_features)
    fake = spaces.statistics(space, x, num_features=num_features)
    names = ("FID", "KID") if space.name == "inception" else ("Frechet distance", "kernel distance")
    metrics = {
        names[0]: frechet.frechet_distance(fake.moments, real.moments),
        names[1]: kernel_distance(fake.features, real.features),
    }
    label = f"{spaces.LABELS[space.name]} ({space.size} numbers for each example)"
    return label, metrics | neighbours.neighbourhoods(real.features, fake.features, k=LEAST - 1)
