"""The data contract: class names, and split files on disk."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ferlab.commands import preparation_command
from ferlab.constants import CLASS_NAMES as CLASS_NAMES
from ferlab.constants import IMAGE_SIZE, RATERS, SPLITS
from ferlab.data.split_writer import write_split_file
from ferlab.files import UserError, naming_write_errors, replace_together, temporary_path
from ferlab.tensor_files import load_tensors

PART = 256  # images written at once
OPTIONAL = ("votes", "majority", "agreement")


@dataclass(frozen=True)
class Split:
    """One split, in memory or mapped from disk; `images` may be on another device than the rest.

    Attributes:
        images: float32 `(N, 1, 48, 48)` in [-1, 1].
        labels: int64 `(N,)`, the dataset's label, indices into `class_names`.
        class_names: the classes' names, alphabetical.
        votes: float32 `(N, classes)`, the fraction of the raters' votes for each class, rows sum
            to 1 or 0; None if the dataset has no votes, like the next two.
        majority: int64 `(N,)`, the class of the raters' majority, -1 for none of the classes.
        agreement: int64 `(N,)`, how many of ten raters chose the majority's expression; 0 where
            there is none. Above 0 with majority -1, that expression is contempt.
    """

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]
    votes: torch.Tensor | None = None
    majority: torch.Tensor | None = None
    agreement: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns the tensors that the split has, by name."""
        names = ("images", "labels", *OPTIONAL)
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    def to(self, device: torch.device, images: bool = True) -> "Split":
        """Returns the split on `device`; without `images`, its images stay where they are."""
        moved = {
            name: tensor.to(device) if images or name != "images" else tensor
            for name, tensor in self.tensors().items()
        }
        return Split(class_names=self.class_names, **moved)

    def take(self, rows: torch.Tensor) -> "Split":
        """Returns the split with only the images at `rows`, indices or bool `(N,)`."""
        taken = {name: tensor[rows.to(tensor.device)] for name, tensor in self.tensors().items()}
        return Split(class_names=self.class_names, **taken)

    def class_counts(self) -> torch.Tensor:
        """Returns int64 `(classes,)`, the number of images of each class by the labels."""
        return torch.bincount(self.labels, minlength=len(self.class_names))

    def counts(self) -> dict[str, list[int]]:
        """Returns the number of images of each class by "labels", and by "majority" with votes."""
        counts = {"labels": self.class_counts().tolist()}
        if self.majority is not None:
            decided = self.majority[self.majority >= 0]
            counts["majority"] = torch.bincount(decided, minlength=len(self.class_names)).tolist()
        return counts

    def digest(self) -> str:
        """Returns 16 hex digits that change with any pixel, label, vote or class name."""
        state = hashlib.blake2b("\n".join(self.class_names).encode(), digest_size=8)
        for tensor in self.tensors().values():
            state.update(tensor.cpu().contiguous().numpy())
        return state.hexdigest()


def gray_levels(images: torch.Tensor) -> torch.Tensor:
    """Returns the grey levels of preprocessed images: float32 in [-1, 1] -> uint8, same shape."""
    return images.mul(127.5).add_(127.5).round_().to(torch.uint8)


def split_path(data_dir: str | os.PathLike, split: str) -> Path:
    """Returns the path of `split` ("train", "val" or "test") in `data_dir`."""
    return Path(data_dir) / f"{split}_data.pt"


@contextmanager
def new_split_files(
    data_dir: str | os.PathLike, splits: Iterable[str]
) -> Iterator[dict[str, Path]]:
    """Yields an empty file for each split; after the block all replace the old files together.

    A killed run never leaves splits of two runs side by side, which could have images in common.
    The old splits and their description `dataset.json` stay until the block has succeeded.

    Raises:
        UserError: a file cannot be written.
    """
    with ExitStack() as stack:
        files = {}
        for name in splits:
            path = split_path(data_dir, name)
            with naming_write_errors(path):
                files[name] = stack.enter_context(temporary_path(path))
        yield files
        description = Path(data_dir) / "dataset.json"
        with naming_write_errors(description):
            description.unlink(missing_ok=True)
        order = [name for name in reversed(SPLITS) if name in files]  # train, always needed, last
        replace_together([(files[name], split_path(data_dir, name)) for name in order])


def save_splits(splits: dict[str, Split], data_dir: str | os.PathLike) -> None:
    """Writes each split to its file in `data_dir`, as the data contract's dict.

    Equal splits give equal bytes.

    Raises:
        UserError: a file cannot be written.
    """
    with new_split_files(data_dir, splits) as files:
        for name, split in splits.items():
            tensors = split.tensors()
            images = tensors.pop("images")
            shape, parts = tuple(images.shape), images.split(PART)
            with naming_write_errors(split_path(data_dir, name)):
                write_split_file(files[name], parts, tensors, shape, split.class_names)


