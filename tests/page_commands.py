"""The commands of the README and of docs/, and how they are run on a tiny dataset."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from conftest import ROOT, write_pictures

LIMIT = 1500  # seconds for all of a page's commands: on slow cores each takes a dozen


def commands(page):
    """Returns the lines of the code blocks of a page, such as "README.md"."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def workplace(folder):
    """Makes `folder` a copy of the project with a tiny dataset where the download would put it."""
    for path in ROOT.iterdir():
        if path.suffix == ".py" or path.name in ("ferlab", "benchmarks"):
            (folder / path.name).symlink_to(path)
    dataset = folder / "data" / "face-expression-recognition-dataset"
    write_pictures(dataset / "images" / "train", per_class=12, seed=0)
    write_pictures(dataset / "images" / "validation", per_class=8, seed=1)
    shutil.make_archive(str(dataset), "zip", dataset)
    (folder / "data" / f"{dataset.name}.zip").rename(folder / f"{dataset.name}.zip")


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
        return [*words, "--sizes", "160x120", "--latency-seconds", "1"]
    if words[0] == "benchmarks/export.py":
        return [*words, "--seconds", "0.2"]
    return words


def is_right(words, result):
    """Whether a command ended as it should; the machine of the tests may have no camera."""
    no_camera = words[0] == "live_inference.py" and "--source" not in words
    if no_camera and result.returncode == 1:
        return result.stderr.startswith("error: camera 0 cannot be opened")
    return result.returncode == 0


def run_in_order(lines, folder):
    """Runs those of the command lines that are Python's; returns how many that were."""
    ran = 0
    for line in lines:
        words = shlex.split(line)
        if words[0] == "torchrun":
            words = ["python", "-m", "torch.distributed.run", *words[1:], "--epochs", "2"]
        elif words[0] != "python" or words[1] == "-m":
            continue
        if "--resume" in words and not (folder / "results/advanced_checkpoint.pth").exists():
            pytest.fail("a run is resumed before it begins")
        start = time.perf_counter()
        result = subprocess.run(
            [sys.executable, *shortened(words[1:])],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert is_right(words[1:], result), f"{line}\n{result.stdout}\n{result.stderr}"
        print(f"{time.perf_counter() - start:5.1f} s  {line}")  # pytest shows it where it fails
        ran += 1
    return ran
