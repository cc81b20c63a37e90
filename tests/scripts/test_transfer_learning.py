"""Transfer learning: ImageNet weights taken from a file of the real shape, two phases, faults."""

import csv
import json

import pytest
import torch
from torchvision.models import resnet18

import transfer_learning
import tune_hyperparameters
from conftest import refused
from ferlab.training.recipe import Recipe, schedule
from ferlab.training.trainer import Trainer
from transfer_learning import IMAGENET_MEAN, IMAGENET_STD, TransferNetwork

SHORT = ["--epochs", "2", "--frozen-epochs", "1", "--batch-size", "40", "--size", "32", "--quiet"]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A state dict such as torchvision's file holds, with random weights."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("imagenet") / "resnet18.pth"
    network = resnet18()
    network.bn1.running_mean.normal_()
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def results(votes_dir, imagenet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer")
    args = ["--data-dir", votes_dir, "--results-dir", folder, "--weights", imagenet, *SHORT]
    states = []
    whole = Trainer.epoch

    def watched(self, val, quiet):
        row = whole(self, val, quiet)
        states.append({k: v.clone() for k, v in self.model.state_dict().items()})
        return row

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "epoch", watched)
        assert transfer_learning.main([*map(str, args)]) == 0
    torch.save(states, folder / "states.pth")
    return folder


@pytest.fixture(scope="module")
def scratch(votes_dir, tmp_path_factory):
    """A network trained on votes without ImageNet's weights."""
    folder = tmp_path_factory.mktemp("scratch")
    args = ["--data-dir", votes_dir, "--results-dir", folder, "--from-scratch", *SHORT]
    args += ["--epochs", "1", "--targets", "votes"]
    assert transfer_learning.main([*map(str, args)]) == 0
    return folder


def test_frozen_network_computes_on_grey_what_torchvisions_computes_on_colours(imagenet):
    """Where the padding, grey here and the mean colour there, is out of reach."""
    torch.manual_seed(1)
    colour = resnet18()
    colour.load_state_dict(torch.load(imagenet))
    network = TransferNetwork(7, size=64)
    network.take_imagenet(colour.state_dict())
    network.train()
    network.freeze(True)
    assert not any(p.requires_grad for p in network.backbone.parameters())
    images = torch.rand(3, 1, 64, 64) * 2 - 1
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    as_colour = ((images + 1) / 2 - mean) / std
    colour.eval()
    ours = network.backbone.bn1(network.backbone.conv1(images))
    theirs = colour.bn1(colour.conv1(as_colour))
    inside = (..., slice(2, -2), slice(2, -2))  # a 7x7 filter with stride 2
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=1e-4, atol=1e-4)


def test_results_contract(results):
    for file in ("results.txt", "metrics.json", "model.pth", "history.csv", "curves.png"):
        assert (results / f"transfer_{file}").stat().st_size > 0
    metrics = json.loads((results / "transfer_metrics.json").read_text())
    assert metrics["model"] == "transfer" and metrics["title"] == "resnet18, ImageNet"
    assert metrics["parameters"] == 11_173_831
    assert len(list(csv.DictReader((results / "transfer_history.csv").open()))) == 2


def test_evaluate_needs_no_imagenet_weights_and_keeps_the_title(
    results, scratch, votes_dir, tmp_path
):
    """Whatever the flags of the evaluation are."""
    for trained, flags in (
        (results, ["--from-scratch"]),
        (scratch, ["--backbone", "resnet50", "--size", "64"]),
    ):
        weights = trained / "transfer_model.pth"
        args = ["--evaluate", "--weights", weights, "--data-dir", votes_dir, "--quiet"]
        args += ["--results-dir", tmp_path, *flags]
        assert transfer_learning.main([*map(str, args)]) == 0
        first, again = (
            json.loads((folder / "transfer_metrics.json").read_text())
            for folder in (trained, tmp_path)
        )
        assert again["test"] == first["test"]
        assert again["title"] == first["title"]
        assert again["run"]["network"] == {"backbone": "resnet18", "size": 32, "classes": 7}
    assert first["title"] == "resnet18, from scratch"
    assert first["run"]["targets"] == "votes" and "raters" in first["test"]


def test_only_the_last_layer_learns_in_the_frozen_epochs(results, imagenet):
    states = torch.load(results / "states.pth")
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


def test_resume_needs_no_imagenet_weights(results, votes_dir, tmp_path):
    (tmp_path / "transfer_checkpoint.pth").write_bytes(
        (results / "transfer_checkpoint.pth").read_bytes()
    )
    args = ["--data-dir", votes_dir, "--results-dir", tmp_path, "--resume", *SHORT]
    assert transfer_learning.main([*map(str, args)]) == 0
    one, two = (
        torch.load(folder / "transfer_model.pth")["state_dict"] for folder in (results, tmp_path)
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_failed_download_names_both_ways(capsys, votes_dir, tmp_path, monkeypatch):
    import torch.hub

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    line = refused(capsys, transfer_learning, "--data-dir", votes_dir, "--results-dir", tmp_path)
    assert "--weights FILE" in line and "--from-scratch" in line and "resnet18-f37072fd" in line


def test_foreign_weights(capsys, results, votes_dir, imagenet, tmp_path):
    base = ["--data-dir", votes_dir, "--results-dir", tmp_path, "--weights"]
    line = refused(capsys, transfer_learning, *base, results / "transfer_model.pth")
    assert "not a state dict of torchvision's resnet18" in line
    line = refused(capsys, transfer_learning, *base, imagenet, "--backbone", "resnet50")
    assert "not a state dict of torchvision's resnet50" in line and "--backbone" in line
    line = refused(capsys, transfer_learning, *base, tmp_path / "none.pth")
    assert "none.pth is missing" in line
    line = refused(capsys, transfer_learning, *base, imagenet, "--from-scratch")
    assert "--from-scratch starts from no --weights" in line
    line = refused(capsys, transfer_learning, *base, imagenet, imagenet)
    assert "--weights: training starts from one file of ImageNet weights" in line


def test_frozen_epochs_leave_some(capsys, votes_dir, tmp_path):
    args = ["--data-dir", votes_dir, "--results-dir", tmp_path, "--epochs", "3"]
    line = refused(capsys, transfer_learning, *args, "--evaluate", "--frozen-epochs", "3")
    assert "is missing" in line, "flags of training do not matter there"
    line = refused(capsys, transfer_learning, *args, "--frozen-epochs", "3", "--resume")
    assert "--frozen-epochs 3 leaves none of 3 epochs" in line


def test_tuning_starts_from_the_weights_file(votes_dir, imagenet, tmp_path):
    pytest.importorskip("optuna")
    args = ["--trials", "1", "--data-dir", votes_dir, "--results-dir", tmp_path]
    args = ["transfer_learning.py", *args, "--weights", imagenet, *SHORT]
    assert tune_hyperparameters.main([*map(str, args)]) == 0
    assert f"--weights {imagenet}" in (tmp_path / "tuning" / "transfer_tuning.txt").read_text()
