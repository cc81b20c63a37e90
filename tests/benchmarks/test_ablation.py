"""The ablation: which images it trains on and judges, and its table."""

import csv

import pytest
import torch

from benchmarks import ablation
from ferlab.data.splits import Split
from ferlab.files import UserError


def numbered(first, count):
    """A split whose images differ in their grey level."""
    levels = torch.arange(first, first + count) / 100
    images = levels.view(-1, 1, 1, 1).expand(-1, 1, 48, 48)
    return Split(images, torch.arange(first, first + count) % 2, ("a", "b"))


def test_a_part_of_train_is_trained_on_and_the_rest_is_judged():
    splits = {"train": numbered(0, 30), "val": numbered(30, 10)}
    taken, judged = ablation.divided(splits, 12)
    seen = [split.images[:, 0, 0, 0].mul(100).round().int().tolist() for split in (taken, judged)]
    assert len(taken) == 12 and sorted(seen[0] + seen[1]) == list(range(40))
    for split, levels in zip((taken, judged), seen, strict=True):
        assert split.labels.tolist() == [level % 2 for level in levels]
    with pytest.raises(UserError, match="--train-images 30: train has 30"):
        ablation.divided(splits, 30)


def test_changes_are_paired():
    rows = {
        name: {"labels": "0", "raters": "", "seconds": "1", "correct": bytes([bits]).hex()}
        for name, bits in ((ablation.RECIPE, 0b11110000), ("SGD", 0b11000000))
    }
    line = ablation.table(rows, "labels").splitlines()[2]
    # of 8 images two are lost: mean -2/8, standard error sqrt(0.25 * 0.75 / 8)
    assert "-25.00 ± 15.31" in line


def test_variants_that_are_there_are_not_trained_again(data_dir, tmp_path, capsys):
    args = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path), "--targets", "labels"]
    args += ["--train-images", "56", "--epochs", "1", "--quiet", "--widths", "8", "16"]
    assert ablation.main([*args, "--only", "no EMA"]) == 0
    first = (tmp_path / "ablation_labels.csv").read_bytes()
    assert ablation.main([*args, "--only", "no EMA"]) == 0
    assert (tmp_path / "ablation_labels.csv").read_bytes() == first
    with (tmp_path / "ablation_labels.csv").open() as file:
        assert [row["variant"] for row in csv.DictReader(file)] == [ablation.RECIPE, "no EMA"]
    capsys.readouterr()
    assert ablation.main([*args, "--lr", "0.1"]) == 1
    assert "is of other flags; name another --results-dir" in capsys.readouterr().err
