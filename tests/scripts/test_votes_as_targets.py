"""--targets votes on the model scripts: where it writes, what it reports, what it needs."""

import shutil

import numpy as np
import pytest
import torch

import softmax
from conftest import refused
from ferlab.data.splits import load_split, split_path
from ferlab.evaluation.calibration import cross_entropy
from ferlab.training.weights import load_model
from model_runs import EACH_MAIN, SCRIPTS, metrics_of, run


@pytest.fixture(scope="module")
def voted(votes_dir, tmp_path_factory):
    """The default results folder after all four models were trained on votes."""
    place = tmp_path_factory.mktemp("voted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name in SCRIPTS:
            assert run(name, "--data-dir", votes_dir, "--targets", "votes") == 0
    assert [path.name for path in (place / "results").iterdir()] == ["votes"]
    return place / "results" / "votes"


@pytest.mark.parametrize("name", SCRIPTS)
def test_results_on_votes_are_judged_twice(voted, votes_dir, name):
    metrics = metrics_of(voted, name)
    text = (voted / f"{name}_results.txt").read_text()
    split = load_split(votes_dir, "test")
    predictions = np.load(voted / f"{name}_predictions.npz")
    preds = predictions["test_probs"].argmax(1)
    majority, labels = split.majority.numpy(), split.labels.numpy()
    assert np.array_equal(predictions["test_majority"], majority)
    test, raters = metrics["test"], metrics["test"]["raters"]
    # of each ten images seven have a majority for a class and one for contempt, always an error
    assert (test["n"], raters["n"], raters["contempt"]) == (70, 56, 7)
    assert test["accuracy"] == pytest.approx((preds == labels).mean())
    assert raters["accuracy"] == pytest.approx((preds == majority).sum() / 56)
    assert raters["label_accuracy"] == pytest.approx(28 / 56)
    assert [row["raters"] for row in raters["by_agreement"]] == [6, 7, 8, 9, 10]
    assert [row["n"] for row in raters["by_agreement"]] == [21, 14, 7, 7, 7]
    errors = preds != labels
    assert raters["errors"]["n"] == errors.sum()
    assert raters["errors"]["raters_with_model"] == (errors & (preds == majority)).sum()
    for part in (
        "targets            the votes of ten raters",
        "By the dataset's labels",
        "By the raters' majority",
        "Accuracy by the number of agreeing raters, test split",
        f"Of {errors.sum()} errors by the labels, the raters' majority agrees with the model in",
        "Each class by the raters' majority, test split",
        "Confusion matrix by the labels, test split",
        "Confusion matrix by the raters' majority, test split",
    ):
        assert part in text, part
    assert metrics["run"]["targets"] == "votes"
    if name != "baseline":
        assert "the raters' majority, of the averaged weights" in " ".join(text.split())
        assert "Calibration by the votes, one view" in text
        assert "fitted to the votes of val in training" in text


def test_temperature_is_fitted_to_the_votes(voted, votes_dir):
    val = load_split(votes_dir, "val")
    val = val.take(val.votes.sum(1) > 0)
    network, content = load_model(voted / "softmax_model.pth")
    with torch.no_grad():
        logits = network(val.images).numpy()
    best = content["temperature"]
    for other in (0.9 * best, 1.1 * best):
        assert cross_entropy(logits / best, val.votes.numpy()) < cross_entropy(
            logits / other, val.votes.numpy()
        )


def test_baseline_predicts_the_most_frequent_class_of_the_votes(voted, votes_dir):
    train = load_split(votes_dir, "train")
    fractions = train.votes[train.votes.sum(1) > 0].mean(0)
    probs = np.load(voted / "baseline_predictions.npz")["test_probs"]
    np.testing.assert_allclose(probs, np.tile(fractions, (70, 1)), atol=1e-6)


def test_labels_as_targets_are_judged_by_the_raters_too(voted, votes_dir, tmp_path, capsys):
    assert run("softmax", "--data-dir", votes_dir, "--results-dir", tmp_path) == 0
    weights = [folder / "softmax_model.pth" for folder in (tmp_path, voted)]
    out = ["--data-dir", votes_dir, "--results-dir", tmp_path / "both"]
    line = refused(capsys, softmax, "--evaluate", "--weights", *weights, *out)
    assert f"{weights[1]} and {weights[0]} have different targets; leave one out" in line
    metrics, text = metrics_of(tmp_path, "softmax"), (tmp_path / "softmax_results.txt").read_text()
    assert metrics["run"]["targets"] == "labels" and metrics["test"]["raters"]["n"] == 56
    assert "Calibration by the labels" in text and "fitted to the labels of val" in text
    assert metrics["run"]["train_counts"]["labels"] == [20] * 7
    majority = load_split(votes_dir, "train").majority
    counts = torch.bincount(majority[majority >= 0], minlength=7).tolist()
    assert metrics["run"]["train_counts"]["majority"] == counts


@pytest.mark.parametrize("name", EACH_MAIN)
def test_votes_as_targets_need_votes(capsys, data_dir, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    older = tmp_path / "results" / "votes" / f"{name}_model.pth"
    older.parent.mkdir(parents=True)
    older.write_text("older")
    line = refused(capsys, SCRIPTS[name], "--targets", "votes", "--data-dir", data_dir)
    assert "--targets votes: the splits have no votes" in line
    assert "python download_dataset.py" in line and "python dataset_preparation.py" in line
    assert list(older.parent.iterdir()) == [older] and older.read_text() == "older"


def test_weights_of_votes_are_reported_on_data_without(voted, data_dir, tmp_path):
    weights = voted / "softmax_model.pth"
    args = ["--evaluate", "--weights", weights, "--data-dir", data_dir, "--results-dir", tmp_path]
    assert softmax.main([*map(str, args), "--quiet"]) == 0
    assert "raters" not in metrics_of(tmp_path, "softmax")["test"]
    text = (tmp_path / "softmax_results.txt").read_text()
    assert "Calibration by the labels" in text and "By the raters" not in text


def test_splits_with_and_without_votes_do_not_go_together(capsys, data_dir, votes_dir, tmp_path):
    for folder, split in ((data_dir, "train"), (votes_dir, "val")):
        shutil.copy(split_path(folder, split), tmp_path)
    line = refused(capsys, softmax, "--data-dir", tmp_path, "--results-dir", tmp_path / "out")
    assert "val_data.pt has votes and others have none, or the reverse" in line
    assert not list((tmp_path / "out").iterdir())
