"""Calibrated confidence: temperature scaling, and the error that it reduces."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15  # as in the paper below


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Returns the temperature by which logits are divided to calibrate their probabilities.

    Minimises the cross-entropy (Guo et al. 2017, arXiv 1706.04599). Dividing changes no
    prediction, only its confidence: above 1 the network was too confident, below 1 not enough.

    Args:
        logits: float `(N, classes)`, of images the network was not trained on.
        targets: float `(N, classes)`, distributions: of the votes, or 1 for the label.
    """

    def loss(log_temperature: float) -> float:
        return cross_entropy(logits / np.exp(log_temperature), targets)

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean cross-entropy of the softmax of `logits` with the distributions `targets`.

    Args:
        logits: float `(N, classes)`, or the logarithms of probabilities.
        targets: float `(N, classes)`.
    """
    return float(-(targets * log_softmax(logits, axis=1)).sum(1).mean())


def entropy(targets: np.ndarray) -> float:
    """Returns the mean entropy of the distributions `targets`, float `(N, classes)`, in nats."""
    logs = np.log(targets, out=np.zeros_like(targets), where=targets > 0)
    return float(-(targets * logs).sum(1).mean())


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Returns the bin of each confidence, int `(N,)`, among `bins` equal ranges of [0, 1]."""
    return np.minimum((confidence * bins).astype(int), bins - 1)


def calibration_error(probs: np.ndarray, targets: np.ndarray) -> float:
    """Returns the expected calibration error (same source), in [0, 1].

    The mean distance between the confidence of predictions and the fraction of them that is
    correct, over `BINS` equal ranges of confidence. With votes as targets, a prediction is correct
    to the fraction of the raters who voted for it.

    Args:
        probs: float `(N, classes)`.
        targets: float `(N, classes)`, distributions: of the votes, or 1 for the label.
    """
    preds, confidence = probs.argmax(1), probs.max(1)
    correct = targets[np.arange(len(preds)), preds]
    bins = bin_of(confidence, BINS)
    gaps = np.bincount(bins, correct - confidence, BINS)  # a bin's count times its gap
    return float(np.abs(gaps).sum() / len(preds))
