"""The Inception Score, in float64."""

import numpy as np


class InceptionScore:
    """Accumulator of the Inception Score of images that arrive in batches (Salimans et al., 2016).

    The images are divided, in their order, into `splits` parts. The score of a part is exp(E_x KL(p(y | x), p(y))),
    where p(y | x) are the class probabilities of an image x and p(y) is their mean over the part. The score lies
    between 1 and the number of classes. Higher is better.

    Args:
      num_samples: total number of images.
      num_classes: number of classes y.
      splits: number of parts. If it exceeds num_samples, there are num_samples parts.
    """

    def __init__(self, num_samples: int, num_classes: int, splits: int = 10):
        splits = min(splits, num_samples)
        self._part = np.arange(num_samples) * splits // num_samples
        self._done = 0
        self._probability = np.zeros((splits, num_classes))
        self._negentropy = np.zeros(splits)

    def add(self, logits: np.ndarray) -> None:
        """Add the logits [B, classes] of the next images."""
        x = np.asarray(logits, np.float64)
        log_p = x - np.logaddexp.reduce(x, axis=1, keepdims=True)
        part = self._part[self._done : self._done + len(x)]
        np.add.at(self._probability, part, np.exp(log_p))
        np.add.at(self._negentropy, part, np.sum(np.exp(log_p) * log_p, axis=1))
        self._done += len(x)

    def score(self) -> tuple[float, float]:
        """Return the mean and the standard deviation (population form) of the scores of the parts."""
        size = np.bincount(self._part)
        p = self._probability / size[:, None]
        marginal = np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1)
        scores = np.exp(self._negentropy / size - marginal)
        return float(scores.mean()), float(scores.std())
