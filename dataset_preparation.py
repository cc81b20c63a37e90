"""Turns folders of face images into the tensor files that every other script reads.

    python dataset_preparation.py
    python dataset_preparation.py --source data/sample --data-dir processed_data/sample

Reads Kaggle's layout (`images/train/<class>/*.jpg`, `images/validation/...`, and `test/` where
there is one; the nested second copy `images/images/` is not read), any image format and size, and
writes `train_data.pt`, `val_data.pt`, `test_data.pt` and `dataset.json`. Without `test/`, a
stratified half of the validation images becomes the test split; without `validation/`, a tenth of
train becomes the val split. Images with identical pixels are never in two splits.

The votes of FER+'s ten raters on each image are added from `data/fer2013new.csv`, by the number
that is the image's file name. Takes 15 s on two CPU cores.
"""

import argparse
import json
import sys
from dataclasses import astuple
from pathlib import Path

from ferlab import cli
from ferlab.commands import stage_command
from ferlab.files import UserError, require_writable, write_text

SOURCE = Path("data/face-expression-recognition-dataset")
VOTES = Path("data/fer2013new.csv")
SHOWN = 10  # lines of a list on the screen
VAL_FRACTION_OF_TRAIN = 0.1  # where the dataset has no validation folder
TEST_FRACTION_OF_VAL = 0.5  # where the dataset has no test folder


def chosen_votes(args: argparse.Namespace) -> Path | None:
    """Returns the table that the flags ask for: by default the downloaded one, if it is there."""
    if args.no_votes or args.votes:
        return args.votes
    return VOTES if args.source == SOURCE and VOTES.is_file() else None


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    result = cli.parser(__doc__)
    add = result.add_argument
    add("--source", type=Path, default=SOURCE, help="folder of the dataset")
    add("--data-dir", type=Path, default=cli.DATA_DIR, help="folder where the splits are written")
    votes = result.add_mutually_exclusive_group()
    votes.add_argument(
        "--votes",
        type=Path,
        metavar="FILE",
        help=f"FER+'s table of votes (default: {VOTES.as_posix()}, where it is there and --source "
        "is not given)",
    )
    votes.add_argument("--no-votes", action="store_true", help="prepare the labels alone")
    add("--seed", type=cli.seed, default=0, help="seed of the split into val and test")
    add("--keep-duplicates", action="store_true", help="keep identical images in two splits")
    add("--quiet", action="store_true", help="no progress bar")
    return result


if __name__ == "__main__":
    cli.before_imports(parser())  # torch takes seconds to import

import numpy as np
import torch
from tqdm import tqdm

from ferlab.constants import CLASS_NAMES, IMAGE_SIZE, MEAN, STD
from ferlab.data.images import Images, find_splits, list_files, read_split
from ferlab.data.partition import carve, remove_duplicates
from ferlab.data.splits import SPLITS, Split, save_splits, split_path
from ferlab.data.votes import Votes, read_table, require_aligned, row_numbers, sha256, summarise


def add_votes(splits: dict[str, Images], path: Path) -> tuple[dict[str, Split], dict]:
    """Looks up the raters' votes on each image, and leaves images of no face out of train.

    Args:
        splits: the images of each split, whose files are named by their row of fer2013.csv.
        path: FER+'s table.

    Returns:
        The splits with votes, and the report that dataset.json holds.

    Raises:
        UserError: the table is damaged, or is not of these images.
    """
    table = read_table(path)
    votes = {name: summarise(table[row_numbers(part.files)]) for name, part in splits.items()}
    columns = zip(*map(astuple, votes.values()), strict=True)
    together = Votes(*map(np.concatenate, columns))
    labels = np.concatenate([part.labels.numpy() for part in splits.values()])
    agreement = require_aligned(together, labels, path)
    result, left_out = {}, []
    for name, part in splits.items():
        found = votes[name]
        tensors = map(torch.from_numpy, (found.votes, found.majority, found.agreement))
        result[name] = Split(part.images, part.labels, CLASS_NAMES, *tensors)
        if name == "train":
            left_out = part.files[found.no_face].tolist()
            result[name] = result[name].take(torch.from_numpy(~found.no_face))
    report = {
        "file": path.as_posix(),
        "sha256": sha256(path),
        "label_agrees_with_majority": round(agreement, 4),
        "no_face_left_out_of_train": left_out,
        "splits": {
            name: {
                "majority": int((split.majority >= 0).sum()),
                "contempt": int(((split.majority < 0) & (split.agreement > 0)).sum()),
            }
            for name, split in result.items()
        },
    }
    return result, report


