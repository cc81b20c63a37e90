"""Soft labels: what the teachers say, how a student learns from it, what is refused."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import advanced_network
import soft_labels
from conftest import make_split, refused
from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import Split, load_split, rows_of_part, save_splits
from ferlab.training.distillation import load_soft_labels, save_soft_labels, soft_targets
from ferlab.training.recipe import Recipe
from ferlab.training.trainer import Trainer
from softmax import SoftmaxRegression

SMALL = ["--widths", "8", "16", "--blocks", "1", "--epochs", "2", "--batch-size", "40", "--quiet"]


@pytest.fixture(scope="module")
def taught(data_dir, tmp_path_factory):
    """A folder with a teacher's weights and its soft labels."""
    folder = tmp_path_factory.mktemp("taught")
    args = ["--data-dir", str(data_dir), "--results-dir", str(folder)]
    assert advanced_network.main([*args, *SMALL]) == 0
    assert soft_labels.main([*args, "--views", "2", "--quiet"]) == 0
    return folder


def test_file_holds_probabilities_of_every_training_face(taught):
    content = torch.load(taught / "advanced_soft_labels.pt", weights_only=True)
    assert content["probs"].dtype == torch.float16 and content["probs"].shape == (280, 7)
    assert torch.allclose(content["probs"].float().sum(1), torch.ones(280), atol=5e-3)


def test_several_teachers_are_averaged(taught, data_dir, tmp_path):
    weights = taught / "advanced_model.pth"
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--weights", weights, weights]
    assert soft_labels.main([*map(str, args), "--views", "2", "--quiet"]) == 0
    once, twice = (
        torch.load(folder / "advanced_soft_labels.pt")["probs"] for folder in (taught, tmp_path)
    )
    assert torch.allclose(once, twice, atol=1e-3)


def test_faces_are_seen_as_in_the_teachers_training(taught, data_dir, tmp_path, monkeypatch):
    weights, seen = taught / "advanced_model.pth", []

    def remember(teachers, train, augmentation, *rest):
        seen.append(asdict(augmentation))
        return torch.full((len(train), 7), 1 / 7)

    monkeypatch.setattr(soft_labels, "mean_probs", remember)
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--weights", weights]
    assert soft_labels.main([*map(str, args), "--quiet"]) == 0
    assert seen == [torch.load(weights)["run"]["recipe"]["augmentation"]] and seen[0]["warp"] > 0


def test_student_learns_and_the_record_tells(taught, data_dir, tmp_path):
    file = str(taught / "advanced_soft_labels.pt")
    args = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path), "--soft-labels", file]
    assert advanced_network.main([*args, *SMALL, "--soft-share", "0.6"]) == 0
    recipe = json.loads((tmp_path / "advanced_metrics.json").read_text())["run"]["recipe"]
    assert recipe["soft_labels"] == file and recipe["soft_share"] == 0.6
    assert "soft_share 0.6" in (tmp_path / "advanced_results.txt").read_text()


@pytest.mark.parametrize("flag", ["auto", "none"])
@pytest.mark.parametrize("mine", [True, False])
def test_soft_labels_that_lie_ready(taught, data_dir, tmp_path, monkeypatch, capsys, flag, mine):
    """By default those in results/ teach, if they are of the same faces and labels."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(taught, tmp_path / "results")
    if not mine:
        save_splits({"train": make_split(6, 0), "val": make_split(6, 1)}, tmp_path)
    folders = ["--data-dir", str(data_dir if mine else tmp_path), "--results-dir", "student"]
    loud = [word for word in SMALL if word != "--quiet"]
    assert advanced_network.main([*folders, *loud, "--soft-labels", flag]) == 0
    recipe = json.loads(Path("student/advanced_metrics.json").read_text())["run"]["recipe"]
    used = flag == "auto" and mine
    file = "results/advanced_soft_labels.pt"
    assert recipe["soft_labels"] == (file if used else None)
    assert recipe["soft_share"] == (0.7 if used else 0.0)
    assert f"soft labels: {file if used else 'none'}" in capsys.readouterr().out


@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_student_follows_its_teacher_where_labels_are_wrong(tmp_path, mixup):
    """The labels are shuffled, the teacher is right: what is learned is the teacher's."""
    true, val = make_split(20, seed=0), make_split(10, seed=1)
    shuffled = true.labels[torch.randperm(140, generator=torch.Generator().manual_seed(0))]
    train = Split(true.images, shuffled, true.class_names)
    path = tmp_path / "soft.pt"
    save_soft_labels(path, torch.nn.functional.one_hot(true.labels, 7).float(), train)
    recipe = Recipe(epochs=5, batch_size=35, lr=3e-3, weight_decay=0, optimizer="adamw")
    recipe = replace(recipe, mixup=mixup)
    found = {}
    for share in (0.0, 0.9):
        torch.manual_seed(0)
        learned = replace(recipe, soft_labels=str(path), soft_share=share)
        trainer = Trainer(SoftmaxRegression(7), train, learned)
        found[share] = [trainer.epoch(val, quiet=True)["val_accuracy"] for _ in range(5)][-1]
    assert found[0.9] > 0.7 > 0.4 > found[0.0]


