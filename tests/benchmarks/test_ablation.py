"""The ablation's own parts: which faces it learns and judges, and what it keeps of predictions."""

import json
import sys

import numpy as np
import pytest
import torch

from conftest import ROOT
from ferlab.data.splits import Split, load_split
from ferlab.files import UserError
from ferlab.training.distillation import load_soft_labels, soft_labels_path

sys.path.insert(0, str(ROOT / "benchmarks"))
import ablation


def numbered(first, count):
    """A split whose faces can be told apart by their grey level."""
    levels = torch.arange(first, first + count) / 100
    images = levels.view(-1, 1, 1, 1).expand(-1, 1, 48, 48)
    return Split(images, torch.arange(first, first + count) % 2, ("a", "b"))


def test_few_faces_are_learned_and_all_others_judged():
    train, val = numbered(0, 30), numbered(30, 10)
    taken, judged = ablation.few(train, val, 12)
    seen = [split.images[:, 0, 0, 0].mul(100).round().int().tolist() for split in (taken, judged)]
    assert len(taken) == 12 and len(judged) == 28
    assert sorted(seen[0] + seen[1]) == list(range(40))
    assert seen[1][:10] == list(range(30, 40)), "val comes first"
    for split, levels in zip((taken, judged), seen, strict=True):
        assert split.labels.tolist() == [level % 2 for level in levels]


def test_few_faces_leave_some_out():
    with pytest.raises(UserError, match="--train-faces 30: train has 30"):
        ablation.few(numbered(0, 30), numbered(30, 10), 30)


def test_table_tells_what_was_judged_and_where(tmp_path):
    labels = torch.tensor([0, 0, 0, 1, 1])
    runs = {}
    here, there = ({"device_name": name, "threads": 2} for name in ("here", "there"))
    rights = {ablation.ITSELF: [0, 0, 1, 1, 0], "seed 1": [0, 0, 0, 1, 0], "seed 2": [0] * 5}
    for name, preds in rights.items():
        logits = torch.nn.functional.one_hot(torch.tensor(preds), 2).float()
        judged = ablation.judge(logits, labels)
        runs[name] = {"two_views": judged, "one_view": judged, "loss": 0.5, "seconds": 3.0}
        runs[name]["machine"] = there if name == "seed 2" else here
    rows = ablation.table(runs, len(labels)).splitlines()
    error = np.std([0, 0, 1, 0, 0]) / 5**0.5
    assert rows[1].split()[3:5] == ["0.600", "0.500"]
    assert rows[2].split()[2:6] == ["0.800", "+0.200", "±", f"{error:.3f}"]
    assert rows[2].split()[-2:] == ["0.50", "3"], "recall of class 1, the rarest, and seconds"
    assert rows[3].split()[-1] == "0.00", "another machine's seconds are not comparable"
    ablation.write(tmp_path / "ablation.json", {"runs": runs, "flags": [], "train_faces": 0}, 5)
    text = (tmp_path / "ablation.txt").read_text().splitlines()
    assert text[-2:] == ["5 faces of val, here, 2 threads", "on there, 2 threads: seed 2"]


def test_few_faces_have_teachers_of_their_own(data_dir, tmp_path):
    """They learn the few faces alone, by the recipe itself, once."""
    small = ["--widths", "8", "16", "--epochs", "2", "--batch-size", "40", "--train-faces", "100"]
    folders = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path), "--quiet"]
    assert ablation.main([*folders, *small, "--only", "soft labels"]) == 0
    file = soft_labels_path(tmp_path)
    train, judged = ablation.few(load_split(data_dir, "train"), load_split(data_dir, "val"), 100)
    assert load_soft_labels(file, train).shape == (100, 7)
    runs = json.loads((tmp_path / "ablation.json").read_text())["runs"]
    learned = {name: run["recipe"]["soft_labels"] for name, run in runs.items()}
    assert learned == {ablation.ITSELF: None, "soft labels": str(file)}
    assert len(runs["soft labels"]["two_views"]["right"]) // 2 == -(-len(judged) // 8)
    written = file.stat().st_mtime_ns
    assert ablation.main([*folders, *small, "--only", "soft labels, no smoothing"]) == 0
    assert file.stat().st_mtime_ns == written, "the teachers are not trained again"


def test_runs_into_one_folder_keep_each_others_rows(data_dir, tmp_path, monkeypatch):
    """The second begins and ends while a variant of the first trains."""
    flags = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path), "--quiet"]

    def results(seed, judged):
        if seed == 1:
            assert ablation.main([*flags, "--only", "seed 2"]) == 0
        row = ablation.judge(torch.eye(7)[judged.labels], judged.labels)
        return {"two_views": row, "one_view": row, "loss": seed, "seconds": 1.0}

    monkeypatch.setattr(ablation, "train", lambda variant, changed, splits: variant.seed)
    monkeypatch.setattr(ablation, "results_of", results)
    assert ablation.main([*flags, "--only", "seed 1"]) == 0
    runs = json.loads((tmp_path / "ablation.json").read_text())["runs"]
    assert {name: run["loss"] for name, run in runs.items()} == {
        ablation.ITSELF: 0,
        "seed 1": 1,
        "seed 2": 2,
    }
