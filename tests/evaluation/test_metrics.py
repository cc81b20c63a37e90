"""The reported numbers, against hand-made cases and their definitions."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from ferlab.evaluation.metrics import bootstrap_macro_f1, evaluate
from ferlab.training.prediction import predict_logits

NAMES = ("a", "b", "c")


def one_hot(preds):
    return np.eye(3)[preds]


def test_hand_made_case():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    preds = np.array([0, 0, 0, 1, 1, 1, 0, 2])
    got = evaluate(labels, one_hot(preds), NAMES, majority=0)
    assert got["n"] == 8
    assert got["accuracy"] == 5 / 8
    assert got["confusion_matrix"] == [[3, 1, 0], [1, 2, 1], [0, 0, 0]]
    assert got["per_class"]["a"] == {"precision": 0.75, "recall": 0.75, "f1": 0.75, "support": 4}
    assert got["per_class"]["b"]["precision"] == pytest.approx(2 / 3)
    assert got["per_class"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert got["macro_recall"] == pytest.approx((0.75 + 0.5 + 0) / 3)
    assert got["balanced_accuracy"] == pytest.approx((0.75 + 0.5) / 2)
    assert got["majority_accuracy"] == 0.5


def test_wilson_interval_is_the_published_one():
    # Brown, Cai & DasGupta 2001: x = 50 of n = 100 gives [0.4038, 0.5962].
    labels = np.zeros(100, dtype=int)
    preds = np.repeat([0, 1], 50)
    interval = evaluate(labels, one_hot(preds), NAMES, majority=0)["accuracy_interval"]
    assert interval == pytest.approx([0.4038, 0.5962], abs=1e-4)


def test_bootstrap_agrees_with_drawing_images():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 400)
    preds = np.where(rng.random(400) < 0.7, labels, rng.integers(0, 3, 400))
    got = evaluate(labels, one_hot(preds), NAMES, majority=0)
    drawn = []
    for _ in range(1500):
        rows = rng.integers(0, 400, 400)
        drawn.append(f1_score(labels[rows], preds[rows], average="macro"))
    assert got["macro_f1_interval"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.008)
    low, high = got["macro_f1_interval"]
    assert low < got["macro_f1"] < high
    matrix = np.array(got["confusion_matrix"])
    assert bootstrap_macro_f1(matrix) == bootstrap_macro_f1(matrix)


class Lopsided(torch.nn.Module):
    """Its logits are the sums of the left and the right half of the picture."""

    def forward(self, images):
        halves = images.view(len(images), 48, 2, 24)
        return halves.sum((1, 3))


def test_logits_are_averaged_over_the_mirror_image():
    images = torch.rand(1030, 1, 48, 48)  # more than one batch
    logits = predict_logits(Lopsided(), images)
    assert logits.shape == (1030, 2)
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    torch.testing.assert_close(logits.sum(1), images.sum((1, 2, 3)))
