"""Confidence that means what it says: temperature scaling and its measure."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BINS = 15  # as in the paper below


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature by which to divide logits so that their probabilities are honest.

    Minimises the negative log-likelihood (Guo et al. 2017, arXiv 1706.04599). Dividing changes no
    prediction, only how sure it sounds: above 1 the network was too sure, below 1 too hesitant.

    Args:
        logits: float `(N, classes)`, of images the network was not trained on.
        labels: int `(N,)`.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -scaled[np.arange(len(labels)), labels].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def calibration_error(probs: np.ndarray, labels: np.ndarray) -> float:
    """Returns the expected calibration error (same source), in [0, 1].

    How far, on average, the confidence of predictions is from the share of them that is right;
    predictions are put into `BINS` equal ranges of confidence.

    Args:
        probs: float `(N, classes)`.
        labels: int `(N,)`.
    """
    confidence, right = probs.max(1), probs.argmax(1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, right - confidence, BINS)  # a bin's count times its gap
    return float(np.abs(gaps).sum() / len(labels))
