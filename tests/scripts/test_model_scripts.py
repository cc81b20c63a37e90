"""The four model scripts, run as a person runs them, and what they refuse."""

import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import advanced_network
import baseline
import basic_nn
import softmax
from conftest import ROOT, assert_one_line_error, make_split, refused, run_script
from ferlab.data.splits import CLASS_NAMES, Split, load_split, save_splits, split_path
from ferlab.evaluation.reports import wrapped

SCRIPTS = {
    "baseline": baseline,
    "softmax": softmax,
    "basic_nn": basic_nn,
    "advanced": advanced_network,
}
FILES = ("results.txt", "metrics.json", "model.pth", "predictions.npz", "confusion_matrix.png")
TRAINING_FILES = ("history.csv", "curves.png", "checkpoint.pth", "errors.png")


def flags(name):
    return [] if name == "baseline" else ["--epochs", "2", "--batch-size", "40"]


@pytest.fixture(scope="module")
def results(data_dir, tmp_path_factory):
    """A results folder with all four models, made by the scripts themselves."""
    folder = tmp_path_factory.mktemp("results")
    for module in SCRIPTS.values():
        name = module.__name__
        args = ["--data-dir", data_dir, "--results-dir", folder]
        result = run_script(f"{name}.py", *args, *flags(name))
        assert result.returncode == 0, result.stderr
        assert "next: python" in result.stdout
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
    assert "Confusion matrix" in text and "always the majority class" in text
    weights = torch.load(results / f"{name}_model.pth", weights_only=True)
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
    share = (test.labels == counts.argmax()).float().mean().item()
    assert metrics["test"]["accuracy"] == pytest.approx(share)
    assert metrics["parameters"] == 0


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
    assert not list(out.glob("*_model.pth"))


def test_evaluate_of_several_weights_averages_their_probabilities(results, data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--quiet"]
    other = tmp_path / "seed_1"
    train = ["--results-dir", other, "--seed", "1", "--epochs", "1", "--batch-size", "40"]
    assert softmax.main([*map(str, [*args, *train])]) == 0
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


def test_preset_chooses_the_defaults_and_flags_go_before_it():
    quick = advanced_network.parser().parse_args(["--preset", "quick"])
    assert vars(quick).items() >= advanced_network.PRESETS["quick"].items()
    usual = advanced_network.parser().parse_args([])
    assert vars(usual).items() >= advanced_network.PRESETS["default"].items()
    for order in (["--lr", "0.3", "--preset", "quick"], ["--preset", "quick", "--lr", "0.3"]):
        mixed = advanced_network.parser().parse_args(order)
        assert mixed.lr == 0.3 and mixed.epochs == quick.epochs


@pytest.mark.parametrize("preset", advanced_network.PRESETS)
def test_what_a_preset_says_reaches_the_recipe(preset, data_dir):
    wanted = advanced_network.PRESETS[preset]
    args = ["--preset", preset, "--data-dir", str(data_dir)]
    recipe = advanced_network.setup(advanced_network.parser().parse_args(args)).recipe
    shares = ("mixup", "cutmix", "small_share", "still_share", "self_share")
    for key in ("optimizer", "muon_steps", "decay", "ema_epochs", *shares):
        assert recipe[key] == wanted[key], key


def test_evaluate_elsewhere_takes_the_reference_weights(
    capsys, results, data_dir, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(results, tmp_path / "results")
    args = ["--evaluate", "--data-dir", str(data_dir), "--results-dir", "other", "--quiet"]
    assert softmax.main(args) == 0
    assert "weights: results/softmax_model.pth" in capsys.readouterr().out
    shutil.copy(results / "softmax_model.pth", tmp_path / "other")
    assert softmax.main(args) == 0
    assert "weights: other/softmax_model.pth" in capsys.readouterr().out


def test_resume_of_a_finished_run_writes_the_same_weights(results, data_dir, tmp_path):
    for file in ("softmax_checkpoint.pth", "softmax_model.pth"):
        shutil.copy(results / file, tmp_path)
    before = torch.load(tmp_path / "softmax_model.pth")["state_dict"]
    args = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path), "--resume", "--quiet"]
    assert softmax.main([*args, *flags("softmax")]) == 0
    after = torch.load(tmp_path / "softmax_model.pth")["state_dict"]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_ctrl_c_keeps_the_last_epoch_and_resume_goes_on(data_dir, tmp_path):
    command = [
        sys.executable, ROOT / "advanced_network.py", "--data-dir", data_dir,
        "--results-dir", tmp_path, "--epochs", "200", "--batch-size", "40",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "advanced_checkpoint.pth").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with --resume" in stderr and "Traceback" not in stderr
    state = torch.load(tmp_path / "advanced_checkpoint.pth", weights_only=True)
    assert len(state["history"]) >= 1
    assert not (tmp_path / "advanced_model.pth").exists()


