"""Turns folders of face pictures into the tensor files every other script reads.

    python dataset_preparation.py
    python dataset_preparation.py --source data/sample --data-dir processed_data/sample

Reads Kaggle's layout (`images/train/<class>/*.jpg`, `images/validation/...`, and `test/` where
there is one; the nested second copy `images/images/` is left alone), any picture format and size,
and writes `train_data.pt`, `val_data.pt`, `test_data.pt` and `dataset.json`. Without `test/`, a
stratified half of the validation pictures becomes the test split; without `validation/`, a
tenth of train becomes the val split. Pictures with identical pixels never stand in two splits.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from ferlab import cli
from ferlab.data import (
    CLASS_NAMES,
    IMAGE_SIZE,
    MEAN,
    SPLITS,
    STD,
    Split,
    preprocess,
    save_split,
    split_path,
)
from ferlab.files import UserError, require_writable, write_text

FOLDERS = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}
EXTENSIONS = frozenset(Image.registered_extensions())
BATCH = 512  # pictures preprocessed at once
VAL_SHARE_OF_TRAIN = 0.1  # where the dataset has no validation folder
TEST_SHARE_OF_VAL = 0.5  # where the dataset has no test folder


@dataclass(frozen=True)
class Pictures:
    """The readable pictures of one split, in file order.

    Attributes:
        files: N paths, relative to the dataset.
        images: float32 `(N, 1, 48, 48)` in [-1, 1].
        labels: int64 `(N,)`, indices into CLASS_NAMES.
    """

    files: np.ndarray
    images: torch.Tensor
    labels: torch.Tensor

    def __getitem__(self, index: Sequence[int] | np.ndarray) -> "Pictures":
        index = np.asarray(index, dtype=np.int64)
        rows = torch.from_numpy(index)
        return Pictures(self.files[index], self.images[rows], self.labels[rows])


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
    """Returns the picture files below a split's class folders with their labels, in number order.

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
    """Returns a picture as uint8 `(1 or 3, H, W)`, upright, its first frame if it has several.

    Raises:
        OSError, SyntaxError, ValueError: it cannot be read.
    """
    with Image.open(path) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode.startswith("I"):  # 16 bits a pixel: keep the upper eight
            picture = Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
        elif picture.mode != "L":
            picture = picture.convert("L" if picture.mode in ("1", "LA") else "RGB")
        pixels = np.array(picture)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def read_split(folder: Path, source: Path, progress: tqdm) -> tuple[Pictures, list[dict]]:
    """Reads and preprocesses a split's pictures.

    Returns:
        The usable pictures, and one `{"file", "reason"}` for each that was skipped.

    Raises:
        UserError: wrong class folders, or a class without a usable picture.
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
            reason = "not a picture" if unknown else f"unreadable: {error}"
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
        raise UserError(f"{folder}: no usable picture in {', '.join(empty)}")
    files = np.array([name for name, _ in kept], dtype=object)
    return Pictures(files, torch.cat(batches), labels), skipped


def carve(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
    """Splits pictures into a remainder and a stratified, seeded `share` of them.

    Raises:
        UserError: a class has too few pictures to stand on both sides.
    """
    try:
        rest, carved = train_test_split(
            np.arange(len(pictures.labels)),
            test_size=share,
            stratify=pictures.labels.numpy(),
            random_state=seed,
        )
    except ValueError as error:
        raise UserError(f"too few pictures of a class to split them: {error}") from error
    return pictures[np.sort(rest)], pictures[np.sort(carved)]


def pixel_keys(pictures: Pictures) -> list[bytes]:
    """Returns each picture's pixels as a hashable key: equal keys, equal pictures."""
    grey = pictures.images.mul(127.5).add_(127.5).round_().to(torch.uint8)
    return [row.tobytes() for row in grey.numpy()]


