"""Every command of the README and of docs/ runs as it stands; its numbers are those of results/."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT, write_pictures

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = re.findall(r"```bash\n(.*?)```", "\n".join([README, *DOCS]), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
MODELS = ("baseline", "softmax", "basic_nn", "advanced")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A copy of the project with a tiny dataset where the download would have put it."""
    folder = tmp_path_factory.mktemp("clone")
    for path in ROOT.iterdir():
        if path.suffix == ".py" or path.name in ("ferlab", "benchmarks"):
            (folder / path.name).symlink_to(path)
    dataset = folder / "data" / "face-expression-recognition-dataset"
    write_pictures(dataset / "images" / "train", per_class=12, seed=0)
    write_pictures(dataset / "images" / "validation", per_class=8, seed=1)
    shutil.make_archive(str(dataset), "zip", dataset)
    (folder / "data" / f"{dataset.name}.zip").rename(folder / f"{dataset.name}.zip")
    return folder


def shortened(words):
    """Returns a command that ends soon: fewer epochs and frames, a smaller network, no window."""
    if "--evaluate" in words:
        return words
    if words[0] == "advanced_network.py":
        return [*words, "--epochs", "2", "--widths", "16", "32"]
    if words[0] in ("softmax.py", "basic_nn.py", "transfer_learning.py"):
        return [*words, "--epochs", "2"]
    if words[0] == "benchmarks/time_to_accuracy.py":
        return [*words, "--epochs", "2", "--widths", "16", "32", "--target", "0.99"]
    if words[0] == "benchmarks/ablation.py":
        few = ["--train-faces", "56"] if "--train-faces" in words else []
        return [*words, *few, "--epochs", "2", "--only", "seed 1"]
    if words[0] == "benchmarks/scaling.py":
        return [*words, "--faces", "280", "--script", "softmax.py"]
    if words[0] == "benchmarks/memory_mapping.py":
        return [*words, "--faces", "5000"]
    if words[0] == "benchmarks/freed_memory.py":
        return [*words, "--widths", "16", "32", "--faces", "280", "--rounds", "1"]
    if words[0] == "live_inference.py":
        return [*words, "--max-frames", "30", *([] if "--no-window" in words else ["--no-window"])]
    if words[0] == "tune_hyperparameters.py":
        return [*words, "--trials", "3", "--epochs", "2"]
    if words[0] == "benchmarks/live.py":
        return [*words, "--sizes", "160x120", "--age-seconds", "1"]
    if words[0] == "benchmarks/export.py":
        return [*words, "--seconds", "0.2"]
    return words


def is_right(words, result):
    """Whether a command ended as it should; the machine of the tests may have no camera."""
    no_camera = words[0] == "live_inference.py" and "--source" not in words
    if no_camera and result.returncode == 1:
        return result.stderr.startswith("error: camera 0 cannot be opened")
    return result.returncode == 0


def test_python_commands_run_in_order(workplace):
    ran = 0
    for line in COMMANDS:
        words = shlex.split(line)
        if words[0] == "torchrun":
            words = ["python", "-m", "torch.distributed.run", *words[1:], "--epochs", "2"]
        elif words[0] != "python" or words[1] == "-m":
            continue
        if "--resume" in words and not (workplace / "results/advanced_checkpoint.pth").exists():
            pytest.fail("the README resumes before it trains")
        result = subprocess.run(
            [sys.executable, *shortened(words[1:])],
            cwd=workplace,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert is_right(words[1:], result), f"{line}\n{result.stdout}\n{result.stderr}"
        ran += 1
    assert ran >= 15
    assert (workplace / "results" / "comparison.txt").exists()
    assert (workplace / "results" / "sample" / "comparison.png").exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z]+)", README))))
def test_make_targets_exist(target):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    result = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_files_named_in_the_readme_exist():
    named = set(re.findall(r"`([a-z_]+/?[a-z_]*\.(?:py|txt|toml))`", README))
    assert len(named) >= 5
    for name in named - {"comparison.txt"}:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("model", MODELS)
def test_results_table_is_that_of_the_committed_results(model):
    metrics = json.loads((ROOT / "results" / f"{model}_metrics.json").read_text())
    low, high = metrics["test"]["accuracy_interval"]
    cell = f"{metrics['test']['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
    rows = [line for line in README.splitlines() if line.startswith("|") and cell in line]
    assert len(rows) == 1, f"no row with {cell}"
    assert f"{metrics['test']['macro_f1']:.3f}" in rows[0]
    assert f"{metrics['parameters']:,}" in rows[0]
