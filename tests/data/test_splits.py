"""The data contract: preprocessing, split files, and what is refused."""

import errno
import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import make_split, with_votes
from ferlab.constants import CLASS_NAMES, SPLITS
from ferlab.data import splits
from ferlab.data.preprocessing import preprocess
from ferlab.data.split_writer import write_split_file
from ferlab.data.splits import load_split, save_splits, split_path
from ferlab.files import UserError


def test_preprocess_maps_grey_levels_to_minus_one_to_one():
    grey = torch.arange(256, dtype=torch.uint8).repeat(9).view(1, 48, 48)
    expected = grey.float() / 127.5 - 1
    assert preprocess(grey).shape == (1, 48, 48)
    torch.testing.assert_close(preprocess(grey), expected, atol=1e-6, rtol=0)


def test_preprocess_takes_colour_and_any_size_and_batches():
    red = torch.zeros(2, 3, 100, 60, dtype=torch.uint8)
    red[:, 0] = 255
    faces = preprocess(red)
    assert faces.shape == (2, 1, 48, 48) and faces.dtype == torch.float32
    torch.testing.assert_close(faces.mean().item(), 0.2989 * 2 - 1, atol=0.01, rtol=0)


@pytest.mark.parametrize("votes", [False, True])
def test_split_survives_the_disk(tmp_path, votes):
    split = make_split(3, seed=1, votes=votes)
    save_splits({"val": split}, tmp_path)
    loaded = load_split(tmp_path, "val")
    keys = ["images", "labels", *(["votes", "majority", "agreement"] if votes else [])]
    assert list(loaded.tensors()) == keys and loaded.class_names == CLASS_NAMES
    assert all(torch.equal(getattr(loaded, key), getattr(split, key)) for key in keys)
    assert loaded.digest() == split.digest()
    content = torch.load(tmp_path / "val_data.pt", weights_only=True, mmap=True)
    assert list(content) == [*keys, "class_names"]


def test_equal_splits_give_equal_bytes_whatever_the_name(tmp_path):
    split = make_split(2, seed=5)
    save_splits({"val": split, "train": split}, tmp_path)
    first, second = (split_path(tmp_path, name).read_bytes() for name in ("val", "train"))
    assert first == second


