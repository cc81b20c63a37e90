"""The data contract: class names, and split files on disk."""

import hashlib
import io
import os
import pickle
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from ferlab.constants import CLASS_NAMES as CLASS_NAMES
from ferlab.constants import IMAGE_SIZE
from ferlab.files import UserError, atomic_path

SPLITS = ("train", "val", "test")
PARTS_SEED = 0  # of what lies in which part of a split


@dataclass(frozen=True)
class Split:
    """One split in memory.

    Attributes:
        images: float32 `(N, 1, 48, 48)` in [-1, 1].
        labels: int64 `(N,)`, indices into `class_names`.
        class_names: the classes' names, alphabetical.
    """

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """Returns the split with its tensors on `device`."""
        return Split(self.images.to(device), self.labels.to(device), self.class_names)

    def take(self, rows: torch.Tensor) -> "Split":
        """Returns the split with the images that `rows` picks, indices or bool `(N,)`."""
        return Split(self.images[rows], self.labels[rows], self.class_names)

    def class_counts(self) -> torch.Tensor:
        """Returns int64 `(classes,)`: how many images each class has."""
        return torch.bincount(self.labels, minlength=len(self.class_names))

    def digest(self) -> str:
        """Returns 16 hex digits that change with any pixel, label or class name."""
        state = hashlib.blake2b("\n".join(self.class_names).encode(), digest_size=8)
        for tensor in (self.images, self.labels):
            state.update(tensor.cpu().contiguous().numpy())
        return state.hexdigest()


def rows_of_part(part: str, count: int) -> torch.Tensor:
    """Returns which of `count` images a part of a split holds: bool `(count,)`.

    The parts "1/n" to "n/n" share the images out by chance, the same way each time.

    Args:
        part: such as "2/5", the second of five.
        count: images in the split.
    """
    number, parts = map(int, part.split("/"))
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(PARTS_SEED))
    inside = torch.zeros(count, dtype=torch.bool)
    inside[drawn[number - 1 :: parts]] = True
    return inside


def gray_levels(images: torch.Tensor) -> torch.Tensor:
    """Returns the grey levels of preprocessed images: float32 in [-1, 1] -> uint8, same shape."""
    return images.mul(127.5).add_(127.5).round_().to(torch.uint8)


def split_path(data_dir: str | os.PathLike, split: str) -> Path:
    """Returns where `split` ("train", "val" or "test") lies below `data_dir`."""
    return Path(data_dir) / f"{split}_data.pt"


def save_splits(splits: dict[str, Split], data_dir: str | os.PathLike) -> None:
    """Writes each split to its file below `data_dir`, as the data contract's dict.

    All are written before the first takes its place: a run that is killed leaves no splits of two
    runs side by side, which could share faces. Equal splits give equal bytes.

    Raises:
        UserError: a file cannot be written.
    """
    with ExitStack() as written:
        for name, split in splits.items():
            temporary = written.enter_context(atomic_path(split_path(data_dir, name)))
            content = {
                "images": split.images.contiguous(),
                "labels": split.labels.contiguous(),
                "class_names": list(split.class_names),
            }
            temporary.write_bytes(serialised(content))


def save_tensors(content: dict, path: str | os.PathLike) -> None:
    """Writes `content` as `serialised` to `path`, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(serialised(content))


def serialised(content: dict) -> memoryview:
    """Returns what `torch.save` makes of `content`; the bytes don't depend on a file's name."""
    buffer = io.BytesIO()  # a full disk is then an OSError, not a RuntimeError of torch's writer
    torch.save(content, buffer)
    return buffer.getbuffer()


def load_tensors(path: Path, remedy: str, mmap: bool = False) -> dict:
    """Returns the dict that `save_tensors` wrote, on the CPU.

    Args:
        path: the file.
        remedy: what a person can do if the file is missing or broken, as the end of a sentence.
        mmap: maps the tensors from disk instead of reading them.

    Raises:
        UserError: the file is missing, unreadable, truncated or not such a dict.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged or not a file of this project; {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a file of this project; {remedy}")
    return content


def load_split(data_dir: str | os.PathLike, split: str) -> Split:
    """Loads one split and checks it against the data contract.

    Raises:
        UserError: missing or damaged file, wrong keys, dtypes, shapes, value or label range.
    """
    path = split_path(data_dir, split)
    remedy = "make it with: python dataset_preparation.py"
    content = load_tensors(path, remedy, mmap=True)

    def refuse(what: str) -> None:
        raise UserError(f"{path}: {what}; {remedy}")

    missing = [key for key in ("images", "labels", "class_names") if key not in content]
    if missing:
        refuse(f"has no {' or '.join(missing)}")
    images, labels, names = (content[key] for key in ("images", "labels", "class_names"))
    if not isinstance(images, torch.Tensor) or not isinstance(labels, torch.Tensor):
        refuse("images and labels must be tensors")
    if images.dtype != torch.float32 or images.shape[1:] != (1, IMAGE_SIZE, IMAGE_SIZE):
        refuse(
            f"images are {images.dtype} {tuple(images.shape)}, "
            f"not torch.float32 (N, 1, {IMAGE_SIZE}, {IMAGE_SIZE})"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        refuse(f"labels are {labels.dtype} {tuple(labels.shape)}, not torch.int64 ({len(images)},)")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        refuse("class_names must be a list of strings")
    if len(labels) == 0:
        refuse("holds no images")
    if labels.min() < 0 or labels.max() >= len(names):
        refuse(f"labels range from {labels.min()} to {labels.max()} for {len(names)} classes")
    low, high = images.aminmax()
    if not (low >= -1.0 and high <= 1.0):  # also catches NaN
        refuse(f"pixels range from {low:g} to {high:g}, not within [-1, 1]")
    return Split(images, labels, tuple(names))


def available_splits(data_dir: str | os.PathLike) -> list[str]:
    """Returns which of train, val and test lie below `data_dir`."""
    return [split for split in SPLITS if split_path(data_dir, split).is_file()]
