"""Splits made of one folder of images, and duplicates removed across splits."""

from collections import defaultdict

import numpy as np
from sklearn.model_selection import train_test_split

from ferlab.constants import CLASS_NAMES
from ferlab.data.images import Images
from ferlab.data.splits import SPLITS, gray_levels
from ferlab.files import UserError


def carve(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Splits images into a remainder and a stratified, seeded `fraction` of them.

    Raises:
        UserError: a class has too few images for both parts.
    """
    try:
        rest, carved = train_test_split(
            np.arange(len(images.labels)),
            test_size=fraction,
            stratify=images.labels.numpy(),
            random_state=seed,
        )
    except ValueError as error:
        raise UserError(f"too few images of a class to split them: {error}") from error
    return images[np.sort(rest)], images[np.sort(carved)]


def pixel_keys(images: Images) -> list[bytes]:
    """Returns each image's pixels as a hashable key: equal keys, equal images."""
    return [row.tobytes() for row in gray_levels(images.images).numpy()]


def remove_duplicates(splits: dict[str, Images], keep: bool) -> tuple[dict[str, Images], dict]:
    """Removes images from train that are also in val or test, and from val those also in test.

    Args:
        splits: the images of each split.
        keep: report only, remove nothing.

    Returns:
        The splits, and a report: how many were removed from each split, how many copies are
        within one split, how many images of val and test were also in train, and the groups of
        identical images whose labels differ.
    """
    names: dict[bytes, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    seen: set[bytes] = set()
    result, removed, within, in_train = {}, {}, {}, {}
    all_keys = {split: pixel_keys(images) for split, images in splits.items()}
    train_keys = set(all_keys.get("train", ()))
    for split in reversed([name for name in SPLITS if name in splits]):
        images, keys = splits[split], all_keys[split]
        for key, label, file in zip(keys, images.labels.tolist(), images.files, strict=True):
            names[key][label].append(file)
        fresh = [row for row, key in enumerate(keys) if keep or key not in seen]
        result[split] = images[fresh]
        removed[split] = len(keys) - len(fresh)
        within[split] = len(fresh) - len({keys[row] for row in fresh})
        if split != "train":
            in_train[split] = sum(keys[row] in train_keys for row in fresh)
        seen.update(keys)
    conflicts = [
        {CLASS_NAMES[label]: files for label, files in sorted(by_label.items())}
        for by_label in names.values()
        if len(by_label) > 1
    ]
    report = {
        "kept": keep,
        "removed": removed,
        "within_split": within,
        "in_train": in_train,
        "conflicts": conflicts,
    }
    return {split: result[split] for split in SPLITS if split in result}, report
