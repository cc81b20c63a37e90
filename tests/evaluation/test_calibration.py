"""Temperature scaling and the calibration error, on predictions whose truth is known."""

import numpy as np
import pytest
from scipy.special import softmax

from ferlab.evaluation.calibration import calibration_error, cross_entropy, entropy, fit_temperature


def calibrated(count=20_000, seed=0):
    """Returns logits, and labels drawn with just their probabilities, one-hot."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, 7))
    gumbel = rng.gumbel(size=logits.shape)
    return logits, np.eye(7)[(logits + gumbel).argmax(1)]


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_undoes_what_made_logits_too_large(factor):
    logits, labels = calibrated()
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)


def test_temperature_is_fitted_to_the_distribution_of_the_votes():
    logits = np.array([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    votes = np.array([[0.75, 0.25], [0.25, 0.75], [0.75, 0.25]])
    # softmax(2 / T) = 0.75 where 2 / T = log 3
    assert fit_temperature(logits, votes) == pytest.approx(2 / np.log(3), rel=1e-3)


def test_error_of_calibrated_and_of_overconfident_predictions():
    logits, labels = calibrated()
    assert calibration_error(softmax(logits, axis=1), labels) < 0.015
    assert calibration_error(softmax(3 * logits, axis=1), labels) > 0.1


def test_error_by_hand():
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [1.0, 0.0]])
    labels = np.eye(2)[[0, 1, 0, 0]]
    # ranges: two of confidence 0.9, one right: 2 * 0.4; one of 0.6, right: 0.4; one of 1.0: 0
    assert calibration_error(probs, labels) == pytest.approx((0.8 + 0.4) / 4)
    votes = np.array([[0.9, 0.1], [0.5, 0.5], [0.6, 0.4], [0.8, 0.2]])
    # 1.8 expected and 1.4 voted; 0.6 and 0.6; 1.0 and 0.8
    assert calibration_error(probs, votes) == pytest.approx((0.4 + 0 + 0.2) / 4)


def test_cross_entropy_and_entropy_by_hand():
    votes = np.array([[0.5, 0.5], [1.0, 0.0]])
    logits = np.log([[0.75, 0.25], [0.5, 0.5]])
    expected = (-(np.log(0.75) + np.log(0.25)) / 2 - np.log(0.5)) / 2
    assert cross_entropy(logits, votes) == pytest.approx(expected)
    assert entropy(votes) == pytest.approx(np.log(2) / 2)
    assert cross_entropy(np.log(votes + 1e-12), votes) == pytest.approx(entropy(votes), abs=1e-9)