def remove_duplicates(splits: dict[str, Pictures], keep: bool) -> tuple[dict[str, Pictures], dict]:
    """Takes pictures out of train that stand in val or test, and out of val that stand in test.

    Args:
        splits: the pictures of each split.
        keep: report only, remove nothing.

    Returns:
        The splits, and a report: how many were removed from each split, how many copies stand
        within one split, and the groups of identical pictures whose labels differ.
    """
    names: dict[bytes, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    seen: set[bytes] = set()
    result, removed, within = {}, {}, {}
    for split in reversed([name for name in SPLITS if name in splits]):
        pictures, keys = splits[split], pixel_keys(splits[split])
        for key, label, file in zip(keys, pictures.labels.tolist(), pictures.files, strict=True):
            names[key][label].append(file)
        fresh = [row for row, key in enumerate(keys) if keep or key not in seen]
        result[split] = pictures[fresh]
        removed[split] = len(keys) - len(fresh)
        within[split] = len(fresh) - len({keys[row] for row in fresh})
        seen.update(keys)
    conflicts = [
        {CLASS_NAMES[label]: files for label, files in sorted(by_label.items())}
        for by_label in names.values()
        if len(by_label) > 1
    ]
    report = {"kept": keep, "removed": removed, "within_split": within, "conflicts": conflicts}
    return {split: result[split] for split in SPLITS if split in result}, report


def prepare(source: Path, seed: int, keep_duplicates: bool, quiet: bool) -> tuple[dict, dict]:
    """Reads a dataset and returns its splits as `{name: Split}` and the content of dataset.json.

    Raises:
        UserError: see `find_splits`, `read_split`, `carve`.
    """
    folders = find_splits(source)
    total = sum(len(list_files(folder)) for folder in folders.values())
    splits: dict[str, Pictures] = {}
    skipped: list[dict] = []
    with tqdm(total=total, unit="image", desc="reading", disable=quiet) as progress:
        for split, folder in folders.items():
            splits[split], faults = read_split(folder, source, progress)
            skipped += faults
    if "val" in splits and "test" not in splits:
        splits["val"], splits["test"] = carve(splits["val"], TEST_SHARE_OF_VAL, seed)
    elif "train" in splits and "val" not in splits:
        splits["train"], splits["val"] = carve(splits["train"], VAL_SHARE_OF_TRAIN, seed)
    splits, duplicates = remove_duplicates(splits, keep_duplicates)

    tensors = {name: Split(p.images, p.labels, CLASS_NAMES) for name, p in splits.items()}
    description = {
        "source": source.as_posix(),
        "seed": seed,
        "class_names": list(CLASS_NAMES),
        "image_size": IMAGE_SIZE,
        "normalisation": {"mean": MEAN, "std": STD, "of": "gray / 255"},
        "splits": {
            name: {
                "images": len(split),
                "classes": dict(zip(CLASS_NAMES, split.class_counts().tolist(), strict=True)),
                "digest": split.digest(),
            }
            for name, split in tensors.items()
        },
        "skipped": skipped,
        "duplicates": duplicates,
    }
    return tensors, description


def summary(description: dict) -> str:
    """Returns the counts of dataset.json as the lines a person reads."""
    splits = description["splits"]
    lines = ["".join([f"{'class':10}", *(f"{name:>8}" for name in splits)])]
    for name in CLASS_NAMES:
        lines.append(f"{name:10}" + "".join(f"{s['classes'][name]:8,}" for s in splits.values()))
    lines.append(f"{'all':10}" + "".join(f"{s['images']:8,}" for s in splits.values()))
    duplicates = description["duplicates"]
    removed = ", ".join(f"{n} from {split}" for split, n in duplicates["removed"].items() if n)
    standing = "left in two splits" if duplicates["kept"] else removed or "none"
    lines.append(f"copies across splits removed: {standing}")
    lines.append(f"identical pictures with different labels: {len(duplicates['conflicts'])} groups")
    lines.append(f"skipped: {len(description['skipped'])} pictures")
    lines += [f"  {entry['file']}: {entry['reason']}" for entry in description["skipped"][:10]]
    if len(description["skipped"]) > 10:
        lines.append("  ... all are listed in dataset.json")
    return "\n".join(lines)


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--source",
        type=Path,
        default=Path("data/face-expression-recognition-dataset"),
        help="the dataset's folder",
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("processed_data"), help="where the splits are written"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the val/test split")
    parser.add_argument(
        "--keep-duplicates", action="store_true", help="let identical pictures stand in two splits"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args(argv)

    require_writable(args.data_dir)
    splits, description = prepare(args.source, args.seed, args.keep_duplicates, args.quiet)
    stale = [split_path(args.data_dir, s) for s in SPLITS if s not in splits]
    for path in stale:
        if path.exists():
            raise UserError(
                f"{args.source} has no such split, but {path} is there; choose another --data-dir"
            )
    for name, split in splits.items():
        save_split(split, split_path(args.data_dir, name))
    write_text(args.data_dir / "dataset.json", json.dumps(description, indent=2) + "\n")
    print(summary(description))
    print(f"wrote {args.data_dir}; next: python baseline.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
