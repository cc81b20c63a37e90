"""Datasets of one folder for each class, within folders of splits or without."""

import re
from pathlib import Path

from ferlab.data.classes import is_expression, plain
from ferlab.data.found import Found, files_below, is_fer2013, split_of, subfolders
from ferlab.files import UserError

LARGEST_CLASS = 11  # the largest number of a class: AffectNet has 0 to 11
FER2013_FILE = re.compile(r"(Training|PublicTest|PrivateTest)_\d+\.", re.IGNORECASE)


def split_folders(root: Path) -> dict[Path, str]:
    """Returns the split of each folder of `root` that has a split's name and holds folders.

    Raises:
        UserError: two folders have names of one split.
    """
    result: dict[Path, str] = {}
    for folder in subfolders(root):
        split = split_of(folder.name)
        if split is None or not class_folders(folder):
            continue
        for other, its_split in result.items():
            if its_split == split:
                raise UserError(
                    f"{other} and {folder} are both the {split} split; rename the one that is not"
                )
        result[folder] = split
    return result


def class_folders(folder: Path) -> list[Path]:
    """Returns the folders of a split's classes, for `train/train/` those of the inner folder."""
    inner = subfolders(folder)
    if len(inner) == 1 and split_of(inner[0].name) == split_of(folder.name) is not None:
        return subfolders(inner[0])
    return inner


def is_class_root(root: Path, known: set[str]) -> bool:
    """Returns whether two or more folders of `root` have names of classes.

    Args:
        root: the folder.
        known: further names of classes, from `--class-map`.
    """
    names = [plain(folder.name) for folder in subfolders(root)]
    numbers = [name for name in names if name.isdecimal()]
    if any(int(name) > LARGEST_CLASS for name in numbers):
        return False
    return len(numbers) + sum(is_expression(name) or name in known for name in names) >= 2


def read_folders(root: Path, base: Path) -> Found:
    """Lists the files of a dataset with class folders.

    Args:
        root: folder of the splits, or of the classes.
        base: folder that the names are relative to.

    Raises:
        UserError: train or val is the only split, or two folders are one split.
    """
    splits = split_folders(root)
    if set(splits.values()) == {"train"}:
        train = next(iter(splits))
        raise UserError(
            f"{root} has {train.name}/ and neither a validation nor a test folder; unpack the "
            f"rest, or split this folder at random with --source {train}"
        )
    if set(splits.values()) == {"val"}:
        raise UserError(f"{root} has neither a train nor a test folder; unpack the rest")
    shown = ", ".join(folder.name for folder in splits)
    form = f"class folders within {shown}" if splits else "class folders without splits"
    found = Found(form, splits=[] if splits else None)
    marked = is_fer2013(folder.name for folder in splits)
    for folder, split in (splits or {root: None}).items():
        for class_folder in class_folders(folder):
            prefix = class_folder.relative_to(base).as_posix()
            files = files_below(class_folder)
            marked = marked or bool(files and FER2013_FILE.match(files[0]))
            found.names += [f"{prefix}/{file}" for file in files]
            found.classes += [plain(class_folder.name)] * len(files)
            if split:
                found.splits += [split] * len(files)
    if marked:
        found.order = "fer2013"
    for path in subfolders(root) if splits else ():
        if path not in splits:
            reason = f"in {path.relative_to(base).as_posix()}/, which is no split"
            found.left_out[reason] = len(files_below(path))
    loose = sum(entry.is_file() for folder in (splits or [root]) for entry in folder.iterdir())
    found.left_out["beside the folders of the classes"] = loose
    return found
