"""Makes the split files and their description from a dataset as it was understood."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch

from ferlab.constants import IMAGE_SIZE, MEAN, SPLITS, STD
from ferlab.data.layouts import Layout
from ferlab.data.partition import Images, complete, remove_duplicates
from ferlab.data.preprocessing import preprocess
from ferlab.data.reading import Pixels, read_images
from ferlab.data.shards import digest_of_dataset, parts_there
from ferlab.data.split_writer import write_split_file
from ferlab.data.splits import OPTIONAL, PART, new_split_files, split_path
from ferlab.data.votes import Votes, read_table, require_aligned, row_numbers, summarise
from ferlab.files import UserError, naming_write_errors, require_writable

SCRATCH = ".preparation.tmp"  # folder of the shards, removed at the end
PARTS = "parts"  # folder of the shards of `--shard`, which is kept
CONTINUE = "run the same command again to continue"


@dataclass(frozen=True)
class Prepared:
    """One split before it is written.

    Attributes:
        images: N images.
        votes: of these images; None without votes.
    """

    images: Images
    votes: Votes | None = None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns the tensors that follow the images in the split file."""
        result = {"labels": torch.from_numpy(self.images.labels)}
        if self.votes is not None:
            result |= {name: torch.from_numpy(getattr(self.votes, name)) for name in OPTIONAL}
        return result


def prepare_part(layout: Layout, data_dir: Path, part: tuple[int, int], quiet: bool = False) -> str:
    """Reads part K of N of a dataset into `data_dir/parts`; returns what is there, as a line.

    A run that was killed continues with the images that it has read.

    Args:
        layout: the dataset as it was understood.
        data_dir: an existing folder.
        part: `(K, N)`.
        quiet: shows no progress bar.

    Raises:
        UserError: the folder has parts of another dataset, or a file cannot be written.
    """
    folder, dataset = require_writable(data_dir / PARTS), digest_of_dataset(layout)
    parts_there(folder, layout, dataset)  # raises before the work
    try:
        read_images(layout, folder, quiet, part, dataset)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(CONTINUE) from interrupt
    return parts_there(folder, layout, dataset)[0]


def prepare(
    layout: Layout,
    data_dir: Path,
    votes: Path | None = None,
    seed: int = 0,
    keep_duplicates: bool = False,
    quiet: bool = False,
) -> dict:
    """Reads a dataset and writes its splits; returns their description for dataset.json.

    Needs memory for the pixels of a few thousand images, however many there are. Images that a
    killed run or `prepare_part` has read are not read again.

    Args:
        layout: the dataset as it was understood.
        data_dir: an existing folder, where the splits are written.
        votes: FER+'s table; None without.
        seed: of the splits that are drawn.
        keep_duplicates: keeps identical images in two splits.
        quiet: shows no progress bar.

    Raises:
        UserError: a class has no usable image or too few, a split is a copy of another, the votes
            do not fit, parts are of another dataset, or a file cannot be written.
    """
    scratch, parts = data_dir / SCRATCH, data_dir / PARTS
    dataset = digest_of_dataset(layout)
    if parts.is_dir():
        there, whole = parts_there(parts, layout, dataset)
        print(there if whole else f"{there}; what is missing is read now", flush=True)
        folder = parts
    else:
        folder = require_writable(scratch)
    try:
        pixels = read_images(layout, folder, quiet, dataset=dataset)
        splits, skipped = usable(layout, pixels)
        splits = complete(splits, seed)
        _require_no_other(splits, layout, data_dir)
        splits, duplicates = remove_duplicates(splits, keep_duplicates, layout.class_names)
        prepared, report = {name: Prepared(images) for name, images in splits.items()}, None
        if votes:
            prepared, report = add_votes(splits, votes, layout.class_names)
        written = write_splits(prepared, pixels, data_dir, layout.class_names)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(CONTINUE) from interrupt
    except UserError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)
    return {
        "seed": seed,
        "class_names": list(layout.class_names),
        "image_size": IMAGE_SIZE,
        "normalisation": {"mean": MEAN, "std": STD, "of": "gray / 255"},
        "splits": written,
        "skipped": skipped,
        "duplicates": duplicates,
        "votes": report,
    }


