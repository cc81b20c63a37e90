"""Turns a dataset of faces into the tensor files that every other script reads.

    python dataset_preparation.py
    python dataset_preparation.py --source fer2013.csv --data-dir processed_data/csv
    python dataset_preparation.py --source data/sample --data-dir processed_data/sample

Takes folders of classes, within train/validation/test or without, fer2013.csv, CSVs of paths and
labels, RAF-DB, AffectNet, CK+, FER+, and any image format and size; docs/data.md has the table.
Prints what it understood before the work. A dataset that can be understood in two ways is refused,
with the name of the flag that decides. Writes `train_data.pt`, `val_data.pt`, `test_data.pt` and
`dataset.json`.

Splits that the dataset lacks are drawn, stratified: without `test/`, half of the validation images
becomes test; without validation images, a tenth of train becomes val; without splits, a tenth
becomes test and a tenth of the rest val. Images with identical pixels are never in two splits.

The votes of FER+'s ten raters are added from `data/fer2013new.csv`. It has the rows of fer2013.csv;
in Kaggle's folders, an image's file name is its row. Takes 5 s on two CPU cores. The same command
continues a run that was killed. On three machines, `--shard 1/3`, `--shard 2/3` and `--shard 3/3`
read a part each; the command without `--shard` joins the parts (docs/scaling.md).
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from ferlab import cli, entry
from ferlab.commands import stage_command
from ferlab.constants import FORMS
from ferlab.files import require_writable, write_text

SOURCE = Path("data/face-expression-recognition-dataset")
VOTES = Path("data/fer2013new.csv")
SHOWN = 10  # files that are listed on the screen


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    result = cli.parser(__doc__)
    add = result.add_argument
    add("--source", type=Path, default=SOURCE, help="folder of the dataset, or its CSV")
    add("--data-dir", type=Path, default=cli.DATA_DIR, help="folder where the splits are written")
    add(
        "--class-map",
        metavar="MAP",
        help="what the dataset's class names stand for: an order of numbers (fer2013, raf-db, "
        "affectnet, fer+, ck+, ck+csv); pairs as joyful=happy,tired=, which leaves tired out; or "
        "the names in the order of the numbers",
    )
    add(
        "--classes",
        metavar="NAMES",
        help="classes to keep, separated by commas (default: all)",
    )
    add("--layout", choices=FORMS, help="form to read, if the source has several")
    votes = result.add_mutually_exclusive_group()
    votes.add_argument(
        "--votes",
        type=Path,
        metavar="FILE",
        help=f"FER+'s table of votes (default: {VOTES.as_posix()}, if it exists, for the default "
        "--source and for fer2013.csv)",
    )
    votes.add_argument("--no-votes", action="store_true", help="prepare the labels alone")
    add("--seed", type=cli.seed, default=0, help="seed of the split into val and test")
    add("--keep-duplicates", action="store_true", help="keep identical images in two splits")
    add(
        "--shard",
        type=cli.part,
        metavar="K/N",
        help="read only part K of N, into parts/ in --data-dir, on one of N machines; the command "
        "without --shard then joins the parts",
    )
    add("--quiet", action="store_true", help="no progress bar")
    return result


if __name__ == "__main__":
    entry.before_imports(parser())  # torch takes seconds to import

from ferlab.data.layouts import Layout, find_layout
from ferlab.data.preparation import PARTS, prepare, prepare_part
from ferlab.data.votes import ROWS, mostly_rows


def chosen_votes(args: argparse.Namespace, layout: Layout) -> Path | None:
    """Returns the table of votes that the flags ask for; None for no votes.

    Without a flag, the downloaded table is used for the downloaded dataset, if its files are named
    by their rows, and for a CSV that has all rows of fer2013.csv.
    """
    if args.no_votes or args.votes:
        return args.votes
    whole = layout.table is not None and layout.rows == ROWS
    named = args.source == SOURCE and mostly_rows(layout.names)
    return VOTES if (named or whole) and VOTES.is_file() else None


def understood(layout: Layout) -> str:
    """Returns the lines that are printed about the source."""
    renamed = [f"{a} -> {b or 'none'}" for a, b in layout.class_map.items() if a != b]
    images = ", ".join(f"{name} {len(rows):,}" for name, rows in layout.splits.items())
    lines = [
        f"found: {layout.form}, in {layout.root}",
        f"  classes: {', '.join(layout.class_names)}",
        *([f"  class map: {', '.join(renamed)}"] if renamed else []),
        f"  files: {images}" + (" (without splits)" if "all" in layout.splits else ""),
        *(f"  left out: {count:,} {reason}" for reason, count in layout.left_out.items()),
    ]
    return "\n".join(lines)


def summary(description: dict) -> str:
    """Returns the lines that are printed about the counts in dataset.json."""
    splits = description["splits"]
    lines = ["".join([f"{'class':10}", *(f"{name:>8}" for name in splits)])]
    for name in description["class_names"]:
        lines.append(f"{name:10}" + "".join(f"{s['classes'][name]:8,}" for s in splits.values()))
    lines.append(f"{'all':10}" + "".join(f"{s['images']:8,}" for s in splits.values()))
    duplicates = description["duplicates"]
    counted = ", ".join(f"{n} from {split}" for split, n in duplicates["removed"].items() if n)
    removed = "none, as --keep-duplicates asks" if duplicates["kept"] else counted or "none"
    lines.append(f"duplicates across splits removed: {removed}")
    for split, count in duplicates["in_train"].items():
        images, verb = splits[split]["images"], "are" if duplicates["kept"] else "were"
        lines.append(
            f"  {count:,} of the {images:,} images of {split} {verb} also in train"
            f" ({count / images:.1%})"
        )
    lines.append(f"identical images with different labels: {len(duplicates['conflicts'])} groups")
    skipped = description["skipped"]
    reasons = Counter(file["reason"].split(":")[0] for file in skipped)
    counted = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    lines.append(f"files left out: {counted or 'none'}")
    lines += [f"  {file['file']}: {file['reason']}" for file in skipped[:SHOWN]]
    if len(skipped) > SHOWN:
        lines.append("  ... all are listed in dataset.json")
    return "\n".join([*lines, *votes_summary(description["votes"])])


def votes_summary(report: dict | None) -> list[str]:
    """Returns the lines that are printed about the votes."""
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


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    args = parser().parse_args(argv)
    require_writable(args.data_dir)
    layout = find_layout(args.source, args.class_map, args.classes, args.layout)
    print(understood(layout), flush=True)
    if args.shard:
        print(prepare_part(layout, args.data_dir, args.shard, args.quiet))
        return 0
    description = prepare(
        layout,
        args.data_dir,
        chosen_votes(args, layout),
        args.seed,
        args.keep_duplicates,
        args.quiet,
    )
    source = {"source": args.source.as_posix(), "layout": layout.description()}
    text = json.dumps(source | description, indent=2)
    write_text(args.data_dir / "dataset.json", text + "\n")
    print(summary(description))
    if (parts := args.data_dir / PARTS).is_dir():
        print(f"{parts} can be removed; while it is there, no image is read again")
    other = args.data_dir != cli.DATA_DIR  # results of other data go to a folder of their own
    results_dir = cli.RESULTS_DIR / args.data_dir.name if other else cli.RESULTS_DIR
    following = stage_command("baseline.py", data_dir=args.data_dir, results_dir=results_dir)
    print(f"wrote {args.data_dir}; next: {following}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