def test_targets_mix_labels_and_teachers():
    train = make_split(1, seed=0)
    probs = torch.rand(7, 7)
    labels = torch.nn.functional.one_hot(train.labels, 7).float()
    assert torch.equal(soft_targets(train, probs, 0.0), labels)
    half = soft_targets(train, probs, 0.5)
    assert torch.allclose(half, (labels + probs / probs.sum(1, keepdim=True)) / 2)


# -- parts that a teacher left out -----------------------------------------------------------------


@pytest.fixture(scope="module")
def halves(data_dir, tmp_path_factory):
    """The weights of two teachers, each of which left out one half of the faces."""
    folders = [tmp_path_factory.mktemp("half") for _ in range(2)]
    for number, folder in enumerate(folders, 1):
        args = ["--data-dir", str(data_dir), "--results-dir", str(folder)]
        assert advanced_network.main([*args, *SMALL, "--leave-out", f"{number}/2"]) == 0
    return [folder / "advanced_model.pth" for folder in folders]


@pytest.mark.parametrize(("parts", "count"), [(2, 7), (5, 280), (3, 2)])
def test_every_face_lies_in_one_part(parts, count):
    rows = torch.stack([rows_of_part(f"{k}/{parts}", count) for k in range(1, parts + 1)])
    assert torch.equal(rows.sum(0), torch.ones(count, dtype=torch.int64))
    assert rows.sum(1).max() - rows.sum(1).min() <= 1
    assert torch.equal(rows[0], rows_of_part(f"1/{parts}", count))


@pytest.mark.parametrize("soft", [True, False])
def test_what_is_left_out_leaves_no_trace_in_the_weights(tmp_path, soft):
    train, val = make_split(20, seed=0), make_split(10, seed=1)
    left_out = rows_of_part("2/4", 140)
    others = make_split(20, seed=2)
    changed = Split(
        torch.where(left_out[:, None, None, None], others.images, train.images),
        torch.where(left_out, (train.labels + 1) % 7, train.labels),
        train.class_names,
    )
    probs = torch.rand(140, 7, generator=torch.Generator().manual_seed(0))
    said_otherwise = torch.where(left_out[:, None], 1 / 7, probs)
    recipe = Recipe(1, 35, 3e-3, 0, "adamw", left_out="2/4")
    if soft:
        recipe = replace(recipe, soft_labels=str(tmp_path / "soft.pt"), soft_share=0.5)
    learned = []
    for split, said in ((train, probs), (changed, said_otherwise)):
        save_soft_labels(tmp_path / "soft.pt", said, split)
        torch.manual_seed(0)
        trainer = Trainer(SoftmaxRegression(7), split, recipe)
        assert len(trainer.train) == len(trainer.targets) == 105
        trainer.epoch(val, quiet=True)
        learned.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*learned)


