"""The four model scripts: what they write, evaluation, resumption, and what they refuse."""

import csv
import json
import os
import shlex
import shutil
import signal
import sys

import numpy as np
import pytest
import torch

import advanced_network
import softmax
from conftest import make_split, refused, run_script
from ferlab import stage
from ferlab.data.splits import CLASS_NAMES, Split, load_split, save_splits, split_path
from ferlab.evaluation.runs import read_run
from ferlab.training import fit
from model_runs import EACH_MAIN, SCRIPTS, SMALL, metrics_of, run

FILES = ("results.txt", "metrics.json", "model.pth", "predictions.npz", "confusion_matrix.png")
TRAINING_FILES = ("history.csv", "curves.png", "checkpoint.pth", "errors.png")


@pytest.fixture(scope="module")
def results(data_dir, tmp_path_factory):
    """A results folder with all four models, made by the scripts themselves."""
    folder = tmp_path_factory.mktemp("results")
    args = ["--data-dir", data_dir, "--results-dir", folder]
    # one as a person runs it, where the shell names a backend that is not installed
    result = run_script("softmax.py", *args, *SMALL["softmax"], MPLBACKEND="module://not_installed")
    assert result.returncode == 0, result.stderr
    assert "next: python basic_nn.py" in result.stdout and "epoch 1:" in result.stderr
    for name in ("baseline", "basic_nn", "advanced"):
        assert run(name, *args) == 0
    return folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_results_contract(results, data_dir, name):
    files = FILES if name == "baseline" else FILES + TRAINING_FILES
    for file in files:
        assert (results / f"{name}_{file}").stat().st_size > 0, file
    metrics = json.loads((results / f"{name}_metrics.json").read_text())
    assert metrics["model"] == name and metrics["class_names"] == list(CLASS_NAMES)
    predictions = np.load(results / f"{name}_predictions.npz")
    for split in ("train", "val", "test"):
        numbers = metrics[split]
        matrix = np.array(numbers["confusion_matrix"])
        data = load_split(data_dir, split)
        assert numbers["n"] == matrix.sum() == len(data)
        assert numbers["accuracy"] == pytest.approx(matrix.trace() / matrix.sum())
        low, high = numbers["accuracy_interval"]
        assert 0 <= low < high <= 1 and low <= numbers["accuracy"] <= high
        inside = low < numbers["accuracy"] < high
        assert inside == (0 < numbers["accuracy"] < 1), "Wilson's interval ends at 0 and 1 alone"
        if split != "train":
            preds = predictions[f"{split}_probs"].argmax(1)
            assert (preds == data.labels.numpy()).mean() == pytest.approx(numbers["accuracy"])
            assert np.array_equal(predictions[f"{split}_labels"], data.labels.numpy())
    text = (results / f"{name}_results.txt").read_text()
    assert f"{metrics['test']['accuracy']:.4f}" in text
    assert "Confusion matrix by the labels" in text and "always the most frequent class" in text
    assert "targets            the dataset's labels" in text
    assert "raters" not in text and "raters" not in json.dumps(metrics), "there are no votes"
    assert ("temperature" in text) == ("Calibration by the labels" in text) == (name != "baseline")
    assert "read once, after training" in text
    weights = torch.load(results / f"{name}_model.pth", weights_only=True)
    for key, tensor in weights["state_dict"].items():
        half = tensor.ndim > 1 and tensor.is_floating_point()
        assert tensor.dtype == torch.float16 if half else tensor.dtype != torch.float16, key
    assert weights["normalisation"] == {"mean": 0.5, "std": 0.5} and weights["image_size"] == 48
    assert metrics["run"]["network"] == weights["config"]
    assert f"classes {weights['config']['classes']}" in text


