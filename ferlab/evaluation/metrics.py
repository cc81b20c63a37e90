"""Predictions and the numbers that are reported about them."""

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn

from ferlab.training.prediction import predict_views

BOOTSTRAP_SAMPLES = 10_000
CONFIDENCE = 0.95


def predict_members(
    members: list[tuple[nn.Module, float]], images: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean probabilities of one network or several.

    Args:
        members: each network with its temperature.
        images: float32 `(N, 1, 48, 48)` in [-1, 1], on the device to compute on.

    Returns:
        Three times float32 `(N, classes)`: of logits averaged over two views, which is what is
        reported; of the plain view alone, which is what the live program sees; and of that view
        with each network's logits divided by its temperature.
    """
    sums: list[torch.Tensor] = []
    for model, temperature in members:
        model = model.to(images.device, memory_format=torch.channels_last)
        plain, mirrored = predict_views(model, images)
        logits = ((plain + mirrored) / 2, plain, plain / temperature)
        probs = [each.softmax(1) for each in logits]
        sums = [a + b for a, b in zip(sums, probs, strict=True)] if sums else probs
    reported, live, calibrated = ((each / len(members)).cpu().numpy() for each in sums)
    return reported, live, calibrated


def evaluate(
    labels: np.ndarray, probs: np.ndarray, class_names: tuple[str, ...], majority: int
) -> dict:
    """Returns the reported numbers of one split, as plain types.

    Args:
        labels: int `(N,)`.
        probs: float `(N, classes)`.
        class_names: the classes' names.
        majority: the most frequent class of the train split, whose constant prediction is the
            comparison that every accuracy is read against.

    Returns:
        n, accuracy with its interval, macro precision/recall/F1, the interval of F1, balanced
        accuracy, the majority class's accuracy, the numbers of each class, and the confusion
        matrix (rows true, columns predicted). Macro averages run over all classes, balanced
        accuracy over those that occur; a ratio without cases counts as 0.
    """
    preds = probs.argmax(1)
    classes = range(len(class_names))
    matrix = confusion_matrix(labels, preds, labels=classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, preds, labels=classes, zero_division=0
    )
    interval = binomtest(int(matrix.trace()), len(labels)).proportion_ci(CONFIDENCE, "wilson")
    return {
        "n": len(labels),
        "accuracy": float(matrix.trace() / len(labels)),
        "accuracy_interval": [float(interval.low), float(interval.high)],
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "macro_f1_interval": bootstrap_macro_f1(matrix),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "majority_accuracy": float((labels == majority).mean()),
        "per_class": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "support": int(support[index]),
            }
            for index, name in enumerate(class_names)
        },
        "confusion_matrix": matrix.tolist(),
    }


def bootstrap_macro_f1(matrix: np.ndarray, seed: int = 0) -> list[float]:
    """Returns the percentile bootstrap interval of macro F1 (Efron & Tibshirani 1993, ch. 13).

    Drawing N images with replacement fills the confusion matrix as a multinomial draw does, so
    the matrices are drawn, not the images.

    Args:
        matrix: int `(classes, classes)`, rows true.
        seed: of the draws.
    """
    total = matrix.sum()
    drawn = np.random.default_rng(seed).multinomial(
        total, matrix.ravel() / total, size=BOOTSTRAP_SAMPLES
    )
    drawn = drawn.reshape(-1, *matrix.shape)
    hits = np.diagonal(drawn, axis1=1, axis2=2)
    cases = drawn.sum(1) + drawn.sum(2)  # 2 TP + FP + FN
    f1 = np.divide(2 * hits, cases, out=np.zeros(hits.shape), where=cases > 0).mean(1)
    tail = (1 - CONFIDENCE) / 2
    return [float(bound) for bound in np.quantile(f1, [tail, 1 - tail])]