def test_each_teacher_is_asked_of_its_own_faces():
    """Three teachers who always say the same: two of one half each, one of all."""

    class Says(torch.nn.Module):
        def __init__(self, label):
            super().__init__()
            self.logits = torch.nn.functional.one_hot(torch.tensor(label), 7) * 100.0

        def forward(self, faces):
            return self.logits.expand(len(faces), 7)

    train, half = make_split(20, seed=0), rows_of_part("1/2", 140)
    teachers = [(Says(0), half), (Says(1), ~half), (Says(2), torch.ones(140, dtype=torch.bool))]
    plain = Augmentation()
    probs = soft_labels.mean_probs(teachers, train, plain, 2, 0, torch.float32, quiet=True)
    expected = torch.tensor([[0.5, 0, 0.5], [0, 0.5, 0.5]])[(~half).long()]
    assert torch.allclose(probs[:, :3], expected) and probs[:, 3:].max() < 1e-6


def test_halves_together_label_all_faces(halves, data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--views", "1", "--quiet"]
    assert soft_labels.main([*map(str, args), "--weights", *map(str, halves)]) == 0
    train = load_split(data_dir, "train")
    probs = load_soft_labels(tmp_path / "advanced_soft_labels.pt", train)
    assert torch.allclose(probs.sum(1), torch.ones(280), atol=5e-3)


def test_one_half_alone_leaves_faces_without_a_teacher(capsys, halves, data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--weights", halves[0]]
    line = refused(capsys, soft_labels, *args)
    assert line.startswith("error: 140 training faces") and "--leave-out K/N" in line


def test_part_of_other_faces(capsys, halves, tmp_path):
    save_splits({"train": make_split(6, 0)}, tmp_path)
    args = ["--data-dir", tmp_path, "--results-dir", tmp_path, "--weights", *halves]
    assert f"{halves[0]} left out a part of other faces" in refused(capsys, soft_labels, *args)


@pytest.mark.parametrize("part", ["0/2", "3/2", "1/1", "2", "a/b", "1/2/3", "1/0", "1/1001"])
def test_no_such_part(capsys, part):
    with pytest.raises(SystemExit):
        advanced_network.parser().parse_args(["--leave-out", part])
    assert f"invalid part value: '{part}'" in capsys.readouterr().err


# -- what is refused ---------------------------------------------------------------------------


def test_soft_labels_of_other_faces(capsys, taught, tmp_path):
    save_splits({"train": make_split(6, 0), "val": make_split(6, 1)}, tmp_path)
    path = taught / "advanced_soft_labels.pt"
    args = ["--data-dir", tmp_path, "--results-dir", tmp_path, "--soft-labels", path, *SMALL]
    line = refused(capsys, advanced_network, *args)
    assert f"{path} holds no soft labels of this train split" in line
    assert "python soft_labels.py" in line


def test_soft_labels_that_are_missing_or_damaged(capsys, data_dir, tmp_path):
    path = tmp_path / "soft.pt"
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--soft-labels", path, *SMALL]
    assert "is missing; make it with: python soft_labels.py" in refused(
        capsys, advanced_network, *args
    )
    path.write_bytes(b"no such file")
    assert "damaged" in refused(capsys, advanced_network, *args)


def test_damaged_soft_labels_that_lie_ready(capsys, data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    Path("results/advanced_soft_labels.pt").write_bytes(b"no such file")
    line = refused(capsys, advanced_network, "--data-dir", data_dir, *SMALL)
    assert "results/advanced_soft_labels.pt is damaged" in line


def test_no_teacher(capsys, data_dir, tmp_path):
    line = refused(capsys, soft_labels, "--data-dir", data_dir, "--results-dir", tmp_path)
    assert "advanced_model.pth is missing" in line and "advanced_network.py" in line


def test_teacher_of_other_classes(capsys, taught, tmp_path):
    split = make_split(6, 0)
    renamed = Split(split.images, split.labels, ("a", "b", "c", "d", "e", "f", "g"))
    save_splits({"train": renamed}, tmp_path)
    weights = taught / "advanced_model.pth"
    args = ["--data-dir", tmp_path, "--results-dir", tmp_path, "--weights", weights]
    assert "tells other classes apart" in refused(capsys, soft_labels, *args)


def test_loaded_probabilities_are_float32(taught, data_dir):
    probs = load_soft_labels(taught / "advanced_soft_labels.pt", load_split(data_dir, "train"))
    assert probs.dtype == torch.float32 and probs.shape == (280, 7)