def test_history_has_a_row_an_epoch(results):
    rows = list(csv.DictReader((results / "advanced_history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["val_accuracy"]) <= 1 for row in rows)


def test_baseline_is_the_majority_class(results, data_dir):
    counts = load_split(data_dir, "train").class_counts()
    test = load_split(data_dir, "test")
    metrics = json.loads((results / "baseline_metrics.json").read_text())
    fraction = (test.labels == counts.argmax()).float().mean().item()
    assert metrics["test"]["accuracy"] == pytest.approx(fraction)
    assert metrics["parameters"] == 0


def test_baseline_of_a_class_that_train_lacks(data_dir, tmp_path):
    splits = {name: load_split(data_dir, name) for name in ("train", "test")}
    splits["train"] = splits["train"].take(splits["train"].labels != 1)
    save_splits(splits, tmp_path)
    args = ["--data-dir", tmp_path, "--results-dir", tmp_path]
    assert run("baseline", *args) == 0
    assert np.load(tmp_path / "baseline_predictions.npz")["test_probs"][:, 1].max() < 1e-30
    assert run("baseline", *args, "--evaluate") == 0


@pytest.mark.parametrize("name", SCRIPTS)
def test_evaluate_repeats_the_numbers_without_training(results, data_dir, tmp_path, name):
    shutil.copy(split_path(data_dir, "test"), tmp_path)  # a folder with only a test split
    out = tmp_path / "results"
    weights = results / f"{name}_model.pth"
    args = ["--evaluate", "--weights", weights, "--data-dir", tmp_path, "--results-dir", out]
    assert SCRIPTS[name].main([*map(str, args), "--quiet"]) == 0
    again = json.loads((out / f"{name}_metrics.json").read_text())
    first = json.loads((results / f"{name}_metrics.json").read_text())
    assert again["test"] == first["test"]
    assert again["run"]["network"] == first["run"]["network"]
    assert "train" not in again and "val" not in again
    text = (out / f"{name}_results.txt").read_text()
    assert "read once" not in text and "nothing was trained or chosen" in text
    assert ("fitted to the labels of val in training" in text) == (name != "baseline")
    assert not list(out.glob("*_model.pth"))


def test_results_of_a_training_are_not_overwritten_by_those_of_other_weights(
    capsys, results, data_dir, tmp_path
):
    shutil.copy(results / "softmax_model.pth", tmp_path / "other.pth")
    before = (results / "softmax_results.txt").read_bytes()
    args = ["--evaluate", "--weights", tmp_path / "other.pth", "--data-dir", data_dir]
    line = refused(capsys, softmax, *args, "--results-dir", results)
    assert "softmax_model.pth; choose another --results-dir for those of" in line
    assert (results / "softmax_results.txt").read_bytes() == before
    (tmp_path / "other.pth").unlink()
    assert "other.pth is missing" in refused(capsys, softmax, *args, "--results-dir", results)


def test_evaluate_of_several_weights_averages_their_probabilities(results, data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--quiet"]
    other = tmp_path / "seed_1"
    assert run("softmax", *args, "--results-dir", other, "--seed", "1") == 0
    files = [folder / "softmax_model.pth" for folder in (results, other)]
    out = ["--evaluate", "--results-dir", tmp_path / "both", "--weights", *files]
    assert softmax.main([*map(str, [*args, *out])]) == 0
    probs = [
        np.load(folder / "softmax_predictions.npz")["test_probs"]
        for folder in (results, other, tmp_path / "both")
    ]
    assert np.allclose((probs[0] + probs[1]) / 2, probs[2], atol=1e-6)
    record = json.loads((tmp_path / "both" / "softmax_metrics.json").read_text())
    one = json.loads((other / "softmax_metrics.json").read_text())
    assert record["parameters"] == 2 * one["parameters"]
    assert record["title"].endswith("ensemble of 2")
    temperatures = record["run"]["temperature"]
    assert temperatures == [
        metrics_of(f, "softmax")["run"]["temperature"] for f in (results, other)
    ]
    text = (tmp_path / "both" / "softmax_results.txt").read_text()
    assert f"temperature        {temperatures[0]:.3f}, {temperatures[1]:.3f}, fitted to" in text
    assert "read once" not in text
    words = " ".join(text.split())
    for number, folder in ((1, results), (2, other)):
        command = json.loads((folder / "softmax_metrics.json").read_text())["run"]["command"]
        assert f"member {number} {command} " in words
    for of_one_member in ("seed ", "epochs ", "recipe ", "network "):
        assert f"\n{of_one_member}" not in text
    assert not read_run(tmp_path / "both" / "softmax_metrics.json").recipe


def test_interrupted_run_resumes_to_the_same_bits(data_dir, tmp_path, monkeypatch, capsys):
    args = ["--data-dir", data_dir, "--epochs", 4, "--batch-size", "40", "--widths", "8", "16"]
    args = [*map(str, args), "--quiet", "--results-dir"]
    assert advanced_network.main([*args, str(tmp_path / "whole")]) == 0
    parts, save = tmp_path / "parts", fit.save_tensors

    def save_and_press_ctrl_c(state, path):
        save(state, path)
        if len(state["history"]) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "save_tensors", save_and_press_ctrl_c)
        assert advanced_network.main([*args, str(parts)]) == 130
    error = capsys.readouterr().err
    assert "continue with: python " in error and error.rstrip().endswith(" --resume")
    state = torch.load(parts / "advanced_checkpoint.pth", weights_only=True)
    assert len(state["history"]) == 3 and not (parts / "advanced_model.pth").exists()
    command = ["advanced_network.py", *args, str(parts)]
    monkeypatch.setattr(sys, "argv", [*command, "--resume"])
    for _ in range(2):  # the second time the run is over, and is reported again
        assert advanced_network.main(sys.argv[1:]) == 0
        whole, resumed = (
            torch.load(folder / "advanced_model.pth")["state_dict"]
            for folder in (tmp_path / "whole", parts)
        )
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    record = metrics_of(parts, "advanced")["run"]
    assert record["command"] == shlex.join(["python", *command]), "--resume needs a checkpoint"


def test_weights_are_found_from_another_folder(capsys, results, data_dir, tmp_path, monkeypatch):
    """The user's own where there are some, else the reference's, by the targets."""
    monkeypatch.chdir(tmp_path)
    reference = tmp_path / "shipped"
    monkeypatch.setattr(stage, "REFERENCE_DIR", reference)
    args = ["--evaluate", "--data-dir", str(data_dir), "--quiet"]
    for folder in (reference, reference / "votes"):
        folder.mkdir()
        shutil.copy(results / "softmax_model.pth", folder)
        targets = "votes" if folder.name == "votes" else "labels"
        assert softmax.main([*args, "--targets", targets]) == 0
        assert f"weights: {folder / 'softmax_model.pth'}" in capsys.readouterr().out
    shutil.copy(results / "softmax_model.pth", tmp_path / "results")
    assert softmax.main(args) == 0
    assert "weights: results/softmax_model.pth" in capsys.readouterr().out


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH_MAIN)
def test_missing_split(capsys, tmp_path, name):
    line = refused(
        capsys, SCRIPTS[name], "--data-dir", tmp_path / "none", "--results-dir", tmp_path
    )
    assert "train_data.pt is missing" in line and "python dataset_preparation.py" in line


@pytest.mark.parametrize("name", SCRIPTS)
def test_evaluate_without_weights(capsys, data_dir, tmp_path, monkeypatch, name):
    monkeypatch.setattr(stage, "REFERENCE_DIR", tmp_path / "reference")
    flags = ["--data-dir", data_dir, "--targets", "votes", "--results-dir", tmp_path]
    line = refused(capsys, SCRIPTS[name], "--evaluate", *flags)
    assert f"{name}_model.pth is missing; train it with: " in line
    assert line.endswith(f"python {SCRIPTS[name].__name__}.py {' '.join(map(str, flags))}")


def test_evaluate_with_foreign_weights(capsys, results, data_dir, tmp_path):
    base = ["--evaluate", "--data-dir", data_dir, "--results-dir", tmp_path, "--weights"]
    line = refused(capsys, advanced_network, *base, results / "basic_nn_model.pth")
    assert "holds weights of basic_nn, not of advanced; train it with: python adv" in line
    line = refused(capsys, advanced_network, *base, split_path(data_dir, "test"))
    assert "not a weights file of this project" in line
    content, other = torch.load(results / "softmax_model.pth"), tmp_path / "other.pth"
    torch.save(content | {"state_dict": {"linear.weight": torch.zeros(7, 5)}}, other)
    line = refused(capsys, softmax, *base, other)
    assert "does not fit this version of the network" in line
    torch.save(content | {"image_size": 224}, other)
    assert "other preprocessing" in refused(capsys, softmax, *base, other)


@pytest.mark.parametrize("name", EACH_MAIN)
def test_weights_without_evaluate_train_nothing(capsys, results, data_dir, tmp_path, name):
    weights = results / f"{name}_model.pth"
    args = ["--weights", weights, "--data-dir", data_dir, "--results-dir", tmp_path]
    with pytest.raises(SystemExit, match="2"):
        SCRIPTS[name].main([str(arg) for arg in args])
    assert "--weights go with --evaluate; add it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_evaluate_on_other_classes(capsys, results, tmp_path):
    split = make_split(2, seed=0)
    names = ("anger", *CLASS_NAMES[1:])
    save_splits({"test": Split(split.images, split.labels, names)}, tmp_path)
    line = refused(
        capsys, softmax, "--evaluate", "--weights", results / "softmax_model.pth",
        "--data-dir", tmp_path, "--results-dir", tmp_path / "out",
    )  # fmt: skip
    assert "has classes anger, disgust" in line
    assert not list((tmp_path / "out").iterdir())


def test_evaluate_on_nothing(capsys, results, tmp_path):
    line = refused(
        capsys, softmax, "--evaluate", "--weights", results / "softmax_model.pth",
        "--data-dir", tmp_path, "--results-dir", tmp_path,
    )  # fmt: skip
    assert "has no split; make it with: python dataset_preparation.py" in line


@pytest.mark.parametrize("name", EACH_MAIN)
def test_classes_that_differ_between_splits(capsys, data_dir, tmp_path, name):
    for split in ("train", "val"):
        shutil.copy(split_path(data_dir, split), tmp_path)
    test = make_split(2, seed=0)
    save_splits({"test": Split(test.images, test.labels, tuple("abcdefg"))}, tmp_path)
    out = tmp_path / "results"
    line = refused(capsys, SCRIPTS[name], "--data-dir", tmp_path, "--results-dir", out)
    assert "test_data.pt has classes a, b" in line
    assert not list(out.iterdir()), "nothing is written before the fault is found"


def test_broken_test_split_shows_before_training(capsys, data_dir, tmp_path):
    for split in ("train", "val"):
        shutil.copy(split_path(data_dir, split), tmp_path)
    split_path(tmp_path, "test").write_bytes(b"broken")
    line = refused(capsys, softmax, "--data-dir", tmp_path, "--results-dir", tmp_path / "results")
    assert "test_data.pt is damaged" in line


def test_results_folder_that_cannot_be_written(capsys, data_dir, tmp_path):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "results"
    line = refused(capsys, softmax, "--data-dir", data_dir, "--results-dir", target)
    assert "cannot write to folder" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("name", EACH_MAIN)
def test_cuda_without_one(capsys, data_dir, tmp_path, name):
    line = refused(
        capsys, SCRIPTS[name], "--device", "cuda", "--data-dir", data_dir, "--results-dir", tmp_path
    )
    assert "--device cuda: this machine has none" in line


def test_resume_with_nothing_to_resume(capsys, data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--resume"]
    line = refused(capsys, advanced_network, *args)
    assert "advanced_checkpoint.pth is missing" in line and "without --resume" in line


def test_resume_of_something_else(capsys, results, data_dir, tmp_path):
    shutil.copy(results / "softmax_model.pth", tmp_path / "softmax_checkpoint.pth")
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--resume"]
    assert "is not a checkpoint" in refused(capsys, softmax, *args)
