"""Flags of the model scripts: presets, help, bad usage, and the networks that they build."""

import os
import signal
import subprocess
import sys

import pytest
import torch

import advanced_network
import basic_nn
import softmax
from conftest import ROOT, assert_one_line_error, refused
from ferlab import stage
from ferlab.cli import wrapped
from model_runs import SCRIPTS


def test_preset_chooses_the_defaults_and_flags_go_before_it():
    quick = advanced_network.parser().parse_args(["--preset", "quick"])
    assert vars(quick).items() >= advanced_network.PRESETS["quick"].items()
    usual = advanced_network.parser().parse_args([])
    assert vars(usual).items() >= advanced_network.PRESETS["default"].items()
    for order in (["--lr", "0.3", "--preset", "quick"], ["--preset", "quick", "--lr", "0.3"]):
        mixed = advanced_network.parser().parse_args(order)
        assert mixed.lr == 0.3 and mixed.epochs == quick.epochs


@pytest.mark.parametrize("preset", advanced_network.PRESETS)
def test_help_of_a_preset_shows_its_values(preset, capsys):
    wanted = advanced_network.PRESETS[preset]
    with pytest.raises(SystemExit, match="0"):
        advanced_network.main(["--preset", preset, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for flag, what in (
        ("epochs", "passes over the train split"),
        ("widths", "channels by stage"),
        ("blocks", "residual blocks in each stage"),
    ):
        assert f"{what} (default: {wanted[flag]})" in text


@pytest.mark.parametrize("preset", advanced_network.PRESETS)
def test_values_of_a_preset_reach_network_and_recipe(preset, data_dir):
    args = advanced_network.parser().parse_args(["--preset", preset, "--data-dir", str(data_dir)])
    setup = advanced_network.setup(args)
    recipe = stage.recipe_of(setup, args, "float32")
    wanted = advanced_network.PRESETS[preset]
    assert recipe.epochs == wanted["epochs"]
    assert setup.config == {key: wanted[key] for key in ("widths", "blocks", "stem_stride")} | {
        "dropout": args.dropout
    }
    network = advanced_network.CNN(classes=7, **setup.config)
    assert network(torch.zeros(2, 1, 48, 48)).shape == (2, 7)


@pytest.mark.parametrize("args", [["--preset"], ["--preset", "fast"]])
def test_a_preset_that_is_none_is_bad_usage(args, capsys):
    with pytest.raises(SystemExit, match="2"):
        advanced_network.main(args)
    assert "argument --preset" in capsys.readouterr().err


def test_brightness_and_contrast_of_an_image_do_not_matter_to_the_cnn():
    torch.manual_seed(0)
    network = advanced_network.CNN(7, widths=(4, 8), blocks=1).eval()
    image = torch.rand(2, 1, 48, 48) * 2 - 1
    torch.testing.assert_close(network(image), network(0.7 * image + 0.2), rtol=0, atol=0.005)
    assert not torch.allclose(network(image), network(-image), rtol=0, atol=0.005)


def test_widths_decide_the_network(capsys, data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--epochs", 1, "--quiet", "--widths"]
    assert basic_nn.main([*map(str, args), "20", "10", "5"]) == 0
    config = torch.load(tmp_path / "basic_nn_model.pth")["config"]
    assert config["widths"] == [20, 10, 5]
    line = refused(capsys, advanced_network, *args, *[8] * 6)
    assert "--widths: images of 48x48 allow 5 stages" in line
    args = [*map(str, args), "8", "16", "--blocks", "2", "--stem-stride", "1"]
    assert advanced_network.main(args) == 0
    saved = torch.load(tmp_path / "advanced_model.pth")
    assert (saved["config"]["blocks"], saved["config"]["stem_stride"]) == (2, 1)
    blocks = {key.split(".")[1] for key in saved["state_dict"] if key.startswith("stages.")}
    assert blocks == set("0123")


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


SCRIPTS_WITHOUT_TORCH = [
    "baseline.py", "softmax.py", "basic_nn.py", "advanced_network.py", "transfer_learning.py",
    "compare_results.py", "dataset_preparation.py",
]  # fmt: skip


def test_help_needs_no_torch():
    """One process for all: each script is read anew, as `python script.py --help` reads it."""
    program = """
import contextlib, io, runpy, sys
for name in ("torch", "numpy", "scipy", "matplotlib", "sklearn"):
    sys.modules[name] = None  # importing it raises ImportError
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        assert stop.code == 0, script
    assert "(default: " in text.getvalue(), script
    print(text.getvalue())
"""
    command = [sys.executable, "-c", program, *SCRIPTS_WITHOUT_TORCH]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for module in SCRIPTS.values():
        assert module.__doc__.splitlines()[0] in result.stdout
    assert "(default: processed_data)" in result.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_ctrl_c_during_the_imports_is_one_line(tmp_path):
    (tmp_path / "torch.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    program = [sys.executable, str(ROOT / "softmax.py")]
    process = subprocess.Popen(
        program,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == "\nstopped\n"
    assert process.returncode == 130


def test_an_old_python_is_one_line():
    program = """
import runpy, sys
sys.version_info, sys.version = (3, 10, 14, "final", 0), "3.10.14 (main)"
runpy.run_path("softmax.py", run_name="__main__")
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert_one_line_error(result, "Python 3.11 or newer is needed; this is 3.10.14")


def test_wrapped_lines_keep_commands_whole():
    words = ["python", "basic_nn.py", *["--results-dir", "results/a-b-c"] * 8, "/long-path" * 12]
    lines = wrapped(" ".join(words), indent=4)
    assert len(lines) > 2 and " ".join(lines).split() == words
    assert all(line.startswith("    ") for line in lines[1:])
