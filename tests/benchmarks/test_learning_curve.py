"""The learning curve: its parts of train, what it trains again, and its files."""

import csv
import json

import pytest
import torch

from benchmarks import learning_curve


def test_parts_are_nested_and_have_the_fractions_of_the_classes():
    labels = torch.tensor([0] * 64 + [1] * 32 + [2] * 3)[torch.randperm(99)]
    parts = [learning_curve.rows_of(labels, fraction) for fraction in (1 / 16, 1 / 4, 1)]
    counts = [labels[rows].bincount().tolist() for rows in parts]
    assert counts == [[4, 2, 1], [16, 8, 1], [64, 32, 3]]
    assert set(parts[0].tolist()) < set(parts[1].tolist()) < set(parts[2].tolist())
    assert all(len(rows.unique()) == len(rows) for rows in parts)


def test_models_are_trained_on_parts_and_only_once(votes_dir, tmp_path, capsys, monkeypatch):
    args = ["--data-dir", str(votes_dir), "--results-dir", str(tmp_path / "curve"), "--quiet"]
    args += ["--reference", str(tmp_path / "whole"), "--models", "softmax", "--epochs", "2"]
    args += ["--fractions", "0.25", "1"]
    assert learning_curve.main(args) == 0
    with (tmp_path / "curve" / "learning_curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["fraction"]), row["epochs"]) for row in rows] == [(0.25, "4"), (1, "2")]
    images = [int(row["images"]) for row in rows]
    assert images[0] == pytest.approx(images[1] / 4, abs=4)
    for row in rows:
        found = json.loads(
            (tmp_path / "curve" / row["images"] / "softmax_metrics.json").read_text()
        )
        assert "test" not in found and sum(found["run"]["train_counts"]["labels"]) == int(
            row["images"]
        )
        assert float(row["raters"]) == pytest.approx(found["val"]["raters"]["accuracy"], abs=1e-4)
    assert (tmp_path / "curve" / "explain_learning.png").stat().st_size > 10_000

    def no_training(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(learning_curve, "trained", no_training)
    assert learning_curve.main(args) == 0
    (tmp_path / "curve" / str(images[1])).rename(tmp_path / "whole")  # as in reference/
    assert learning_curve.main(args) == 0
    capsys.readouterr()
    assert learning_curve.main([*args, "--fractions", "0.25", "--lr", "0.1"]) == 1
    assert "is of other flags; name another --results-dir" in capsys.readouterr().err
