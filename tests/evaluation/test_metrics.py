"""The reported numbers, against hand-made cases and their definitions."""

import numpy as np
import pytest
import torch

from ferlab.data.splits import Split
from ferlab.evaluation.metrics import (
    bootstrap_macro_f1,
    calibration_of,
    evaluate,
    evaluate_by_raters,
)
from ferlab.training.prediction import predict_logits, predict_members

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
        matrix = np.bincount(3 * labels[rows] + preds[rows], minlength=9).reshape(3, 3)
        drawn.append((2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))).mean())
    assert got["macro_f1_interval"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.008)
    low, high = got["macro_f1_interval"]
    assert low < got["macro_f1"] < high
    matrix = np.array(got["confusion_matrix"])
    assert bootstrap_macro_f1(matrix) == bootstrap_macro_f1(matrix)


def test_judgement_of_the_raters_by_hand():
    labels = [0, 0, 1, 1, 2, 2, 0]
    preds = [0, 1, 1, 0, 2, 0, 1]
    majority = [0, 1, 2, 1, -1, -1, 0]
    agreement = [10, 6, 6, 10, 7, 0, 3]  # the fifth is contempt, the sixth has no majority
    votes = np.eye(3)[[0, 1, 2, 1, 2, 0, 0]]
    votes[4], votes[6] = 0, (0.5, 0.25, 0.25)
    split = Split(
        torch.zeros(7, 1, 48, 48),
        torch.tensor(labels),
        NAMES,
        torch.tensor(votes).float(),
        torch.tensor(majority),
        torch.tensor(agreement),
    )
    probs = 0.1 + 0.7 * one_hot(preds)
    got = evaluate_by_raters(split, probs, most_frequent=1)
    # judged: all but the sixth; correct: the first two
    assert (got["n"], got["contempt"], got["accuracy"]) == (6, 1, 2 / 6)
    assert got["majority_accuracy"] == 2 / 6  # classes of the majority: 0 1 2 1 contempt 0
    assert got["label_accuracy"] == 3 / 6  # first, fourth, seventh
    assert got["confusion_matrix"] == [[1, 1, 0], [1, 1, 0], [0, 1, 0]]  # without contempt
    assert got["balanced_accuracy"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert got["by_agreement"] == [
        {"raters": 6, "n": 2, "accuracy": 0.5, "label_accuracy": 0.0},
        {"raters": 7, "n": 1, "accuracy": 0.0, "label_accuracy": 0.0},
        {"raters": 10, "n": 2, "accuracy": 0.5, "label_accuracy": 1.0},
    ]
    # errors by the labels: second (raters: 1, the model's), fourth (label's), sixth (nobody's),
    # seventh (label's)
    assert got["errors"] == {"n": 4, "raters_with_model": 1, "raters_with_label": 2}
    # the fifth has no votes; the first, second and sixth are predicted with 0.8, the third and
    # fourth with 0.1, half of the seventh's votes with 0.1, a quarter with 0.8 and with 0.1
    loss = -(3 * np.log(0.8) + 2 * np.log(0.1) + 0.75 * np.log(0.1) + 0.25 * np.log(0.8)) / 6
    assert got["votes_cross_entropy"] == pytest.approx(loss)
    assert got["votes_entropy"] == pytest.approx(-(0.5 * np.log(0.5) + 0.5 * np.log(0.25)) / 6)


def test_calibration_leaves_out_images_without_votes():
    probs = np.array([[0.8, 0.2], [0.6, 0.4]])
    numbers = calibration_of(probs, probs[:, ::-1] * 0 + 0.5, np.array([[0.5, 0.5], [0.0, 0.0]]))
    assert numbers == {"ece": pytest.approx(0.3), "ece_calibrated": pytest.approx(0)}


class Lopsided(torch.nn.Module):
    """Its logits are the sums of the left and the right half of the image."""

    def forward(self, images):
        halves = images.view(len(images), 48, 2, 24)
        return halves.sum((1, 3))


def test_logits_are_averaged_over_the_mirror_image():
    images = torch.rand(1030, 1, 48, 48)  # more than one batch
    logits = predict_logits(Lopsided(), images)
    assert logits.shape == (1030, 2)
    torch.testing.assert_close(logits[:, 0], logits[:, 1])
    torch.testing.assert_close(logits.sum(1), images.sum((1, 2, 3)))


def test_probabilities_of_members_are_averaged_each_with_its_temperature():
    image = torch.zeros(1, 1, 48, 48)
    image[..., :24] = np.log(3) / (24 * 48)  # logits log 3 and 0; of the mirror image 0 and log 3
    members = [(Lopsided(), 1.0), (Lopsided(), 0.5)]
    reported, live, calibrated = predict_members(members, image)
    np.testing.assert_allclose(reported, [[0.5, 0.5]], atol=1e-5)
    np.testing.assert_allclose(live, [[0.75, 0.25]], atol=1e-5)
    np.testing.assert_allclose(calibrated, [[(0.75 + 0.9) / 2, (0.25 + 0.1) / 2]], atol=1e-5)
