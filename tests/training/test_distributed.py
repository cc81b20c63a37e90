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

import advanced_network
from conftest import ROOT, make_split
from ferlab.data.augmentation import Augmentation
from ferlab.data.splits import save_splits
from ferlab.files import UserError
from ferlab.training import distributed
from ferlab.training.distributed import common_batch_size

CNN = [
    "--widths", "8", "16", "--blocks", "1", "--dropout", "0", "--optimizer", "sgd",
    "--batch-size", "40", "--precision", "float32", "--quiet",
]  # fmt: skip


def torchrun(script, *args):
    """Returns the command that runs `script` in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node=2", *map(str, [ROOT / script, *args])]


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def history(folder):
    """Returns `(epochs, 2)`: the losses on train and val."""
    with (folder / "advanced_history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return torch.tensor([[float(row["train_loss"]), float(row["val_loss"])] for row in rows])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same training in one process and in two, on splits whose sizes do not divide by two.

    The votes make the weights of the shards unequal.
    """
    folder = tmp_path_factory.mktemp("runs")
    sizes = {"train": (21, 0), "val": (11, 1), "test": (11, 2)}
    splits = {name: make_split(*each, votes=True) for name, each in sizes.items()}
    save_splits(splits, folder / "data")
    args = ["--data-dir", folder / "data", "--targets", "votes", "--class-weights", "balanced"]
    args += [*CNN, "--epochs", "3", "--results-dir"]
    assert advanced_network.main([*map(str, args), str(folder / "one")]) == 0
    two = run(*torchrun("advanced_network.py", *args, folder / "two"))
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("wrote ") == 1, "one process alone writes"
    return folder


def test_training_agrees_with_one_process(runs):
    """Within float error, which the steps amplify; with norms of half a batch it is 4e-2."""
    assert torch.allclose(history(runs / "one"), history(runs / "two"), atol=3e-3)
    one, two = (torch.load(runs / n / "advanced_model.pth")["state_dict"] for n in ("one", "two"))
    assert one.keys() == two.keys()


def test_results_name_the_number_of_processes(runs):
    metrics = json.loads((runs / "two" / "advanced_metrics.json").read_text())
    assert metrics["run"]["processes"] == 2
    assert "in each of 2 processes" in (runs / "two" / "advanced_results.txt").read_text()


def test_evaluation_counts_every_image_once(runs, tmp_path):
    """What two processes report of their network is what one reports of it."""
    weights = runs / "two" / "advanced_model.pth"
    args = ["--evaluate", "--weights", weights, "--data-dir", runs / "data", "--quiet"]
    assert advanced_network.main([*map(str, args), "--results-dir", str(tmp_path)]) == 0
    one, two = (
        json.loads((folder / "advanced_metrics.json").read_text())
        for folder in (tmp_path, runs / "two")
    )
    for split in ("train", "val", "test"):
        assert one[split]["n"] == two[split]["n"]
        assert one[split]["confusion_matrix"] == two[split]["confusion_matrix"]


def test_killed_rank_ends_the_job_and_one_process_goes_on(data_dir, tmp_path):
    args = ["--data-dir", data_dir, "--results-dir", tmp_path, *CNN, "--epochs", "25"]
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
    assert advanced_network.main([*map(str, args), "--resume"]) == 0
    assert len(history(tmp_path)) == 25


def test_batch_must_divide_among_the_processes(monkeypatch):
    with pytest.raises(UserError, match="two images or more in each process.*; raise --batch-size"):
        common_batch_size(1, 287)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(UserError, match="--batch-size 41 does not divide among 2 processes"):
        common_batch_size(41, 287)
    with pytest.raises(UserError, match="raise --batch-size"):
        common_batch_size(2, 287)
    with pytest.raises(UserError, match="train has 3 in all"):
        common_batch_size(40, 3)
    assert (common_batch_size(40, 287), common_batch_size(512, 287)) == (40, 286)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shards_cover_all_rows_once(monkeypatch, processes):
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    rows = []
    for number in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        rows += range(100)[distributed.shard_of(100)]
    assert rows == list(range(100))


def test_shards_are_augmented_as_the_whole_batch():
    images = make_split(2, 0).images
    augment = Augmentation(rotation=10, translation=0.1, scale=0.1, brightness=0.1, contrast=0.2)
    whole = augment(images, torch.Generator().manual_seed(1))
    for part in (slice(0, 5), slice(5, 14)):
        generator = torch.Generator().manual_seed(1)
        seen = augment(images[part], generator, batch=14, start=part.start)
        assert torch.allclose(seen, whole[part], atol=1e-6)