def test_killed_run_resumes_to_the_same_bits(data_dir, tmp_path):
    args = ["--widths", "16", "32", "--data-dir", data_dir, "--epochs", "6", "--batch-size", "40"]
    args.append("--results-dir")
    assert run_script("advanced_network.py", *args, tmp_path / "whole").returncode == 0
    parts = tmp_path / "parts"
    command = [sys.executable, ROOT / "advanced_network.py", *map(str, args), parts]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (parts / "advanced_checkpoint.pth").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    result = run_script("advanced_network.py", *args, parts, "--resume")
    assert result.returncode == 0 and "resumed from" in result.stdout, result.stderr
    whole, resumed = (
        torch.load(folder / "advanced_model.pth")["state_dict"]
        for folder in (tmp_path / "whole", parts)
    )
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    record = json.loads((parts / "advanced_metrics.json").read_text())["run"]
    words = ["python", "advanced_network.py", *map(str, args), str(parts)]
    assert record["command"] == shlex.join(words)  # without --resume, which needs a checkpoint


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_missing_split(capsys, tmp_path, name):
    line = refused(
        capsys, SCRIPTS[name], "--data-dir", tmp_path / "none", "--results-dir", tmp_path
    )
    assert "train_data.pt is missing" in line and "python dataset_preparation.py" in line


@pytest.mark.parametrize("name", SCRIPTS)
def test_evaluate_without_weights(capsys, data_dir, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    line = refused(
        capsys, SCRIPTS[name], "--evaluate", "--data-dir", data_dir, "--results-dir", tmp_path
    )
    script = SCRIPTS[name].__name__
    assert f"{name}_model.pth is missing" in line and f"python {script}.py" in line


def test_evaluate_with_foreign_weights(capsys, results, data_dir, tmp_path):
    base = ["--evaluate", "--data-dir", data_dir, "--results-dir", tmp_path, "--weights"]
    line = refused(capsys, advanced_network, *base, results / "basic_nn_model.pth")
    assert "holds weights of basic_nn, not of advanced" in line
    line = refused(capsys, advanced_network, *base, split_path(data_dir, "test"))
    assert "not a weights file of this project" in line
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"no weights at all")
    line = refused(capsys, advanced_network, *base, garbage)
    assert "damaged or not a file of this project" in line
    content = torch.load(results / "softmax_model.pth")
    content["state_dict"]["linear.weight"] = torch.zeros(7, 5)
    torch.save(content, garbage)
    line = refused(capsys, softmax, *base, garbage)
    assert "does not fit this version of the network" in line
    content = torch.load(results / "softmax_model.pth")
    content["image_size"] = 224
    torch.save(content, garbage)
    assert "other preprocessing" in refused(capsys, softmax, *base, garbage)


@pytest.mark.parametrize("name", SCRIPTS)
def test_weights_without_evaluate_train_nothing(capsys, results, data_dir, tmp_path, name):
    weights = results / f"{name}_model.pth"
    args = ["--weights", weights, "--data-dir", data_dir, "--results-dir", tmp_path]
    with pytest.raises(SystemExit, match="2"):
        SCRIPTS[name].main([str(arg) for arg in args])
    assert "--weights are those of --evaluate; add it" in capsys.readouterr().err
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
    assert "holds no split; make it with: python dataset_preparation.py" in line


@pytest.mark.parametrize("name", ["baseline", "softmax"])
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
@pytest.mark.parametrize("name", SCRIPTS)
def test_cuda_without_one(capsys, data_dir, tmp_path, name):
    line = refused(
        capsys, SCRIPTS[name], "--device", "cuda", "--data-dir", data_dir, "--results-dir", tmp_path
    )
    assert "--device cuda: this machine has none" in line


