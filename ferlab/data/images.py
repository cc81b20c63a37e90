"""Image files of a dataset with a folder for each class: finding, reading, preprocessing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ferlab.data.preprocessing import preprocess
from ferlab.data.splits import CLASS_NAMES
from ferlab.files import UserError

FOLDERS = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}
EXTENSIONS = frozenset(Image.registered_extensions())
BATCH = 512  # images preprocessed at once


@dataclass(frozen=True)
class Images:
    """The readable images of one split, in file order.

    Attributes:
        files: N paths, relative to the dataset.
        images: float32 `(N, 1, 48, 48)` in [-1, 1].
        labels: int64 `(N,)`, indices into CLASS_NAMES.
    """

    files: np.ndarray
    images: torch.Tensor
    labels: torch.Tensor

    def __getitem__(self, index: Sequence[int] | np.ndarray) -> "Images":
        index = np.asarray(index, dtype=np.int64)
        rows = torch.from_numpy(index)
        return Images(self.files[index], self.images[rows], self.labels[rows])


def find_splits(source: Path) -> dict[str, Path]:
    """Returns the folder of each split the dataset has.

    Raises:
        UserError: no dataset at `source`, or neither `train` nor `test` in it.
    """
    if not source.is_dir():
        raise UserError(f"{source} is missing; get it with: python download_dataset.py")
    for root in (source, source / "images"):
        found = {}
        for split, names in FOLDERS.items():
            for name in names:
                if (root / name).is_dir():
                    found.setdefault(split, root / name)
        if "train" in found and len(found) == 1:
            raise UserError(f"{root} has train/ but neither validation/ nor test/ beside it")
        if "train" in found or "test" in found:
            return found
    raise UserError(
        f"{source} has no train/ folder, nor has {source / 'images'}; "
        "name the dataset's folder with --source, or get it with: python download_dataset.py"
    )


def list_files(folder: Path) -> list[tuple[Path, int]]:
    """Returns the image files below a split's class folders with their labels, in number order.

    Raises:
        UserError: the class folders are not just those of CLASS_NAMES.
    """
    classes = {
        path.name.lower(): path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__"))
    }
    unknown, missing = set(classes) - set(CLASS_NAMES), set(CLASS_NAMES) - set(classes)
    if unknown or missing:
        faults = [
            f"{word} {', '.join(sorted(names))}"
            for word, names in (("unknown", unknown), ("missing", missing))
            if names
        ]
        raise UserError(
            f"{folder}: class folders {' and '.join(faults)}; expected {', '.join(CLASS_NAMES)}"
        )
    return [
        (path, label)
        for label, name in enumerate(CLASS_NAMES)
        for path in sorted(classes[name].iterdir(), key=_number_order)
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    ]


def _number_order(path: Path) -> list[tuple[int, int, str]]:
    """Sorts 2.jpg before 10.jpg."""
    parts = re.findall(r"(\d+)|(\D+)", path.name)
    return [(0, int(number), "") if number else (1, 0, text) for number, text in parts]


def read_pixels(path: Path) -> torch.Tensor:
    """Returns an image as uint8 `(1 or 3, H, W)`, upright, its first frame if it has several.

    Raises:
        OSError, SyntaxError, ValueError: it cannot be read.
    """
    with Image.open(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):  # 16 bits a pixel: keep the upper eight
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        elif image.mode != "L":
            image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
        pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def read_split(folder: Path, source: Path, progress: tqdm) -> tuple[Images, list[dict]]:
    """Reads and preprocesses a split's images.

    Returns:
        The usable images, and one `{"file", "reason"}` for each that was skipped.

    Raises:
        UserError: wrong class folders, or a class without a usable image.
    """
    kept, batches, skipped = [], [], []
    pending: list[tuple[str, int, torch.Tensor]] = []  # all of one shape

    def flush() -> None:
        images = preprocess(torch.stack([pixels for _, _, pixels in pending]))
        flat = images.flatten(1)
        varied = flat.amin(1) < flat.amax(1)
        batches.append(images[varied])
        for (name, label, _), usable in zip(pending, varied.tolist(), strict=True):
            if usable:
                kept.append((name, label))
            else:
                skipped.append({"file": name, "reason": "all pixels are equal"})
        pending.clear()

    for path, label in list_files(folder):
        progress.update()
        name = path.relative_to(source).as_posix()
        try:
            pixels = read_pixels(path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            unknown = isinstance(error, UnidentifiedImageError)
            reason = "not an image" if unknown else f"unreadable: {error}"
            skipped.append({"file": name, "reason": reason})
            continue
        if pending and (len(pending) == BATCH or pixels.shape != pending[0][2].shape):
            flush()
        pending.append((name, label, pixels))
    if pending:
        flush()

    labels = torch.tensor([label for _, label in kept], dtype=torch.int64)
    counts = torch.bincount(labels, minlength=len(CLASS_NAMES)).tolist()
    empty = [name for name, count in zip(CLASS_NAMES, counts, strict=True) if count == 0]
    if empty:
        raise UserError(f"{folder}: no usable image in {', '.join(empty)}")
    files = np.array([name for name, _ in kept], dtype=object)
    return Images(files, torch.cat(batches), labels), skipped