def load_split(data_dir: str | os.PathLike, split: str) -> Split:
    """Loads one split and checks it against the data contract.

    Raises:
        UserError: the file is missing or damaged, or has wrong keys, dtypes, shapes or values.
    """
    path = split_path(data_dir, split)
    remedy = f"make it with: {preparation_command(Path(data_dir))}"
    content = load_tensors(path, remedy, mmap=True)
    missing = [key for key in ("images", "labels", "class_names") if key not in content]
    fault = f"has no {' or '.join(missing)}" if missing else fault_of(content)
    if fault:
        raise UserError(f"{path}: {fault}; {remedy}")
    tensors = {key: content[key] for key in ("images", "labels", *OPTIONAL) if key in content}
    loaded = Split(class_names=tuple(content["class_names"]), **tensors)
    if loaded.majority is not None and loaded.agreement is None:  # agreement may be missing
        shown = (loaded.votes.amax(1) * RATERS).round().long()
        loaded = replace(loaded, agreement=shown.where(loaded.majority >= 0, 0))
    return loaded


def fault_of(content: dict) -> str | None:
    """Returns how a split file's content breaks the data contract; None if it does not."""
    images, names = content["images"], content["class_names"]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        return "class_names must be a list of strings"
    if not isinstance(images, torch.Tensor) or images.shape[1:] != (1, IMAGE_SIZE, IMAGE_SIZE):
        return f"images must be a tensor (N, 1, {IMAGE_SIZE}, {IMAGE_SIZE})"
    if len(images) == 0:
        return "holds no images"
    if ("votes" in content) != ("majority" in content):
        return "votes and majority must both be there, or neither"
    count, classes = len(images), len(names)
    for key, dtype, shape, low, high in (
        ("images", torch.float32, images.shape, -1, 1),
        ("labels", torch.int64, (count,), 0, classes - 1),
        ("votes", torch.float32, (count, classes), 0, 1),
        ("majority", torch.int64, (count,), -1, classes - 1),
        ("agreement", torch.int64, (count,), 0, RATERS),
    ):
        tensor = content.get(key)
        if tensor is None and key in OPTIONAL:
            continue
        if not isinstance(tensor, torch.Tensor):
            return f"{key} must be a tensor"
        if tensor.dtype != dtype or tensor.shape != shape:
            found = f"{tensor.dtype} {tuple(tensor.shape)}"
            return f"{key} is {found}, not {dtype} {tuple(shape)}, for {classes} classes"
        least, most = tensor.aminmax()
        if not (least >= low and most <= high):  # catches NaN too
            return f"{key} ranges from {least:g} to {most:g}, not within [{low}, {high}]"
    if "votes" in content:
        sums = content["votes"].sum(1)
        if not (sums.isclose(torch.ones(())) | (sums == 0)).all():
            return "a row of votes sums neither to 1 nor to 0"
    return None


def available_splits(data_dir: str | os.PathLike) -> list[str]:
    """Returns which of train, val and test are in `data_dir`."""
    return [split for split in SPLITS if os.path.lexists(split_path(data_dir, split))]


def load_splits(
    data_dir: Path,
    required: tuple[str, ...] = (),
    class_names: tuple[str, ...] | None = None,
    wanted: tuple[str, ...] = SPLITS,
) -> dict[str, Split]:
    """Loads every wanted split in `data_dir`, so that all faults are found before the work.

    Args:
        data_dir: folder of the split files.
        required: splits that must be there.
        class_names: what the classes must be; by default those of the first split.
        wanted: splits to load; no other file is opened.

    Raises:
        UserError: a required split is missing, one does not fit the others, or there is none.
    """
    there = {*available_splits(data_dir), *required}
    splits = {name: load_split(data_dir, name) for name in wanted if name in there}
    if not splits:
        raise UserError(f"{data_dir} has no split; make it with: {preparation_command(data_dir)}")
    first = next(iter(splits.values()))
    expected = class_names or first.class_names
    for name, split in splits.items():
        fault = None
        if split.class_names != expected:
            fault = f"has classes {', '.join(split.class_names)}; expected {', '.join(expected)}"
        elif (split.votes is None) != (first.votes is None):
            fault = "has votes and others have none, or the reverse"
        if fault:
            raise UserError(
                f"{split_path(data_dir, name)} {fault}; "
                f"make all splits anew with: {preparation_command(data_dir)}"
            )
    return splits