def test_splits_of_two_runs_never_lie_side_by_side(tmp_path, monkeypatch):
    save_splits({name: make_split(2, seed=0) for name in SPLITS}, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def disk_is_full(path, *others):
        if "test" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_split_file(path, *others)

    monkeypatch.setattr(splits, "write_split_file", disk_is_full)
    with pytest.raises(UserError, match=r"cannot write .*test_data\.pt: No space left"):
        save_splits({name: make_split(2, seed=1) for name in SPLITS}, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_split_file_is_what_torch_writes_and_a_sound_zip(tmp_path):
    split = make_split(2, seed=3, votes=True)
    save_splits({"val": split}, tmp_path)
    expected = io.BytesIO()
    torch.save({**split.tensors(), "class_names": list(split.class_names)}, expected)
    with zipfile.ZipFile(expected) as ours, zipfile.ZipFile(tmp_path / "val_data.pt") as written:
        assert written.testzip() is None, "the checksums are those of the bytes"
        names = [name for name in ours.namelist() if "serialization_id" not in name]
        assert names == [n for n in written.namelist() if "serialization_id" not in n]
        assert all(ours.read(name) == written.read(name) for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["val_data.pt"]


def test_agreement_that_is_missing_is_taken_from_the_votes(tmp_path):
    split = with_votes(make_split(2, seed=1))  # the third last of ten has no votes
    save_splits({"val": replace(split, agreement=None)}, tmp_path)
    agreement = load_split(tmp_path, "val").agreement
    assert agreement.tolist() == [6, 7, 8, 9, 10, 6, 7, 0, 0, 0, 6, 7, 8, 9]


def test_rows_are_taken_of_everything(tmp_path):
    split = make_split(2, seed=0, votes=True)
    taken = split.take(torch.arange(14) % 5 == 1)  # rows 1, 6 and 11
    assert len(taken) == 3 and taken.labels.tolist() == [0, 3, 5]
    assert taken.majority.tolist() == [0, 4, 5] and taken.agreement.tolist() == [7, 7, 7]
    assert torch.equal(taken.votes[1], torch.tensor([0, 0, 0, 0, 0.7, 0.3, 0]))
    assert torch.equal(taken.images[2], split.images[11])


def test_digest_changes_with_pixel_label_class_and_votes():
    split = make_split(2, seed=0)
    digests = {split.digest(), with_votes(split).digest()}
    split.images[0, 0, 0, 0] += 0.5
    digests.add(split.digest())
    split.labels[0] = 3
    digests.add(split.digest())
    digests.add(type(split)(split.images, split.labels, tuple("abcdefg")).digest())
    for key in ("votes", "majority", "agreement"):
        changed = with_votes(split)
        getattr(changed, key)[0] += 1
        digests.add(changed.digest())
    assert len(digests) == 8


GOOD = {
    "images": torch.zeros(4, 1, 48, 48),
    "labels": torch.zeros(4, dtype=torch.int64),
    "class_names": list(CLASS_NAMES),
}
VOTES = {"votes": torch.eye(7)[:4], "majority": torch.arange(4)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "images must be a tensor"),
        ({"images": torch.zeros(4, 1, 48, 47)}, "must be a tensor (N, 1, 48, 48)"),
        ({"images": torch.zeros(4, 1, 48, 48, dtype=torch.uint8)}, "uint8"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "(3,)"),
        ({"labels": torch.zeros(4)}, "torch.float32"),
        ({"labels": torch.tensor([0, 1, 2, 7])}, "labels ranges from 0 to 7"),
        ({"labels": torch.tensor([0, -1, 2, 3])}, "-1 to 3"),
        ({"images": torch.full((4, 1, 48, 48), 255.0)}, "images ranges from 255 to 255"),
        ({"images": torch.full((4, 1, 48, 48), float("nan"))}, "nan"),
        ({"images": torch.zeros(0, 1, 48, 48), "labels": GOOD["labels"][:0]}, "no images"),
        ({"class_names": []}, "class_names"),
        ({"class_names": [1] * 7}, "class_names"),
        ({"votes": VOTES["votes"]}, "votes and majority must both be there"),
        ({"majority": VOTES["majority"]}, "votes and majority must both be there"),
        (VOTES | {"votes": torch.eye(8)[:4]}, "(4, 8), not torch.float32 (4, 7), for 7 classes"),
        (VOTES | {"votes": torch.eye(7)[:3]}, "votes is torch.float32 (3, 7)"),
        (VOTES | {"votes": VOTES["votes"].double()}, "votes is torch.float64"),
        (VOTES | {"votes": VOTES["votes"] * 0.9}, "votes sums neither to 1 nor to 0"),
        (VOTES | {"votes": 3 * VOTES["votes"] - 1}, "votes ranges from -1 to 2"),
        (VOTES | {"votes": VOTES["votes"] * float("nan")}, "votes ranges from nan"),
        (VOTES | {"majority": torch.tensor([0, 1, 2, 7])}, "majority ranges from 0 to 7"),
        (VOTES | {"majority": torch.tensor([0, 1, 2, -2])}, "majority ranges from -2 to 2"),
        (VOTES | {"agreement": torch.tensor([0, 1, 2, 11])}, "agreement ranges from 0 to 11"),
    ],
)
def test_wrong_split_is_refused_with_its_name_and_remedy(tmp_path, change, message):
    torch.save({**GOOD, **change}, tmp_path / "train_data.pt")
    with pytest.raises(UserError) as error:
        load_split(tmp_path, "train")
    text = str(error.value)
    assert message in text and "train_data.pt" in text and "dataset_preparation.py" in text


@pytest.mark.parametrize("missing", list(GOOD))
def test_missing_key_is_named(tmp_path, missing):
    torch.save({k: v for k, v in GOOD.items() if k != missing}, tmp_path / "train_data.pt")
    with pytest.raises(UserError, match=f"has no {missing}"):
        load_split(tmp_path, "train")


def test_missing_damaged_and_foreign_files(tmp_path):
    path = tmp_path / "train_data.pt"
    with pytest.raises(UserError, match="missing; make it with: python dataset_preparation.py"):
        load_split(tmp_path, "train")
    save_splits({"train": make_split(2, seed=0)}, tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], np.zeros(99).tobytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged or not a file of this project"):
            load_split(tmp_path, "train")
    torch.save([1, 2, 3], path)
    with pytest.raises(UserError, match="not a file of this project"):
        load_split(tmp_path, "train")


def test_a_folder_that_cannot_be_mapped_is_read(tmp_path, monkeypatch):
    split = make_split(2, seed=0)
    save_splits({"val": split}, tmp_path)
    load = torch.load

    def no_mapping(path, mmap=False, **options):
        if mmap:
            raise RuntimeError(f"unable to mmap 64 bytes from file <{path}>: No such device (19)")
        return load(path, **options)

    monkeypatch.setattr(torch, "load", no_mapping)
    assert torch.equal(load_split(tmp_path, "val").images, split.images)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.EACCES, "Permission denied"),
            r"cannot read .*val_data\.pt: Permission denied",
        ),
        (OSError(errno.EMFILE, "Too many open files"), r"cannot read .*val_data\.pt: Too many"),
        (RuntimeError("can't allocate memory"), r"too little memory to read .*val_data\.pt"),
    ],
)
def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch, error, message):
    save_splits({"val": make_split(2, seed=0)}, tmp_path)

    def fails(path, **options):
        raise error

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(UserError, match=message):
        load_split(tmp_path, "val")
