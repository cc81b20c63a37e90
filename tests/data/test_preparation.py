"""From a layout to split files: pixels, splits that are drawn, memory, runs that were killed."""

import multiprocessing.synchronize
import os
import shutil
import signal
import sys
import threading
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import striped_face, write_pictures
from ferlab.constants import CLASS_NAMES
from ferlab.data import preparation, reading, shards, workers
from ferlab.data.layouts import find_layout
from ferlab.data.partition import complete, people_of
from ferlab.data.preparation import SCRATCH, prepare
from ferlab.data.preprocessing import preprocess
from ferlab.data.splits import load_split
from ferlab.files import UserError


def prepared(source, target, **flags):
    target.mkdir(exist_ok=True)
    layout = find_layout(source)
    return layout, prepare(layout, target, quiet=True, **flags)


def assert_equal_splits(one, two):
    for split in ("train", "val", "test"):
        names = [folder / f"{split}_data.pt" for folder in (one, two)]
        assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.parametrize(("side", "separator"), [(48, ","), (32, ";")])
def test_rows_of_pixels_are_the_images(tmp_path, side, separator):
    rng = np.random.default_rng(0)
    faces = [striped_face(row % 7, rng, side) for row in range(63)]
    usages = ["Training"] * 21 + ["PublicTest"] * 21 + ["PrivateTest"] * 21
    lines = ["emotion,pixels,Usage"]
    for row, (face, usage) in enumerate(zip(faces, usages, strict=True)):
        lines.append(f"{row % 7},{' '.join(map(str, face.ravel()))},{usage}")
    lines[1] = f"0,{' '.join(['7'] * 2304)},Training"
    lines[2] = "1,1 2 3,Training"
    lines[3] = f"2,{' '.join(['300'] * 4)},Training"
    lines[4] = "3,1 2 3 grey,Training"
    text = "\r\n".join(lines).replace(",", separator) + "\n"
    (tmp_path / "fer2013.csv").write_text(text)
    _, described = prepared(tmp_path / "fer2013.csv", tmp_path / "out")
    sizes = {name: split["images"] for name, split in described["splits"].items()}
    assert sizes == {"train": 17, "val": 21, "test": 21}
    reasons = {entry["file"]: entry["reason"] for entry in described["skipped"]}
    assert reasons.pop("fer2013.csv/3"), "words in place of numbers"
    assert reasons == {
        "fer2013.csv/0": "all pixels are equal",
        "fer2013.csv/1": "3 pixels are not a square image",
        "fer2013.csv/2": "pixels are not within 0 to 255",
    }
    split = load_split(tmp_path / "out", "test")
    angry = preprocess(torch.from_numpy(faces[42])[None])  # the first row of class 0
    assert torch.equal(split.images[0], angry) and split.labels[0] == CLASS_NAMES.index("angry")
    surprised = preprocess(torch.from_numpy(faces[42 + 5])[None])  # FER2013's 5
    assert torch.equal(split.images[18], surprised)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ({"train": 5, "val": 3, "test": 2}, {"train": 35, "val": 21, "test": 14}),
        ({"train": 20, "test": 2}, {"train": 126, "val": 14, "test": 14}),
        ({".": 40}, {"train": 226, "val": 26, "test": 28}),
    ],
)
def test_splits_that_are_missing_are_drawn(tmp_path, folders, expected):
    for seed, (name, per_class) in enumerate(folders.items()):
        write_pictures(tmp_path / "data" / name, per_class, seed)
    _, described = prepared(tmp_path / "data", tmp_path / "out")
    assert {name: split["images"] for name, split in described["splits"].items()} == expected
    for name in ("val", "test"):
        counts = described["splits"][name]["classes"].values()
        assert max(counts) - min(counts) <= 1, "stratified"


def test_people_of_ck_are_in_one_split_alone(tmp_path):
    rng = np.random.default_rng(0)
    for person in range(60):
        for label in {person % 7, (person + 2) % 7}:
            folder = tmp_path / "CK+48" / CLASS_NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            for frame in (10, 11, 12):
                face = Image.fromarray(striped_face(label, rng))
                face.save(folder / f"S{person:03}_{label:03}_{frame:08}.png")
    target = tmp_path / "out"
    target.mkdir()
    layout = find_layout(tmp_path / "CK+48")
    pixels = reading.read_images(layout, target, quiet=True)
    splits = complete(preparation.usable(layout, pixels)[0], seed=0)
    people = [set(people_of(images.files)) for images in splits.values()]
    assert len(people) == 3 and sum(map(len, people)) == len(set.union(*people)) == 60
    for images in splits.values():
        assert set(images.labels) == set(range(7))
    assert 25 <= len(splits["test"].files) <= 50 and 20 <= len(splits["val"].files) <= 50
    with pytest.raises(UserError, match="a class is shown by too few people"):
        complete({"val": splits["test"][np.argsort(splits["test"].labels)[:7]]}, seed=0)


