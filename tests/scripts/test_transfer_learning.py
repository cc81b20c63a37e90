"""Transfer learning: ImageNet weights taken from a file of the real shape, two phases, faults."""

import csv
import json

import pytest
import torch
from torchvision.models import resnet18

import transfer_learning
from conftest import refused, run_script
from ferlab.training.recipe import Recipe, schedule
from transfer_learning import IMAGENET_STD, TransferNetwork

SHORT = ["--epochs", "2", "--frozen-epochs", "1", "--batch-size", "40", "--size", "48", "--quiet"]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A state dict such as torchvision's file holds, with random weights."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("imagenet") / "resnet18.pth"
    torch.save(resnet18().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def results(data_dir, imagenet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    args = ["--data-dir", data_dir, "--results-dir", folder, "--weights", imagenet]
    result = run_script("transfer_learning.py", *args, *SHORT)
    assert result.returncode == 0, result.stderr
    return folder


def test_grey_network_sees_what_the_colour_network_sees():
    colour = resnet18().eval()
    network = TransferNetwork(7, size=64)
    network.take_imagenet(colour.state_dict())
    network.eval()
    images = torch.rand(3, 1, 64, 64) * 2 - 1
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    as_colour = images.expand(-1, 3, -1, -1) * 0.5 / std  # [0, 1] over std, the means left out
    colour.fc = torch.nn.Identity()
    assert torch.allclose(network.backbone(images), colour(as_colour), rtol=1e-3, atol=1e-4)


def test_results_contract(results):
    for file in ("results.txt", "metrics.json", "model.pth", "history.csv", "curves.png"):
        assert (results / f"transfer_{file}").stat().st_size > 0
    metrics = json.loads((results / "transfer_metrics.json").read_text())
    assert metrics["model"] == "transfer" and "ImageNet" in metrics["title"]
    assert metrics["parameters"] == 11_173_831
    assert len(list(csv.DictReader((results / "transfer_history.csv").open()))) == 2


def test_evaluate_needs_no_imagenet_weights(results, data_dir, tmp_path):
    weights = results / "transfer_model.pth"
    args = ["--evaluate", "--weights", weights, "--data-dir", data_dir, "--results-dir", tmp_path]
    assert transfer_learning.main([*map(str, args), "--quiet"]) == 0
    first, again = (
        json.loads((folder / "transfer_metrics.json").read_text()) for folder in (results, tmp_path)
    )
    assert again["test"] == first["test"]


def test_only_the_last_layer_learns_in_the_frozen_epochs(data_dir, imagenet, tmp_path, monkeypatch):
    from ferlab.training.trainer import Trainer

    states = []
    whole = Trainer.epoch

    def watched(self, val, quiet):
        row = whole(self, val, quiet)
        states.append({k: v.clone() for k, v in self.model.state_dict().items()})
        return row

    monkeypatch.setattr(Trainer, "epoch", watched)
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--weights", imagenet, *SHORT]
    assert transfer_learning.main([*map(str, args)]) == 0
    given = torch.load(imagenet)
    for key in ("layer1.0.conv1.weight", "layer4.1.bn2.running_mean", "bn1.weight"):
        assert torch.equal(states[0][f"backbone.{key}"], given[key]), key
        assert not torch.equal(states[1][f"backbone.{key}"], given[key]), key
    assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"])


def test_each_phase_has_its_own_schedule():
    recipe = Recipe(
        epochs=5, batch_size=8, lr=0.1, weight_decay=0, optimizer="adamw", warmup=0.1,
        frozen_epochs=2, frozen_lr=0.5,
    )  # fmt: skip
    rates = [recipe.lr * schedule(recipe, 50)(step) for step in range(251)]
    assert max(rates[:100]) == pytest.approx(0.5, rel=0.01) and rates[99] < 0.01
    assert max(rates[100:]) == pytest.approx(0.1, rel=0.01) and rates[250] == pytest.approx(0)


def test_resume_needs_no_imagenet_weights(results, data_dir, tmp_path):
    (tmp_path / "transfer_checkpoint.pth").write_bytes(
        (results / "transfer_checkpoint.pth").read_bytes()
    )
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--resume", *SHORT]
    assert transfer_learning.main([*map(str, args)]) == 0
    one, two = (
        torch.load(folder / "transfer_model.pth")["state_dict"] for folder in (results, tmp_path)
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_failed_download_names_both_ways(capsys, data_dir, tmp_path, monkeypatch):
    import torch.hub

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    line = refused(capsys, transfer_learning, "--data-dir", data_dir, "--results-dir", tmp_path)
    assert "--weights FILE" in line and "--from-scratch" in line and "resnet18-f37072fd" in line


def test_foreign_weights(capsys, results, data_dir, imagenet, tmp_path):
    base = ["--data-dir", data_dir, "--results-dir", tmp_path, "--weights"]
    line = refused(capsys, transfer_learning, *base, results / "transfer_model.pth")
    assert "not a state dict of torchvision's resnet18" in line
    line = refused(capsys, transfer_learning, *base, imagenet, "--backbone", "resnet50")
    assert "not a state dict of torchvision's resnet50" in line and "--backbone" in line
    line = refused(capsys, transfer_learning, *base, tmp_path / "none.pth")
    assert "none.pth is missing" in line
    line = refused(capsys, transfer_learning, *base, imagenet, "--from-scratch")
    assert "--from-scratch starts from no --weights" in line


def test_frozen_epochs_leave_some(capsys, data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--epochs", "3"]
    line = refused(
        capsys, transfer_learning, *args, "--from-scratch", "--evaluate", "--frozen-epochs", "3"
    )
    assert "is missing" in line, "flags of training do not matter there"
    line = refused(capsys, transfer_learning, *args, "--frozen-epochs", "3", "--resume")
    assert "--frozen-epochs 3 leaves none of the 3 epochs" in line


def test_tuning_starts_from_the_weights_file(data_dir, imagenet, tmp_path):
    pytest.importorskip("optuna")
    args = ["--trials", "1", "--data-dir", data_dir, "--results-dir", tmp_path]
    result = run_script(
        "tune_hyperparameters.py", "transfer_learning.py", *args, "--weights", imagenet, *SHORT
    )
    assert result.returncode == 0, result.stderr
    assert f"--weights {imagenet}" in (tmp_path / "tuning" / "transfer_tuning.txt").read_text()
