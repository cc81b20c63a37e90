"""What a reader of a dataset returns; names of splits and the order of files, for all readers."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "train_set": "train",
    "fer2013train": "train",  # as FER+'s authors call them
    "val": "val",
    "valid": "val",
    "validation": "val",
    "val_set": "val",
    "publictest": "val",
    "fer2013valid": "val",
    "test": "test",
    "testing": "test",
    "test_set": "test",
    "privatetest": "test",
    "fer2013test": "test",
}

NUMBER = re.compile("[0-9]+")


@dataclass
class Found:
    """The images of a dataset, before its classes are understood.

    Attributes:
        form: the name of the dataset's form, which is printed.
        names: N files relative to the dataset's folder, or `<csv>/<row>` for rows of pixels.
        classes: N names of classes as the dataset has them, see `classes.plain`.
        splits: N times "train", "val" or "test"; None if the dataset has no splits.
        order: the order of numbered classes (`classes.ORDERS`) that the form itself determines.
        left_out: number of files or rows that are not used, by the reason.
        table: the CSV of pixels; None for files.
        offsets: int64 `(N,)`, where each row begins in `table`, bytes; None for files.
        boxes: int64 `(N, 4)`, the face (x, y, w, h) in each image, pixels; None: the whole image.
    """

    form: str
    names: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    splits: list[str] | None = None
    order: str | None = None
    left_out: Counter = field(default_factory=Counter)
    table: Path | None = None
    offsets: np.ndarray | None = None
    boxes: np.ndarray | None = None


def split_of(name: str) -> str | None:
    """Returns the split that the name of a folder, a file or a value means; None if it is none."""
    return SPLIT_NAMES.get(name.strip().lower())


def is_fer2013(names: Iterable[str]) -> bool:
    """Returns whether one of the splits' names is FER2013's own: PublicTest or PrivateTest."""
    return not {"publictest", "privatetest"}.isdisjoint(name.strip().lower() for name in names)


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders in `folder`, without hidden and system folders."""
    with os.scandir(folder) as entries:
        found = [e.name for e in entries if is_folder(e) and not e.name.startswith((".", "__"))]
    return [folder / name for name in in_order(found)]


def files_below(folder: Path) -> list[str]:
    """Returns the files below `folder` as relative POSIX paths, 2.jpg before 10.jpg.

    Hidden files are left out; a folder's files come before those of its subfolders. Links are
    followed, except to a folder that contains them.
    """
    return _files_below(folder, frozenset(map(_place, folder.resolve().parents)))


def _files_below(folder: Path, above: frozenset[tuple[int, int]]) -> list[str]:
    if (place := _place(folder)) in above:
        return []
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith((".", "__")):
                (folders if is_folder(entry) else files).append(entry.name)
    result = in_order(files)
    for name in in_order(folders):
        below = _files_below(folder / name, above | {place})
        result += [f"{name}/{file}" for file in below]
    return result


def _place(folder: Path) -> tuple[int, int]:
    """Returns device and inode number, which are equal for a folder and the links to it."""
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def is_folder(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a folder; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def in_order(names: list[str]) -> list[str]:
    """Returns names sorted, 2.jpg before 10.jpg, in the same order on every machine."""
    return sorted(sorted(names), key=number_order)  # 2.jpg and 02.jpg have equal keys


def number_order(name: str) -> str:
    """Returns a key that sorts 2.jpg before 10.jpg: numbers before text, and by their value.

    The key is a text: a list of numbers and texts would need four times the memory.
    """
    return NUMBER.sub(_number_key, name)


def _number_key(match: re.Match) -> str:
    digits = match[0].lstrip("0")
    return f"\0{chr(len(digits))}{digits}"