def test_size_of_shards_and_parts_does_not_matter(tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", 20)
    for name, size in (("a", 1024), ("b", 7)):
        monkeypatch.setattr(shards, "SHARD", size)
        monkeypatch.setattr(preparation, "PART", size)
        prepared(tmp_path / "data", tmp_path / name)
    assert_equal_splits(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "a" / SCRATCH).exists()


def test_killed_run_continues(tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", 20)
    monkeypatch.setattr(shards, "SHARD", 10)
    prepared(tmp_path / "data", tmp_path / "whole")
    decoded, decode = [], reading._decode
    monkeypatch.setattr(workers, "available_cores", lambda: 1)  # in this process, to count

    def killed(layout, rows):
        if rows.start >= 60:
            raise KeyboardInterrupt
        decoded.append(rows.start)
        return decode(layout, rows)

    monkeypatch.setattr(reading, "_decode", killed)
    with pytest.raises(KeyboardInterrupt, match="run the same command again to continue"):
        prepared(tmp_path / "data", tmp_path / "out")
    assert sorted(decoded) == [0, 10, 20, 30, 40, 50]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [SCRATCH]

    changed = tmp_path / "data" / "angry" / "3.png"  # of the first shard
    other = Image.fromarray(striped_face(0, np.random.default_rng(99)))
    other.save(changed)
    (tmp_path / "out" / SCRATCH / "000002.npy").write_bytes(b"torn")

    def counted(layout, rows):
        decoded.append(rows.start)
        return decode(layout, rows)

    monkeypatch.setattr(reading, "_decode", counted)
    decoded.clear()
    prepared(tmp_path / "data", tmp_path / "out")
    assert sorted(decoded) == [0, 20, *range(60, 140, 10)], "what is whole and as it was is kept"
    monkeypatch.setattr(reading, "_decode", decode)
    prepared(tmp_path / "data", tmp_path / "fresh")
    assert_equal_splits(tmp_path / "out", tmp_path / "fresh")
    assert (
        load_split(tmp_path / "out", "train").digest()
        != load_split(tmp_path / "whole", "train").digest()
    )


def test_shards_that_another_preparation_has_removed(tmp_path, monkeypatch):
    write_pictures(tmp_path / "data", 20)

    def ends(splits, seed):
        shutil.rmtree(tmp_path / "out" / SCRATCH)
        return complete(splits, seed)

    monkeypatch.setattr(preparation, "complete", ends)
    with pytest.raises(UserError, match="000000.npy cannot be read any more: No such file"):
        prepared(tmp_path / "data", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_table_that_changes_while_it_is_read(tmp_path):
    table = tmp_path / "fer2013.csv"
    table.write_text("emotion,pixels\n" + "0,1 2 3 4\n1,4 3 2 1\n" * 35)
    layout = find_layout(table)
    table.write_text("a,b\n" * 70)
    with pytest.raises(UserError, match="fer2013.csv has changed while it was read"):
        reading.read_images(layout, tmp_path, quiet=True)


# -- worker processes ----------------------------------------------------------------------------

forked = pytest.mark.skipif(sys.platform != "linux", reason="the workers are not forked")


def refuse_and_clear(source, target, message):
    """Requires that a preparation ends with a message, and leaves no file and no process."""
    with pytest.raises(UserError, match=message):
        prepared(source, target)
    assert not list(target.iterdir()) and not multiprocessing.active_children()


@pytest.fixture
def shards_of_ten(tmp_path, monkeypatch):
    """A dataset of 14 shards, with a file that is no image in the eighth."""
    monkeypatch.setattr(shards, "SHARD", 10)
    write_pictures(tmp_path / "data", 20)
    (tmp_path / "data" / "happy" / "15.png").write_bytes(b"torn")
    return tmp_path / "data"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are cores
@pytest.mark.parametrize("cores", [3, 50])
def test_any_number_of_worker_processes_gives_the_same_files(
    shards_of_ten, tmp_path, monkeypatch, cores
):
    for count, name in ((1, "one"), (cores, "many")):
        monkeypatch.setattr(workers, "available_cores", lambda count=count: count)
        _, described = prepared(shards_of_ten, tmp_path / name)
        assert [entry["file"] for entry in described["skipped"]] == ["happy/15.png"]
    assert_equal_splits(tmp_path / "one", tmp_path / "many")


def test_machine_without_shared_memory_reads_in_one_process(shards_of_ten, tmp_path, monkeypatch):
    prepared(shards_of_ten, tmp_path / "one")
    monkeypatch.setattr(workers, "available_cores", lambda: 2)

    def none(*args, **kwargs):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", none)
    prepared(shards_of_ten, tmp_path / "two")
    assert_equal_splits(tmp_path / "one", tmp_path / "two")


def test_user_who_may_start_no_further_process_reads_in_one(shards_of_ten, tmp_path, monkeypatch):
    """At `ulimit -u`: a process fails like a thread."""
    prepared(shards_of_ten, tmp_path / "one")
    monkeypatch.setattr(workers, "available_cores", lambda: 2)

    class Limited(threading.Thread):
        started: ClassVar = []

        def start(self):
            if len(self.started) == 4:
                raise RuntimeError("can't start new thread")
            self.started.append(self)
            super().start()

    limited = SimpleNamespace(**vars(threading) | {"Thread": Limited})
    monkeypatch.setattr(workers, "threading", limited)
    monkeypatch.setattr(os, "fork", None)
    prepared(shards_of_ten, tmp_path / "two")
    assert_equal_splits(tmp_path / "one", tmp_path / "two")
    assert len(Limited.started) == 4 and not any(thread.is_alive() for thread in Limited.started)


@forked
def test_process_that_cannot_be_started_is_one_line(shards_of_ten, tmp_path, monkeypatch):
    def refused():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    monkeypatch.setattr(os, "fork", refused)
    with pytest.raises(UserError, match="cannot start a process .* Resource temporarily"):
        prepared(shards_of_ten, tmp_path / "out")


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        FileNotFoundError(2, "No such file"),
    ],
)
def test_fault_while_a_shard_is_read_is_one_line(tmp_path, monkeypatch, error, cores):
    monkeypatch.setattr(shards, "SHARD", 10)
    lines = [f"{row % 7},{' '.join(map(str, range(row, row + 16)))}" for row in range(70)]
    table = tmp_path / "fer2013.csv"
    table.write_text("\n".join(["emotion,pixels", *lines]))

    def failing(layout, rows):
        raise error

    monkeypatch.setattr(shards, "contents", failing)
    monkeypatch.setattr(workers, "available_cores", lambda: cores)
    with pytest.raises(UserError, match="not enough memory|cannot read .*fer2013.csv: No such"):
        prepared(table, tmp_path / "out")


@forked
def test_worker_process_killed_while_its_parent_is_elsewhere(shards_of_ten, tmp_path, monkeypatch):
    """Torch raises its exception from a signal handler, at any place in the main thread."""
    update = reading.tqdm.update

    def killed(progress, count):
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        time.sleep(5)  # the handler ends it
        update(progress, count)

    monkeypatch.setattr(reading.tqdm, "update", killed)
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    refuse_and_clear(shards_of_ten, tmp_path / "out", "a process that read images was killed")


@forked
def test_killed_worker_process_is_one_line(shards_of_ten, tmp_path, monkeypatch):
    parent, decode = os.getpid(), reading._decode

    def killed(layout, rows):
        if os.getpid() != parent and rows.start == 60:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(layout, rows)

    monkeypatch.setattr(reading, "_decode", killed)
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    refuse_and_clear(shards_of_ten, tmp_path / "out", "a process that read images was killed")


@forked
def test_fault_in_a_worker_process_is_one_line(shards_of_ten, tmp_path, monkeypatch):
    def full(path, pixels, record):
        raise UserError(f"cannot write {path.name}: No space left on device")

    monkeypatch.setattr(shards, "write_shard", full)
    monkeypatch.setattr(workers, "available_cores", lambda: 2)
    refuse_and_clear(
        shards_of_ten, tmp_path / "out", "^cannot write 000000.npy: No space left on device$"
    )


@forked
def test_worker_process_whose_parent_was_killed_before_it_began_ends():
    child = os.fork()
    if not child:
        workers._begin_worker(signal.SIG_DFL, -1, 0)
        os._exit(7)
    assert os.waitpid(child, 0)[1] == 0
