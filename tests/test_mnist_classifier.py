"""Tests for `features/mnist_classifier.py`, and for its use as a feature space and as a judge of samples."""

from pathlib import Path

import numpy as np
import pytest

from dualmcmc_jax.configs import default, digits
from dualmcmc_jax.data.sources import Dataset
from dualmcmc_jax.evaluation import samples
from dualmcmc_jax.evaluation.question import Inputs
from dualmcmc_jax.features import classifiers, mnist_classifier, spaces

FILE = Path(__file__).parent / "reference" / "mnist.npz"  # the first 200 test images of MNIST and their classes


@pytest.fixture(scope="module")
def data():
    with np.load(FILE) as arrays:
        return arrays["images"], arrays["labels"]


@pytest.fixture(scope="module")
def space(data):
    config = default.get_config()
    config.data.shape = (28, 28, 1)
    config.evaluation.features = "mnist_classifier"
    return spaces.space(config, data[0], None)


@pytest.fixture(scope="module")
def extracted(data, space):
    return space.extract(data[0])


def test_shipped_weights_classify_test_images(data, extracted):
    features, logits = extracted
    assert features.shape == (200, mnist_classifier.NUM_FEATURES)
    assert np.mean(logits.argmax(1) == data[1]) >= 0.99
    scores = classifiers.scores_of_mnist(logits)
    assert scores["classifier_score"] > 9
    assert scores["confident_share"] > 0.97


def test_noise_is_not_like_a_digit(data, space, extracted):
    noise = np.random.RandomState(0).randint(0, 256, data[0].shape).astype(np.uint8)
    scores = classifiers.scores_of_mnist(space.extract(noise)[1])
    assert scores["classifier_score"] < 3
    gap = lambda x: np.square(x.mean(0) - extracted[0].mean(0)).sum()
    assert gap(space.extract(noise)[0]) > 20 * gap(extracted[0][::2])


def test_scores_of_known_probabilities():
    certain = classifiers.scores_of_mnist(100.0 * np.eye(10))
    assert certain["classifier_score"] == pytest.approx(10)
    assert certain["class_entropy"] == pytest.approx(np.log(10))
    assert certain["confident_share"] == 1
    ignorant = classifiers.scores_of_mnist(np.zeros((7, 10)))
    assert ignorant["classifier_score"] == pytest.approx(1)
    assert ignorant["class_entropy"] == pytest.approx(0, abs=1e-9)
    assert ignorant["confident_share"] == 0
    # With probabilities (0.95, 0.05 / 9, ...) of one class, and (0.85, 0.15 / 9, ...) of another: one of two is sure.
    p = np.array([[0.95] + [0.05 / 9] * 9, [0.15 / 9] + [0.85] + [0.15 / 9] * 8])
    assert classifiers.scores_of_mnist(np.log(p))["confident_share"] == 0.5
    assert classifiers.scores_of_mnist(np.log(p))["class_entropy"] == pytest.approx(np.log(2))


def test_held_out_images_are_compared_with_the_training_images(data, space):
    dataset = Dataset(data[0][:100], data[0][100:])
    statistics = spaces.statistics(space, dataset.train, num_features=100)
    same = samples.compare_held_out(Inputs(dataset, dataset.train, space, lambda: statistics))
    assert same["held_out/frechet_mnist_classifier"] == pytest.approx(0, abs=1e-3)
    other = samples.compare_held_out(Inputs(dataset, dataset.test, space, lambda: statistics))
    assert other["held_out/frechet_mnist_classifier"] > 1
    assert {"held_out/classifier_score", "held_out/confident_share", "held_out/class_entropy"} < set(other)
    label, _ = samples.SECTIONS[0].find("held_out/confident_share")
    assert label.label == "Share with a class of probability above 0.9"


def test_training_learns(data):
    images, labels = (part[:20] for part in data)
    params = mnist_classifier.train(images, labels, num_epochs=50, batch_size=10)
    assert mnist_classifier.accuracy(params, images, labels) > 0.6


def test_other_shapes_are_refused():
    config = digits.get_config()
    config.evaluation.features = "mnist_classifier"
    with pytest.raises(ValueError, match=r"evaluation.features: found 'mnist_classifier', expected '', because .*8, 8"):
        spaces.space(config, np.zeros((10, 8, 8, 1), np.uint8), None)
