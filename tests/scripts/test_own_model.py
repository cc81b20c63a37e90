"""The fifth model of docs/own_model.md: every script takes it, although no file lists it."""

import csv
import importlib
import re

import cv2
import pytest

import basic_nn
import compare_results
import explain_models
import live_inference
import tune_hyperparameters
from conftest import drawn_frame, refused
from ferlab import commands, stage
from model_runs import metrics_of, run


@pytest.fixture
def lenet(own_model, monkeypatch):
    """The page's script, imported."""
    monkeypatch.syspath_prepend(own_model)
    monkeypatch.setattr(commands, "ROOT", own_model)
    return importlib.import_module("lenet")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def trained(lenet, results, votes_dir):
    """The results folder, with lenet's weights."""
    flags = ["--data-dir", str(votes_dir), "--results-dir", str(results), "--targets", "votes"]
    if not (results / "lenet_model.pth").exists():
        assert lenet.main([*flags, "--epochs", "2", "--quiet"]) == 0
    return results


def test_results_and_comparison(lenet, trained, votes_dir):
    flags = ["--data-dir", str(votes_dir), "--results-dir", str(trained), "--targets", "votes"]
    assert lenet.main([*flags, "--evaluate", "--quiet"]) == 0
    assert metrics_of(trained, "lenet")["test"]["n"] > 0
    assert run("softmax", "--data-dir", votes_dir, "--results-dir", trained) == 0
    assert compare_results.main(["--results-dir", str(trained)]) == 0
    lines = (trained / "comparison.txt").read_text().splitlines()
    assert any(line.startswith("LeNet") for line in lines)


def test_explain_models_finds_it(trained, votes_dir, monkeypatch, tmp_path):
    monkeypatch.setattr(stage, "REFERENCE_DIR", tmp_path)
    (tmp_path / "lenet_model.pth").write_bytes((trained / "lenet_model.pth").read_bytes())
    assert list(explain_models.load_models(tmp_path, "votes", votes_dir)) == ["lenet"]


def test_the_live_program_takes_it(trained, tmp_path, capsys):
    frame, _ = drawn_frame([(300, 240, 100)])
    cv2.imwrite(str(tmp_path / "face.png"), frame)
    args = ["--source", tmp_path / "face.png", "--weights", trained / "lenet_model.pth"]
    args += ["--no-window", "--log", tmp_path / "faces.csv"]
    assert live_inference.main([*map(str, args)]) == 0
    assert len(list(csv.DictReader((tmp_path / "faces.csv").open()))) == 1
    line = refused(capsys, live_inference, *args, "--explain", "--quiet")
    assert "--explain needs the .pth file of advanced_network.py" in line


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_it_is_tuned(lenet, votes_dir, tmp_path, capsys):
    flags = ["--data-dir", votes_dir, "--results-dir", tmp_path, "--trials", 1, "--epochs", 1]
    pytest.importorskip("optuna", reason="optuna is not installed")
    assert tune_hyperparameters.main(["lenet.py", *map(str, flags)]) == 0
    assert re.search(r"^python lenet.py .*--epochs 1 ", capsys.readouterr().out, re.MULTILINE)


def test_a_copy_that_keeps_its_name_is_refused(own_model, data_dir, tmp_path, monkeypatch, capsys):
    """It would write over the results of the script that it was copied from."""
    monkeypatch.setattr(stage, "ROOT", own_model)
    monkeypatch.setattr("sys.argv", [str(own_model / "lenet.py")])
    line = refused(capsys, basic_nn, "--data-dir", data_dir, "--results-dir", tmp_path)
    assert 'lenet.py: setup has name="basic_nn"' in line and 'set it to "lenet"' in line
    assert not list(tmp_path.iterdir())