def test_resume_with_nothing_to_resume(data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--resume"]
    result = run_script("advanced_network.py", *args)
    assert_one_line_error(result, "advanced_checkpoint.pth is missing", "without --resume")


def test_resume_of_something_else(capsys, results, data_dir, tmp_path):
    shutil.copy(results / "softmax_model.pth", tmp_path / "softmax_checkpoint.pth")
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--resume"]
    assert "is not a checkpoint" in refused(capsys, softmax, *args)


def test_widths_decide_the_network(capsys, data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--epochs", 1, "--quiet", "--widths"]
    assert basic_nn.main([*map(str, args), "20", "10", "5"]) == 0
    config = torch.load(tmp_path / "basic_nn_model.pth")["config"]
    assert config["widths"] == [20, 10, 5]
    line = refused(capsys, advanced_network, *args, *[8] * 6)
    assert "--widths: a 48x48 face allows 5 stages" in line
    assert advanced_network.main([*map(str, args), "8", "16", "--stem-width", "4"]) == 0
    saved = torch.load(tmp_path / "advanced_model.pth")
    assert saved["config"]["stem_width"] == 4
    shapes = {tuple(v.shape) for key, v in saved["state_dict"].items() if key.startswith("stem")}
    assert {(4, 2, 3, 3), (8, 4, 3, 3)} <= shapes  # a face and its local contrast


def test_local_contrast_sees_what_stands_out():
    """A ramp's light is gone, a spot is not; the plain face stays as the first channel."""
    look = advanced_network.LocalContrast(9)
    ramp = torch.linspace(-1, 1, 48).expand(1, 1, 48, 48).clone()
    inside = slice(4, 44)  # a square that reaches over the edge has no ramp's mean
    flat = (ramp - look.mean(ramp))[..., inside, inside]
    assert flat.abs().max() < 1e-5
    ramp[..., 20, 20] += 1
    faces, contrast = look(ramp).split(1, dim=1)
    assert torch.equal(faces, ramp)
    assert contrast.flatten().argmax() == 20 * 48 + 20
    assert contrast.mean().abs() < 1e-5 and contrast.std() < 1


def test_local_contrast_needs_a_middle(capsys, data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--local-contrast", "8"]
    assert "--local-contrast 8: the side must be odd, or 0" in refused(
        capsys, advanced_network, *args
    )


def test_pooling_is_one_of_two():
    maps = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 2, 2)
    for pooling, expected in (("max", 6.0), ("avg", 3.0)):
        block = advanced_network.ResidualBlock(1, 4, pooling, dropout=0.0, drop_path=0.0)
        assert block.pool(maps).item() == expected
        assert block(torch.zeros(2, 1, 8, 8)).shape == (2, 4, 4, 4)


def test_faces_skip_blocks_in_training_alone():
    block = advanced_network.ResidualBlock(4, 4, None, dropout=0.0, drop_path=0.5)
    torch.manual_seed(0)
    maps = torch.rand(64, 4, 6, 6)
    skipped = [torch.equal(new, old) for new, old in zip(block(maps), maps, strict=True)]
    assert 16 < sum(skipped) < 48
    block.eval()
    assert not any(torch.equal(new, old) for new, old in zip(block(maps), maps, strict=True))


def test_later_blocks_are_skipped_more():
    network = advanced_network.CNN(7, widths=(4, 8), blocks=2, drop_path=0.3)
    assert [block.drop_path for block in network.stages] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_blocks_begin_by_handing_on_what_comes_in():
    torch.manual_seed(0)
    maps = torch.rand(2, 4, 6, 6)
    for init in ("kaiming", "dirac"):
        wider = advanced_network.CNN(7, widths=(4, 8), blocks=1, init=init).stages[1]
        assert torch.equal(wider.conv1(maps)[:, :4], maps) == (init == "dirac")
        assert not torch.equal(wider.conv1(maps)[:, 4:], maps), "new channels are random"
        new = wider.conv1(maps)
        assert torch.equal(wider.conv2(new), new) == (init == "dirac")


def test_warp_and_light_reach_the_augmentation():
    def augmentation(*flags):
        args = advanced_network.parser().parse_args([*flags, "--soft-labels", "none"])
        return advanced_network.setup(args).augmentation

    assert augmentation("--warp", "0", "--light", "0") == advanced_network.AUGMENTATION
    both = augmentation("--warp", "0.2", "--light", "2")
    assert both.warp == 0.2 and both.light == 1.0 and both.rotation == 10
    assert both.gamma == 0.8 and both.sharpness == 1.0 and both.noise == 0.1


@pytest.mark.parametrize(
    "flag",
    [
        ["--epochs", "0"],
        ["--lr", "nan"],
        ["--lr", "1e38"],
        ["--batch-size", "x"],
        ["--weight-decay", "-1"],
        ["--seed", "-1"],
        ["--seed", "4294967296"],
    ],
)
def test_bad_usage_is_2(flag, capsys):
    with pytest.raises(SystemExit) as stop:
        softmax.main(flag)
    assert stop.value.code == 2
    assert f"argument {flag[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_prints_the_docstring_and_the_defaults(name, capsys):
    with pytest.raises(SystemExit) as stop:
        SCRIPTS[name].main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert SCRIPTS[name].__doc__.splitlines()[0] in text
    assert "(default: processed_data)" in text


def test_wrapped_lines_keep_commands_whole():
    words = ["python", "basic_nn.py", *["--results-dir", "results/a-b-c"] * 8, "/long-path" * 12]
    lines = wrapped(" ".join(words), indent=4)
    assert len(lines) > 2 and " ".join(lines).split() == words
    assert all(line.startswith("    ") for line in lines[1:])
