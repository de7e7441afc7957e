"""Classifiers that score samples of particular data sets.

A classifier judges every sample, for instance whether it is sharp. A Frechet distance between pixels depends only on
the mean and the covariance of all samples.
"""

import functools
import warnings

import numpy as np
from scipy.special import softmax

from dualmcmc_jax.data.batches import to_float

CONFIDENT = 0.9
"""A classifier is confident of an image if its most likely class has a probability above this."""


class DigitClassifier:
    """Digit classifier: a support vector machine trained on the training digits of scikit-learn.

    For comparison, real held-out digits have an `svc_score` of 7.7. Draws from a Gaussian fitted to the pixels have an
    `svc_score` of 3.0, although the Frechet distance between pixels does not distinguish them from real digits.
    """

    def __init__(self):
        from sklearn.datasets import load_digits
        from sklearn.svm import SVC

        images, labels = load_digits(return_X_y=True)
        train = np.random.RandomState(0).permutation(len(images))[:1500]  # the same split as in data/sources.py
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            self._svc = SVC(C=10, probability=True, random_state=0).fit(images[train] / 8 - 1, labels[train])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the class probabilities [B, 10] of uint8 digits [B, 8, 8, 1]."""
        return self._svc.predict_proba(np.asarray(to_float(images, np.float64)).reshape(len(images), -1))


digit_classifier = functools.cache(DigitClassifier)
CLASSIFIERS = {"digits": digit_classifier}
"""Functions that return a classifier, by the name in `Dataset.classifier`."""


def scores(p: np.ndarray) -> dict[str, float]:
    """Score samples by their class probabilities, with the formula of the Inception Score (Salimans et al., 2016).

    Args:
      p: [N, 10], class probabilities p(y | x) of each sample x.

    Returns:
      - "svc_score": exp(E KL(p(y | x), p(y))), between 1 and 10; p(y) is the mean of p(y | x). The score is high if the
        classifier is certain about each sample and the samples cover all classes.
      - "class_entropy": the entropy of the most likely classes of the samples, in nats, at most ln 10 = 2.303.
    """
    return {"svc_score": _score(p), "class_entropy": _class_entropy(p)}


def scores_of_mnist(logits: np.ndarray) -> dict[str, float]:
    """Score samples by the MNIST classifier.

    Args:
      logits: [N, 10], logits of each sample.

    Returns:
      - "classifier_score": the score of `scores`, from the probabilities softmax(logits);
      - "confident_share": the share of samples whose most likely class has a probability above CONFIDENT;
      - "class_entropy": as in `scores`.
    """
    p = softmax(np.asarray(logits, np.float64), axis=1)
    confident = float(np.mean(p.max(1) > CONFIDENT))
    return {"classifier_score": _score(p), "confident_share": confident, "class_entropy": _class_entropy(p)}


def _score(p: np.ndarray) -> float:
    """Return exp(E KL(p(y | x), p(y))) for class probabilities p(y | x) [N, classes]."""
    divergence = np.sum(p * (np.log(p + 1e-12) - np.log(p.mean(0))), axis=1)
    return float(np.exp(divergence.mean()))


def _class_entropy(p: np.ndarray) -> float:
    """Return the entropy of the most likely classes, in nats, for class probabilities p(y | x) [N, classes]."""
    share = np.bincount(p.argmax(1), minlength=p.shape[1]) / len(p)
    return float(-np.sum(share * np.log(share + 1e-12)))
