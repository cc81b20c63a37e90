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
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from ferlab import cli
from ferlab.constants import CLASS_NAMES, IMAGE_SIZE, MEAN, STD
from ferlab.data.images import Pictures, find_splits, list_files, read_split
from ferlab.data.splits import SPLITS, Split, gray_levels, save_splits, split_path
from ferlab.files import UserError, require_writable, write_text

VAL_SHARE_OF_TRAIN = 0.1  # where the dataset has no validation folder
TEST_SHARE_OF_VAL = 0.5  # where the dataset has no test folder


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
    return [row.tobytes() for row in gray_levels(pictures.images).numpy()]


def remove_duplicates(splits: dict[str, Pictures], keep: bool) -> tuple[dict[str, Pictures], dict]:
    """Takes pictures out of train that stand in val or test, and out of val that stand in test.

    Args:
        splits: the pictures of each split.
        keep: report only, remove nothing.

    Returns:
        The splits, and a report: how many were removed from each split, how many copies stand
        within one split, how many pictures of val and test stood in train too, and the groups of
        identical pictures whose labels differ.
    """
    names: dict[bytes, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    seen: set[bytes] = set()
    result, removed, within, in_train = {}, {}, {}, {}
    all_keys = {split: pixel_keys(pictures) for split, pictures in splits.items()}
    train_keys = set(all_keys.get("train", ()))
    for split in reversed([name for name in SPLITS if name in splits]):
        pictures, keys = splits[split], all_keys[split]
        for key, label, file in zip(keys, pictures.labels.tolist(), pictures.files, strict=True):
            names[key][label].append(file)
        fresh = [row for row, key in enumerate(keys) if keep or key not in seen]
        result[split] = pictures[fresh]
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
    for split, count in duplicates["in_train"].items():
        images = splits[split]["images"]
        kept = "also stand in train" if duplicates["kept"] else "stood in train too"
        lines.append(f"  {count:,} of {split}'s {images:,} pictures {kept} ({count / images:.1%})")
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
        "--data-dir", type=Path, default=cli.DATA_DIR, help="where the splits are written"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, help="of the val/test split")
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
    save_splits(splits, args.data_dir)
    write_text(args.data_dir / "dataset.json", json.dumps(description, indent=2) + "\n")
    print(summary(description))
    other = args.data_dir != cli.DATA_DIR  # then its results must not go over the committed ones
    results_dir = cli.RESULTS_DIR / args.data_dir.name if other else cli.RESULTS_DIR
    following = cli.stage_command("baseline.py", args.data_dir, results_dir)
    print(f"wrote {args.data_dir}; next: {following}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
