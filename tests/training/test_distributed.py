"""Several processes under torchrun: the numbers of one, one writer, resume, a killed rank."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from conftest import ROOT, make_split, run_script
from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import save_splits
from ferlab.files import UserError
from ferlab.training import distributed, trainer
from ferlab.training.trainer import common_batch_size

CNN = [
    "--widths", "8", "16", "--blocks", "1", "--head-dropout", "0", "--mixup", "0",
    "--optimizer", "sgd", "--epochs", "3", "--precision", "float32",
]  # fmt: skip


def torchrun(script, *args):
    """Returns the command that runs `script` in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node=2", *map(str, [ROOT / script, *args])]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def odd_data_dir(tmp_path_factory):
    """Splits whose sizes do not divide by two."""
    folder = tmp_path_factory.mktemp("odd")
    splits = {"train": make_split(41, 0), "val": make_split(11, 1), "test": make_split(11, 2)}
    save_splits(splits, folder)
    return folder


def losses(folder, name):
    """Returns `(epochs, 2)`: the losses on train and val."""
    with (folder / f"{name}_history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return torch.tensor([[float(row["train_loss"]), float(row["val_loss"])] for row in rows])


@pytest.fixture(scope="module")
def runs(odd_data_dir, tmp_path_factory):
    """The same training in one process and in two, for softmax regression and the CNN."""
    folder = tmp_path_factory.mktemp("runs")
    for script, flags in (
        ("softmax.py", ["--epochs", "3"]),
        ("advanced_network.py", CNN),
    ):
        args = ["--data-dir", odd_data_dir, "--batch-size", "40", *flags]
        one = run_script(script, *args, "--results-dir", folder / "one")
        two = run(*torchrun(script, *args, "--results-dir", folder / "two"))
        assert one.returncode == 0 and two.returncode == 0, one.stderr + two.stderr
        assert two.stdout.count("wrote ") == 1 and two.stdout.count("The run") == 1
    return folder


@pytest.mark.parametrize(("name", "tolerance"), [("softmax", 1e-4), ("advanced", 3e-3)])
def test_training_agrees_with_one_process(runs, name, tolerance):
    """Within float error, which the CNN's steps amplify; with norms of half a batch it is 4e-2."""
    assert torch.allclose(losses(runs / "one", name), losses(runs / "two", name), atol=tolerance)
    one, two = (torch.load(runs / n / f"{name}_model.pth")["state_dict"] for n in ("one", "two"))
    assert one.keys() == two.keys()


def test_results_tell_the_number_of_processes(runs):
    metrics = json.loads((runs / "two" / "advanced_metrics.json").read_text())
    assert metrics["run"]["processes"] == 2
    assert "in each of 2 processes" in (runs / "two" / "advanced_results.txt").read_text()


def test_evaluation_counts_every_image_once(runs, odd_data_dir, tmp_path):
    weights = runs / "one" / "advanced_model.pth"
    args = ["--evaluate", "--weights", weights, "--data-dir", odd_data_dir]
    result = run(*torchrun("advanced_network.py", *args, "--results-dir", tmp_path))
    assert result.returncode == 0, result.stderr
    one, two = (
        json.loads((folder / "advanced_metrics.json").read_text())
        for folder in (runs / "one", tmp_path)
    )
    for split in ("train", "val", "test"):
        assert one[split]["n"] == two[split]["n"]
        assert one[split]["confusion_matrix"] == two[split]["confusion_matrix"]


def test_killed_rank_ends_the_job_and_one_process_goes_on(data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, "--batch-size", "40", "--quiet"]
    args += [*CNN, "--epochs", "60"]
    checkpoint = tmp_path / "advanced_checkpoint.pth"
    job = subprocess.Popen(
        torchrun("advanced_network.py", *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 200
    while not checkpoint.exists():
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.05)
    ranks = run("pgrep", "-P", str(job.pid)).stdout.split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    job.communicate(timeout=60)
    assert job.returncode == 1
    assert not (tmp_path / "advanced_model.pth").exists()
    result = run_script("advanced_network.py", *args, "--resume")
    assert result.returncode == 0, result.stderr
    assert len(losses(tmp_path, "advanced")) == 60


def test_checkpoint_of_one_process_is_resumed_by_two(runs, odd_data_dir):
    """The run is over, so that what is left is the report: the same weights."""
    args = ["--data-dir", odd_data_dir, "--results-dir", runs / "one", "--batch-size", "40", *CNN]
    before = torch.load(runs / "one" / "advanced_model.pth")["state_dict"]
    result = run(*torchrun("advanced_network.py", *args, "--resume"))
    assert result.returncode == 0 and "resumed from" in result.stdout, result.stderr
    after = torch.load(runs / "one" / "advanced_model.pth")["state_dict"]
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_batch_must_divide_among_the_processes(monkeypatch):
    monkeypatch.setattr(trainer, "world_size", lambda: 2)
    with pytest.raises(UserError, match="--batch-size 41 does not divide among 2 processes"):
        common_batch_size(41, 287)
    with pytest.raises(UserError, match="raise --batch-size"):
        common_batch_size(2, 287)
    assert (common_batch_size(40, 287), common_batch_size(512, 287)) == (40, 286)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_parts_cover_all_rows_once(monkeypatch, processes):
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    rows = []
    for number in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        rows += range(100)[distributed.part_of(100)]
    assert rows == list(range(100))


def test_parts_are_augmented_as_the_whole():
    images = make_split(2, 0).images
    geometry = {"rotation": 10, "translation": 0.1, "warp": 0.1}
    augment = Augmentation(**geometry, contrast=0.2, light=0.5, noise=0.1, erasing=0.5)
    whole = augment(images, torch.Generator().manual_seed(1))
    for part in (slice(0, 5), slice(5, 14)):
        generator = torch.Generator().manual_seed(1)
        seen = augment(images[part], generator, batch=14, start=part.start)
        assert torch.allclose(seen, whole[part], atol=1e-6)
