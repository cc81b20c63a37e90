"""How accuracy grows with the number of training images: softmax regression, MLP and CNN.

    python benchmarks/learning_curve.py
    python benchmarks/learning_curve.py --fractions 0.25 1 --models softmax basic_nn

Trains the models' scripts (the CNN with --preset quick) on nested parts of train, stratified by the
labels, and judges them on val; test is never read. A part f is trained for 1/sqrt(f) times as many
epochs as the whole: with equal epochs small parts have too few steps to converge, and with equal
steps each part takes as long as the whole. Models of the whole train split are not trained where
--reference has their results with the same recipe and the same val. What is in --results-dir is not
trained again, and a run that was stopped continues. Further flags go to all scripts. Writes
`learning_curve.csv` and `explain_learning.png` to --results-dir.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferlab import cli, entry
from ferlab.constants import REFERENCE_DIR, ROOT

MODELS = {"softmax": [], "basic_nn": [], "advanced": ["--preset", "quick"]}  # and their flags
COLUMNS = (
    "model", "fraction", "images", "epochs", "labels", "labels_low", "labels_high", "raters",
    "raters_low", "raters_high", "seconds",
)  # fmt: skip


def part(text: str) -> float:
    """An argparse type: a number above 0, at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError
    return value


def parser() -> argparse.ArgumentParser:
    """Returns the benchmark's own flags."""
    result = cli.parser(__doc__)
    add = result.add_argument
    add("--data-dir", type=Path, default=cli.DATA_DIR, help="folder of the split files")
    folder = cli.RESULTS_DIR / "learning_curve"
    add("--results-dir", type=Path, default=folder, help="folder of what is written")
    add(
        "--reference",
        type=Path,
        help="results on the whole train split (default: reference, with --targets votes "
        "reference/votes)",
    )
    add("--targets", choices=cli.TARGETS, default="votes", help="what is trained on")
    parts = [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]
    add("--fractions", type=part, nargs="+", default=parts, help="parts of train to train on")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="models to train")
    add("--quiet", action="store_true", help="no progress bars, no epoch lines")
    return result


if __name__ == "__main__":
    entry.before_imports(parser(), known=True)

import torch
from matplotlib.ticker import NullLocator

from ferlab import stage
from ferlab.commands import model_module, script_of
from ferlab.data.splits import Split, load_splits, save_splits
from ferlab.evaluation.explanation_plots import caption, coloured
from ferlab.evaluation.plots import GREY, figure_file
from ferlab.files import UserError, read_json, write_csv
from ferlab.training.recipe import expected_class, rows_and_targets


def rows_of(labels: torch.Tensor, fraction: float) -> torch.Tensor:
    """Returns the rows of a part of each class, int64 `(n,)`; a larger part has them too."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for label in labels.unique():
        members = torch.nonzero(labels == label)[:, 0]
        drawn = members[torch.randperm(len(members), generator=generator)]
        rows.append(drawn[: max(1, round(fraction * len(members)))])
    return torch.cat(rows).sort().values


def flags_of(name: str, fraction: float, more: list[str]) -> tuple[list[str], dict]:
    """Returns the flags of a model's script for a part of train, and the recipe they ask for."""
    module = model_module(script_of(name))
    flags = [*MODELS[name], *more]
    epochs = module.parser().parse_args(flags).epochs
    flags += ["--epochs", str(round(epochs / math.sqrt(fraction)))]
    args = module.parser().parse_args(flags)
    return flags, asdict(stage.recipe_of(module.setup(args), args, args.precision))


def results_of(path: Path, recipe: dict, val: Split) -> dict | None:
    """Returns the results in a metrics file, if it is there, of this recipe and of this val.

    The number format may differ: it depends on the machine.
    """
    if not path.is_file():
        return None
    results = read_json(path)
    found = results["run"]["recipe"] | {"precision": recipe["precision"]}
    return results if found == recipe and results["val"]["digest"] == val.digest() else None


def trained(name: str, flags: list[str], train: Split, val: Split, folder: Path) -> None:
    """Trains a model on `train` by its script, which finds no other split than `val`.

    Raises:
        UserError: the script failed.
    """
    with tempfile.TemporaryDirectory() as data:
        save_splits({"train": train, "val": val}, data)
        command = [sys.executable, str(ROOT / script_of(name)), *flags]
        command += ["--data-dir", data, "--results-dir", str(folder)]
        if (folder / f"{name}_checkpoint.pth").is_file():
            command.append("--resume")
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise UserError(f"{script_of(name)} on {len(train):,} images failed")


