"""The feature spaces in which samples are compared with data, and the statistics of the training data in a space."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dualmcmc_jax.data import cache
from dualmcmc_jax.data.batches import subset, to_float
from dualmcmc_jax.features import inception, mnist_classifier
from dualmcmc_jax.metrics import frechet
from dualmcmc_jax.runtime import parallel

NUM_COMPONENTS = 64
"""Largest number of principal components of pixels."""
NUM_TO_FIT = 10_000
"""Largest number of training images from which the principal components are computed."""
LARGEST_SIDE = 32
"""Largest height and width, in pixels, for the principal components. Larger images are averaged over blocks first."""
LABELS = {
    "inception": "Inception features",
    "pixels_pca": "pixel PCA",
    "vectors": "data vectors",
    "mnist_classifier": "features of the MNIST classifier",
}
"""Names of the feature spaces for readers, by their names in metric keys."""
NAMES = tuple(LABELS)


class Space(NamedTuple):
    """A feature space.

    Attributes:
      name: one of `NAMES`.
      size: number of features, d.
      key: a function without arguments that returns a text unique to this space, for use in cache keys.
      extract: a function from examples [N, ...] to features [N, d] and logits [N, classes]. The logits are None unless
        the features are those of a classifier.
    """

    name: str
    size: int
    key: Callable[[], str]
    extract: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]


class Statistics(NamedTuple):
    """Statistics of the training data in a feature space.

    Attributes:
      moments: mean and covariance of the features of all training examples.
      features: [M, d], features of a random choice of training examples, in random order.
    """

    moments: frechet.Moments
    features: np.ndarray


def space(config, train: np.ndarray, inception_weights: Path | None) -> Space:
    """Choose the feature space for a data set.

    Vectors are compared as they are. Images are compared by Inception's features if `inception_weights` is given, by
    those of the MNIST classifier if `evaluation.features` says so, and otherwise by the principal components of their
    pixels.

    Args:
      config: the whole config.
      train: [N, ...], training examples.
      inception_weights: path of the file with Inception's weights, or None.

    Raises:
      ValueError: the weights are not those of Inception, weights are given although the examples are vectors, or the
        examples are no inputs of the MNIST classifier.
    """
    shape = tuple(config.data.shape)
    if config.evaluation.features and shape != mnist_classifier.SHAPE:
        expected = f"'', because examples of shape {shape} do not have the shape {mnist_classifier.SHAPE} of MNIST"
        raise ValueError(f"evaluation.features: found {config.evaluation.features!r}, expected {expected}")
    if len(shape) == 1:
        if inception_weights:
            raise ValueError(f"inception_weights: found vectors of shape {train.shape[1:]} as data, expected images")
        return Space("vectors", train.shape[1], lambda: "vectors", lambda x: (x, None))
    if inception_weights:
        return _inception(config, inception_weights)
    return _mnist_classifier(config) if config.evaluation.features else _pixels(train)


def _inception(config, path: Path) -> Space:
    """Return the space of Inception's pool3 features."""
    params = parallel.replicate(inception.load(path))
    size = config.evaluation.batch_size
    if jax.default_backend() == "cpu":
        size = min(size, 16)  # larger batches exceed the CPU's caches: 10.4 images/s at size 8, 6.8 at 100
    run = parallel.stream(_inception_features, size, desc="Inception")
    extract = lambda x: parallel.collect(run(params, len(x), x))
    return Space(
        "inception", inception.NUM_FEATURES, lambda: f"inception {inception.SHA256} {inception.VERSION}", extract
    )


def _inception_features(params, _index, x):
    """Return features and logits of uint8 images.

    The function is defined at module level, so that `parallel.stream` compiles it only once.
    """
    return inception.Inception().apply({"params": params}, x)


