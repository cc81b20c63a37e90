"""Temperature scaling and the calibration error, on predictions whose truth is known."""

import numpy as np
import pytest

from ferlab.evaluation.calibration import calibration_error, fit_temperature


def honest(count=20_000, seed=0):
    """Returns logits, and labels drawn with just the probabilities that they tell."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, 7))
    gumbel = rng.gumbel(size=logits.shape)
    return logits, (logits + gumbel).argmax(1)


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_undoes_what_made_logits_too_large(factor):
    logits, labels = honest()
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)


def test_error_of_honest_and_of_boastful_predictions():
    logits, labels = honest()
    assert calibration_error(softmax(logits), labels) < 0.015
    assert calibration_error(softmax(3 * logits), labels) > 0.1


def test_error_by_hand():
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [1.0, 0.0]])
    labels = np.array([0, 1, 0, 0])
    # ranges: two of confidence 0.9, one right: 2 * 0.4; one of 0.6, right: 0.4; one of 1.0: 0
    assert calibration_error(probs, labels) == pytest.approx((0.8 + 0.4) / 4)