def row_of(name: str, fraction: float, images: int, results: dict) -> dict:
    """Returns the row of the CSV."""
    row = {"model": name, "fraction": fraction, "images": images}
    row |= {key: results["run"][key] for key in ("epochs", "seconds")}
    judged = {"labels": results["val"], "raters": results["val"].get("raters")}
    for judge, numbers in judged.items():
        if numbers:
            low, high = numbers["accuracy_interval"]
            values = {judge: numbers["accuracy"], f"{judge}_low": low, f"{judge}_high": high}
            row |= {key: f"{value:.4f}" for key, value in values.items()}
    return row


def plot(path: Path, rows: list[dict], val: Split, targets: str) -> None:
    """Draws accuracy on val against the number of training images, by the labels and raters."""
    judges = {"labels": "by the labels"}
    if val.votes is not None:
        judges["raters"] = "by the raters"
    titles = {"softmax": "softmax regression", "basic_nn": "MLP", "advanced": "CNN, preset quick"}
    ticks = sorted({row["images"]: row["fraction"] for row in rows}.items())
    with figure_file(path, 4.6 * len(judges) + 0.6, 4.7) as figure:
        panels = figure.subplots(1, len(judges), sharey=True, squeeze=False)[0]
        for axes, (judge, title) in zip(panels, judges.items(), strict=True):
            for name, shown, colour in coloured(titles):
                points = [row for row in rows if row["model"] == name]
                if not points:
                    continue
                images = [row["images"] for row in points]
                low, values, high = (
                    [float(row[judge + end]) for row in points] for end in ("_low", "", "_high")
                )
                axes.fill_between(images, low, high, color=colour, alpha=0.15, lw=0)
                axes.plot(images, values, "o-", color=colour, label=shown)
            expected = expected_class(val, "votes" if judge == "raters" else "labels")
            constant = expected[expected >= 0].bincount().max() / (expected >= 0).sum()
            axes.axhline(float(constant), color=GREY, lw=1, ls="--", label="most frequent class")
            axes.set_xscale("log", base=2)
            axes.set_xticks(
                [images for images, _ in ticks],
                [f"{images:,}\n{_ratio(fraction)}" for images, fraction in ticks],
            )
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set(title=title, xlabel="training images, part of train", ylim=(0, 1))
            axes.grid(axis="y")
        panels[0].set_ylabel("accuracy on val")
        panels[0].legend(loc="upper left", ncols=2)
        caption(
            figure,
            "What more training images give",
            f"Trained on {targets}. The axis of the images is logarithmic; bands: 95 % intervals.\n"
            "A line that still rises at the right would gain from more images",
        )


def _ratio(fraction: float) -> str:
    return "all" if fraction == 1 else f"1/{1 / fraction:g}"


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    args, more = parser().parse_known_args(argv)
    reference = args.reference or REFERENCE_DIR / ("votes" if args.targets == "votes" else "")
    more += ["--targets", args.targets] + ["--quiet"] * args.quiet
    for name in args.models:
        flags_of(name, 1, more)  # bad usage ends here
    splits = load_splits(args.data_dir, ("train", "val"), wanted=("train", "val"))
    train, val = splits["train"], splits["val"]
    usable, _ = rows_and_targets(train, args.targets)
    rows = []
    for fraction in sorted(set(args.fractions)):
        chosen = train.take(usable[rows_of(train.labels[usable], fraction)])
        for name in args.models:
            flags, recipe = flags_of(name, fraction, more)
            folder, file = args.results_dir / f"{len(chosen)}", f"{name}_metrics.json"
            known = results_of(reference / file, recipe, val) if fraction == 1 else None
            if known is None and not (folder / file).is_file():
                trained(name, flags, chosen, val, folder)
            results = known or results_of(folder / file, recipe, val)
            if results is None:
                raise UserError(f"{folder / file} is of other flags; name another --results-dir")
            rows.append(row_of(name, fraction, len(chosen), results))
            row = rows[-1]
            print(
                f"{name:10}{len(chosen):8,} images{row['epochs']:5} epochs: by labels "
                f"{row['labels']}, by raters {row.get('raters', '-')}",
                flush=True,
            )
            write_csv(args.results_dir / "learning_curve.csv", COLUMNS, rows)
    plot(args.results_dir / "explain_learning.png", rows, val, args.targets)
    print(f"wrote {args.results_dir}/learning_curve.csv and explain_learning.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
