"""Draws the splits that a dataset lacks, and removes duplicates across splits."""

import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from ferlab.constants import SPLITS
from ferlab.files import UserError

VAL_FRACTION_OF_TRAIN = 0.1  # where the dataset has no validation images
TEST_FRACTION_OF_VAL = 0.5  # where the dataset has no test images
TEST_FRACTION_OF_ALL = 0.1  # where the dataset has no splits
CK_FILE = re.compile(r"(?:.*/)?(S\d{3,4})_\d{3}_\d{8}\.\w+")  # person, sequence, frame


@dataclass(frozen=True)
class Images:
    """The usable images of one split, in the order of the layout.

    Attributes:
        files: object `(N,)`, paths relative to the dataset.
        labels: int64 `(N,)`, indices into the classes.
        rows: int64 `(N,)`, indices into the layout.
        keys: S16 `(N,)`, a digest of each image; images with equal keys are equal.
    """

    files: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    keys: np.ndarray

    def __getitem__(self, index: Sequence[int] | np.ndarray) -> "Images":
        columns = (self.files, self.labels, self.rows, self.keys)
        return Images(*(column[index] for column in columns))


def complete(splits: dict[str, Images], seed: int) -> dict[str, Images]:
    """Returns train, val and test, as far as the dataset's splits allow.

    Without test, half of val becomes test; without val, a tenth of train becomes val; without
    splits, a tenth becomes test and a tenth of the rest val. Each is stratified, drawn by `seed`.

    Raises:
        UserError: a class has too few images to split.
    """
    splits = dict(splits)
    if "all" in splits:
        splits["train"], splits["test"] = carve(splits.pop("all"), TEST_FRACTION_OF_ALL, seed)
    if "val" in splits and "test" not in splits:
        splits["val"], splits["test"] = carve(splits["val"], TEST_FRACTION_OF_VAL, seed)
    elif "train" in splits and "val" not in splits:
        splits["train"], splits["val"] = carve(splits["train"], VAL_FRACTION_OF_TRAIN, seed)
    return splits


def carve(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Splits images into a remainder and a stratified, seeded `fraction` of them.

    If the files have CK+'s names, each person is in only one of the two.

    Raises:
        UserError: a class has too few images, or people, for both parts.
    """
    rows, people = np.arange(len(images.labels)), people_of(images.files)
    try:
        if people is None:
            rest, carved = train_test_split(
                rows, test_size=fraction, stratify=images.labels, random_state=seed
            )
        else:
            rest, carved = _carve_people(rows, images.labels, people, fraction, seed)
    except ValueError as error:
        raise UserError(f"too few images of a class to split them: {error}") from error
    return images[np.sort(rest)], images[np.sort(carved)]


def _carve_people(
    rows: np.ndarray, labels: np.ndarray, people: list[str], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the remainder and of about a `fraction`, which share no person.

    Raises:
        ValueError: one of the two lacks a class.
    """
    folds = StratifiedGroupKFold(round(1 / fraction), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes with few images, checked below
        rest, carved = next(folds.split(rows, labels, people))
    for part in (rest, carved):
        if len(np.unique(labels[part])) < len(np.unique(labels)):
            raise ValueError("a class is shown by too few people; leave it out with --classes")
    return rest, carved


def people_of(files: Sequence[str]) -> list[str] | None:
    """Returns the person of each image from CK+'s file names; None if a name is another."""
    people = []
    for file in files:
        match = CK_FILE.fullmatch(file)
        if match is None:
            return None
        people.append(match[1])
    return people


def remove_duplicates(
    splits: dict[str, Images], keep: bool, class_names: Sequence[str]
) -> tuple[dict[str, Images], dict]:
    """Removes images from train that are also in val or test, and from val those also in test.

    Args:
        splits: the images of each split.
        keep: only report, remove nothing.
        class_names: the classes' names.

    Returns:
        The splits, and a report: how many images were removed from each split, how many copies are
        within a split, how many images of val and test were also in train, and the groups of
        identical images whose labels differ.

    Raises:
        UserError: nothing is left of a split.
    """
    last_first = [name for name in reversed(SPLITS) if name in splits]
    keys = np.concatenate([splits[name].keys for name in last_first])
    found, groups = np.unique(keys, return_inverse=True)
    ends = np.cumsum([len(splits[name].keys) for name in last_first])
    groups_of = dict(zip(last_first, np.split(groups, ends[:-1]), strict=True))
    in_train_split = np.zeros(len(found), dtype=bool)
    in_train_split[groups_of.get("train", [])] = True
    seen = np.zeros(len(found), dtype=bool)
    result, removed, within, in_train = {}, {}, {}, {}
    for split in last_first:
        own = groups_of[split]
        fresh = np.flatnonzero(~seen[own] | keep)
        if not len(fresh):
            raise UserError(
                f"each image of the {split} split is also in another split; give it images of its "
                "own, or keep the duplicates with --keep-duplicates"
            )
        result[split] = splits[split][fresh]
        removed[split] = len(own) - len(fresh)
        within[split] = len(fresh) - len(np.unique(own[fresh]))
        if split != "train":
            in_train[split] = int(in_train_split[own[fresh]].sum())
        seen[own] = True
    report = {
        "kept": keep,
        "removed": removed,
        "within_split": within,
        "in_train": in_train,
        "conflicts": _conflicts([splits[name] for name in last_first], groups, class_names),
    }
    return {split: result[split] for split in SPLITS if split in result}, report


def _conflicts(
    parts: list[Images], groups: np.ndarray, class_names: Sequence[str]
) -> list[dict[str, list[str]]]:
    """Returns the files by class of each group of identical images whose labels differ."""
    labels = np.concatenate([part.labels for part in parts])
    files = np.concatenate([part.files for part in parts])
    least = np.full(groups.max() + 1, len(class_names))
    most = np.full(groups.max() + 1, -1)
    np.minimum.at(least, groups, labels)
    np.maximum.at(most, groups, labels)
    by_group: dict[int, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in np.flatnonzero((least < most)[groups]):
        by_group[groups[row]][labels[row]].append(files[row])
    return [
        {class_names[label]: names for label, names in sorted(by_label.items())}
        for by_label in by_group.values()
    ]