def _mnist_classifier(config) -> Space:
    """Return the space of the penultimate features of the MNIST classifier."""
    params = parallel.replicate(mnist_classifier.load(mnist_classifier.WEIGHTS))
    run = parallel.stream(_mnist_features, config.evaluation.batch_size, desc="MNIST classifier")
    extract = lambda x: parallel.collect(run(params, len(x), x))
    key = hashlib.sha256(mnist_classifier.WEIGHTS.read_bytes()).hexdigest()
    return Space("mnist_classifier", mnist_classifier.NUM_FEATURES, lambda: f"mnist_classifier {key}", extract)


def _mnist_features(params, _index, x):
    """Return features and logits of uint8 images of MNIST."""
    return mnist_classifier.Classifier().apply({"params": params}, to_float(x, jnp.float32))


def _pixels(train: np.ndarray) -> Space:
    """Return the space of the principal components of pixels in [-1, 1].

    Images with a side above LARGEST_SIDE are averaged over blocks of pixels first.
    """

    def pixels(x):
        x = to_float(x, np.float32)
        block = -(-max(x.shape[1:3]) // LARGEST_SIDE)
        height, width = (side // block for side in x.shape[1:3])
        x = x[:, : height * block, : width * block].reshape(len(x), height, block, width, block, -1)
        return x.mean((2, 4)).reshape(len(x), -1)

    num_pixels = pixels(train[:1]).shape[1]
    size = min(NUM_COMPONENTS, num_pixels)

    def fit():
        accumulator = frechet.Accumulator(num_pixels)
        index = subset(len(train), NUM_TO_FIT)
        for i in range(0, len(index), 1000):
            accumulator.add(pixels(train[index[i : i + 1000]]))
        mean, covariance = accumulator.moments()
        axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :size]
        return {"mean": mean, "axes": axes}

    key = lambda: {"pixels_pca": size, "of": NUM_TO_FIT, "data": fingerprint(train)}
    basis = functools.cache(lambda: cache.arrays("features", key(), fit))
    extract = lambda x: ((pixels(x) - basis()["mean"]) @ basis()["axes"], None)
    return Space("pixels_pca", size, lambda: f"pixels_pca {fingerprint(basis()['axes'])}", extract)


def statistics(space: Space, train: np.ndarray, *, num_features: int) -> Statistics:
    """Compute the statistics of the training data in a feature space, or read them from the cache folder.

    The cache key contains a hash of the training data, so that data from another source, or with other preprocessing,
    never share an entry.

    Args:
      space: the feature space.
      train: [N, ...], training examples.
      num_features: number of examples whose features are kept, M. If it exceeds N, the features of all are kept.
    """
    num_features = min(num_features, len(train))

    def make():
        accumulator, kept = frechet.Accumulator(space.size), np.empty((num_features, space.size), np.float32)
        row_of = np.full(len(train), -1)  # the row of each example in `kept`; -1: the example is not kept
        row_of[subset(len(train), num_features)] = np.arange(num_features)
        for i in tqdm(
            range(0, len(train), 1000), desc="features of training data", unit="thousand", delay=2, leave=False
        ):
            features, _ = space.extract(train[i : i + 1000])
            accumulator.add(features)
            rows = row_of[i : i + 1000]
            kept[rows[rows >= 0]] = features[rows >= 0]
        moments = accumulator.moments()
        return {"mean": moments.mean, "covariance": moments.covariance, "features": kept}

    key = {"data": fingerprint(train), "space": space.key(), "num_features": num_features}
    arrays = cache.arrays("statistics", key, make)
    return Statistics(frechet.Moments(arrays["mean"], arrays["covariance"]), arrays["features"])


def fingerprint(x: np.ndarray) -> str:
    """Return the sha256 of an array's values, shape and dtype."""
    digest = hashlib.sha256(f"{x.shape} {x.dtype}".encode())
    for i in range(0, len(x), 10_000):
        digest.update(np.ascontiguousarray(x[i : i + 10_000]))
    return digest.hexdigest()