def prepare(
    source: Path, votes: Path | None, seed: int, keep_duplicates: bool, quiet: bool
) -> tuple[dict, dict]:
    """Reads a dataset and returns its splits as `{name: Split}` and the content of dataset.json.

    Raises:
        UserError: see `find_splits`, `read_split`, `carve`, `add_votes`.
    """
    folders = find_splits(source)
    total = sum(len(list_files(folder)) for folder in folders.values())
    splits: dict[str, Images] = {}
    skipped: list[dict] = []
    with tqdm(total=total, unit="image", desc="reading", disable=quiet) as progress:
        for split, folder in folders.items():
            splits[split], faults = read_split(folder, source, progress)
            skipped += faults
    if "val" in splits and "test" not in splits:
        splits["val"], splits["test"] = carve(splits["val"], TEST_FRACTION_OF_VAL, seed)
    elif "train" in splits and "val" not in splits:
        splits["train"], splits["val"] = carve(splits["train"], VAL_FRACTION_OF_TRAIN, seed)
    splits, duplicates = remove_duplicates(splits, keep_duplicates)

    votes_report = None
    if votes:
        tensors, votes_report = add_votes(splits, votes)
    else:
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
        "votes": votes_report,
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
    lines.append(f"duplicates across splits removed: {standing}")
    for split, count in duplicates["in_train"].items():
        images, verb = splits[split]["images"], "are" if duplicates["kept"] else "were"
        lines.append(
            f"  {count:,} of the {images:,} images of {split} {verb} also in train"
            f" ({count / images:.1%})"
        )
    lines.append(f"identical images with different labels: {len(duplicates['conflicts'])} groups")
    lines.append(f"skipped: {len(description['skipped'])} images")
    lines += [f"  {entry['file']}: {entry['reason']}" for entry in description["skipped"][:SHOWN]]
    if len(description["skipped"]) > SHOWN:
        lines.append("  ... all are listed in dataset.json")
    return "\n".join([*lines, *votes_summary(description["votes"])])


def votes_summary(report: dict | None) -> list[str]:
    """Returns what is printed about the votes."""
    if report is None:
        return ["votes: none; models are trained on and judged by the labels alone"]
    no_face = report["no_face_left_out_of_train"]
    counts = ", ".join(f"{name} {split['majority']:,}" for name, split in report["splits"].items())
    return [
        f"votes: {report['file']}; images with a majority for one of the classes: {counts}",
        f"  the label agrees with it on {report['label_agrees_with_majority']:.1%} of them",
        f"  left out of train, as most raters see no face: {len(no_face)} images",
        *(f"    {file}" for file in no_face[:SHOWN]),
    ]


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    require_writable(args.data_dir)
    splits, description = prepare(
        args.source, chosen_votes(args), args.seed, args.keep_duplicates, args.quiet
    )
    stale = [split_path(args.data_dir, s) for s in SPLITS if s not in splits]
    for path in stale:
        if path.exists():
            raise UserError(
                f"{args.source} has no such split, but {path} is there; choose another --data-dir"
            )
    save_splits(splits, args.data_dir)
    write_text(args.data_dir / "dataset.json", json.dumps(description, indent=2) + "\n")
    print(summary(description))
    other = args.data_dir != cli.DATA_DIR  # results of other data go to a folder of their own
    results_dir = cli.RESULTS_DIR / args.data_dir.name if other else cli.RESULTS_DIR
    following = stage_command("baseline.py", data_dir=args.data_dir, results_dir=results_dir)
    print(f"wrote {args.data_dir}; next: {following}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
