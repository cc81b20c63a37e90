"""The numbers that are reported of a model's predictions, by the labels and by the raters."""

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from ferlab.constants import RATERS
from ferlab.data.splits import Split
from ferlab.evaluation.calibration import calibration_error, cross_entropy, entropy

BOOTSTRAP_SAMPLES = 10_000
CONFIDENCE = 0.95
LEAST_AGREEING = 5  # raters: with fewer there is no majority, except in rare cases


def evaluate_split(split: Split, probs: np.ndarray, counts: dict[str, list[int]]) -> dict:
    """Returns the reported numbers of a split, by the labels and by the raters if it has votes.

    Args:
        split: N images.
        probs: float `(N, classes)`.
        counts: images of each class in the train split, see `Split.counts`.
    """
    most_frequent = {kind: int(np.argmax(numbers)) for kind, numbers in counts.items()}
    labels = split.labels.numpy()
    result = evaluate(labels, probs, split.class_names, most_frequent["labels"])
    result["digest"] = split.digest()
    if split.votes is not None and (split.majority >= 0).any():
        most = most_frequent.get("majority", most_frequent["labels"])
        result["raters"] = evaluate_by_raters(split, probs, most)
    return result


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
    return {
        **accuracy_of(int(matrix.trace()), len(labels)),
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


def accuracy_of(correct: int, n: int) -> dict:
    """Returns n, accuracy and Wilson's 95 % interval of `correct` predictions among `n`."""
    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, "wilson")
    return {
        "n": n,
        "accuracy": correct / n,
        "accuracy_interval": [float(interval.low), float(interval.high)],
    }


def evaluate_by_raters(split: Split, probs: np.ndarray, most_frequent: int) -> dict:
    """Returns the reported numbers of one split by the votes of the raters, as plain types.

    Args:
        split: N images with votes.
        probs: float `(N, classes)`.
        most_frequent: the most frequent majority in the train split.

    Returns:
        What `evaluate` returns, with the majority as the true class. The accuracy counts the images
        whose majority is contempt, `contempt` many, as errors (protocol of Barsoum et al. 2016,
        arXiv 1608.01041). Further: the accuracy of the dataset's label; both accuracies by the
        number of agreeing raters; of the errors by the labels, how often the raters agree with the
        model and with the label; the cross-entropy with the votes, and the entropy of the votes,
        which is its lower bound.
    """
    labels, votes, majority, agreement = (
        tensor.cpu().numpy()
        for tensor in (split.labels, split.votes, split.majority, split.agreement)
    )
    preds, decided = probs.argmax(1), majority >= 0
    contempt = (agreement > 0) & ~decided
    judged, correct = decided | contempt, preds == majority
    result = evaluate(majority[decided], probs[decided], split.class_names, most_frequent)
    result |= accuracy_of(int(correct[judged].sum()), int(judged.sum()))
    result["majority_accuracy"] = float((majority == most_frequent)[judged].mean())
    errors = preds != labels
    voted = votes.sum(1) > 0
    return result | {
        "contempt": int(contempt.sum()),
        "label_accuracy": float((labels == majority)[judged].mean()),
        "by_agreement": [
            {
                "raters": raters,
                "n": int(chosen.sum()),
                "accuracy": float(correct[chosen].mean()),
                "label_accuracy": float((labels == majority)[chosen].mean()),
            }
            for raters in range(LEAST_AGREEING, RATERS + 1)
            if (chosen := judged & (agreement == raters)).any()
        ],
        "errors": {
            "n": int(errors.sum()),
            "raters_with_model": int((errors & decided & correct).sum()),
            "raters_with_label": int((errors & decided & (labels == majority)).sum()),
        },
        "votes_cross_entropy": cross_entropy(np.log(probs[voted] + 1e-12), votes[voted]),
        "votes_entropy": entropy(votes[voted]),
    }


def calibration_of(live: np.ndarray, calibrated: np.ndarray, targets: np.ndarray) -> dict:
    """Returns the calibration error of one view, before and after the temperature.

    Args:
        live: float `(N, classes)`, probabilities of the plain view.
        calibrated: the same after the temperature.
        targets: float `(N, classes)`: 1 for the label, or the fractions of the votes; rows that sum
            to 0 are left out.
    """
    voted = targets.sum(1) > 0
    return {
        "ece": calibration_error(live[voted], targets[voted]),
        "ece_calibrated": calibration_error(calibrated[voted], targets[voted]),
    }


def bootstrap_macro_f1(matrix: np.ndarray) -> list[float]:
    """Returns the percentile bootstrap interval of macro F1 (Efron & Tibshirani 1993, ch. 13).

    Drawing N images with replacement fills the confusion matrix as a multinomial draw does, so
    the matrices are drawn, not the images.

    Args:
        matrix: int `(classes, classes)`, rows true.
    """
    total = matrix.sum()
    drawn = np.random.default_rng(0).multinomial(
        total, matrix.ravel() / total, size=BOOTSTRAP_SAMPLES
    )
    drawn = drawn.reshape(-1, *matrix.shape)
    hits = np.diagonal(drawn, axis1=1, axis2=2)
    cases = drawn.sum(1) + drawn.sum(2)  # 2 TP + FP + FN
    f1 = np.divide(2 * hits, cases, out=np.zeros(hits.shape), where=cases > 0).mean(1)
    tail = (1 - CONFIDENCE) / 2
    return [float(bound) for bound in np.quantile(f1, [tail, 1 - tail])]