def usable(layout: Layout, pixels: Pixels) -> tuple[dict[str, Images], list[dict]]:
    """Returns the usable images of each split, and `{"file", "reason"}` of each other image.

    Raises:
        UserError: a class has no usable image in a split.
    """
    good = np.ones(len(layout.names), dtype=bool)
    good[list(pixels.faults)] = False
    splits = {}
    for name, rows in layout.splits.items():
        kept = rows[good[rows]]
        counts = np.bincount(layout.labels[kept], minlength=len(layout.class_names))
        empty = [c for c, n in zip(layout.class_names, counts, strict=True) if n == 0]
        if empty:
            where = layout.root if name == "all" else f"{layout.root}, {name} split"
            rest = [c for c in layout.class_names if c not in empty]
            remedy = f", or leave it out with --classes {','.join(rest)}" if len(rest) > 1 else ""
            raise UserError(
                f"{where}: no usable image in {', '.join(empty)}; unpack the dataset again{remedy}"
            )
        splits[name] = Images(layout.names[kept], layout.labels[kept], kept, pixels.keys[kept])
    faults = sorted(pixels.faults.items())
    return splits, [{"file": layout.names[row], "reason": reason} for row, reason in faults]


def add_votes(
    splits: dict[str, Images], path: Path, class_names: tuple[str, ...]
) -> tuple[dict[str, Prepared], dict]:
    """Looks up the raters' votes on each image, and removes images without a face from train.

    Args:
        splits: the images of each split, whose files are named by their row of fer2013.csv.
        path: FER+'s table.
        class_names: the classes' names.

    Returns:
        The splits with votes, and the report that dataset.json holds.

    Raises:
        UserError: the table is damaged, or is not of these images.
    """
    table = read_table(path)
    votes = {
        name: summarise(table[row_numbers(part.files)], class_names)
        for name, part in splits.items()
    }
    columns = zip(*map(astuple, votes.values()), strict=True)
    together = Votes(*map(np.concatenate, columns))
    labels = np.concatenate([part.labels for part in splits.values()])
    agreement = require_aligned(together, labels, path)
    result, left_out = {}, []
    for name, part in splits.items():
        found = votes[name]
        if name == "train":
            left_out = part.files[found.no_face].tolist()
            kept = ~found.no_face
            part, found = part[kept], Votes(*(column[kept] for column in astuple(found)))
        result[name] = Prepared(part, found)
    report = {
        "file": path.as_posix(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "label_agrees_with_majority": round(agreement, 4),
        "no_face_left_out_of_train": left_out,
        "splits": {
            name: {
                "majority": int((split.votes.majority >= 0).sum()),
                "contempt": int(((split.votes.majority < 0) & (split.votes.agreement > 0)).sum()),
            }
            for name, split in result.items()
        },
    }
    return result, report


def write_splits(
    splits: dict[str, Prepared], pixels: Pixels, data_dir: Path, class_names: tuple[str, ...]
) -> dict[str, dict]:
    """Writes all splits (see `new_split_files`); returns the counts and digest of each.

    Raises:
        UserError: a file cannot be written.
    """
    result = {}
    with new_split_files(data_dir, splits) as files:
        for name, split in splits.items():
            labels = split.images.labels
            shape = (len(labels), 1, IMAGE_SIZE, IMAGE_SIZE)
            parts = _parts(split.images.rows, pixels)
            tensors = split.tensors()
            with naming_write_errors(split_path(data_dir, name)):
                digest = write_split_file(files[name], parts, tensors, shape, class_names)
            counts = np.bincount(labels, minlength=len(class_names)).tolist()
            result[name] = {
                "images": len(labels),
                "classes": dict(zip(class_names, counts, strict=True)),
                "digest": digest,
            }
    return result


def _require_no_other(splits: dict[str, Images], layout: Layout, data_dir: Path) -> None:
    """Raises a UserError if `data_dir` has a split of another dataset that would be kept."""
    for name in SPLITS:
        if name not in splits and split_path(data_dir, name).exists():
            raise UserError(
                f"{layout.root} has no {name} split, but {split_path(data_dir, name)} is there; "
                "choose another --data-dir"
            )


def _parts(rows: np.ndarray, pixels: Pixels) -> Iterator[torch.Tensor]:
    """Yields the preprocessed images of `rows` in parts, float32 `(n, 1, 48, 48)`."""
    for start in range(0, len(rows), PART):
        yield preprocess(torch.from_numpy(pixels.take(rows[start : start + PART])))
