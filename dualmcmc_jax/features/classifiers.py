"""Classifiers that score samples. Distances between pixels are blind to sharpness, and classifiers are not."""

import functools
import warnings

import numpy as np

from dualmcmc_jax.data.batches import to_float


class DigitClassifier:
    """A support vector machine trained on the classes of scikit-learn's training digits.

    Real held-out digits score 7.7. Draws of a Gaussian fitted to the pixels score 3.0, and the Frechet distance between
    pixels cannot tell them from digits.
    """

    def __init__(self):
        from sklearn.datasets import load_digits
        from sklearn.svm import SVC

        images, labels = load_digits(return_X_y=True)
        train = np.random.RandomState(0).permutation(len(images))[:1500]  # the split of data/sources.py
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            self._svc = SVC(C=10, probability=True, random_state=0).fit(images[train] / 8 - 1, labels[train])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return class probabilities [B, 10] of uint8 digits [B, 8, 8, 1]."""
        return self._svc.predict_proba(np.asarray(to_float(images, np.float64)).reshape(len(images), -1))


digit_classifier = functools.cache(DigitClassifier)
CLASSIFIERS = {"digits": digit_classifier}
"""The function that returns each classifier, by the name that a data set gives it."""


def scores(p: np.ndarray) -> dict[str, float]:
    """Score class probabilities [N, 10] of samples.

    Returns:
      svc_score: exp(E KL(p(y | x), p(y))), which is high if the classifier is sure of each digit and the digits are
      varied. class_entropy: the entropy of the classes, in nats, at most 2.303.
    """
    divergence = np.sum(p * (np.log(p + 1e-12) - np.log(p.mean(0))), axis=1)
    share = np.bincount(p.argmax(1), minlength=p.shape[1]) / len(p)
    entropy = -np.sum(share * np.log(share + 1e-12))
    return {"svc_score": float(np.exp(divergence.mean())), "class_entropy": float(entropy)}
