"""Compares the models: one table, one picture, and how sure the differences are.

    python compare_results.py
    python compare_results.py --results-dir results/sample

Reads `<model>_metrics.json` and `<model>_predictions.npz` of every model in the results folder, and
of further training runs in its `seed_<n>` folders (made by, say, `python softmax.py --seed 1
--results-dir results/seed_1`); those of another recipe are named, and left out of the means. Writes
`comparison.txt` and `comparison.png` there and prints the text within seconds (here with n for the
digits):

    The models on n,nnn test images
                                                       ------- macro -------              ...
                             accuracy [95 % interval]  precision recall     F1 parameters ...
    majority class            0.nnnn [0.nnnn, 0.nnnn]     0.nnnn 0.nnnn 0.nnnn          0 ...
    softmax regression        0.nnnn [0.nnnn, 0.nnnn]     0.nnnn 0.nnnn 0.nnnn     16,135 ...

    Is the next model better, or lucky with these images? McNemar's test
    softmax regression vs majority class: nnn images only softmax regression gets right, nnn only
      majority class; p = n.ne-nn

    Over several seeds, test split: mean ± sample standard deviation
                              accuracy         macro F1         seeds
    softmax regression        0.nnnn ± 0.nnnn  0.nnnn ± 0.nnnn  0, 1, 2
"""

import itertools
import shlex
import sys
import textwrap
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from ferlab import cli
from ferlab.evaluation.plots import plot_comparison
from ferlab.evaluation.reports import wrapped
from ferlab.evaluation.runs import (
    Run,
    common_split,
    difference,
    read_folder,
    read_right,
    require_same_data,
)
from ferlab.files import UserError, write_text

HOW_TO_READ = (
    "How to read: only images that one of the two models alone gets right count. Were both equally "
    "good, a fair coin could give each of them to either; p is how often coins fall at least this "
    "unevenly. A small p, say below 0.05, means that the difference is hardly luck with these "
    "images; it says nothing about training again with another seed."
)


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--results-dir", type=Path, default=Path("results"), help="read from and written to"
    )
    folder = parser.parse_args(argv).results_dir
    found, seed_runs = read_folder(folder)
    split = common_split(found, folder)
    runs = [run for run in found if split in run.splits]
    lacking = [run for run in [*found, *seed_runs] if split not in run.splits]
    seed_runs = [run for run in seed_runs if split in run.splits]
    require_same_data(runs, seed_runs, split)

    lines = [f"The models on {runs[0].splits[split]['n']:,} {split} images", *table(runs, split)]
    for run in lacking:
        lines += wrapped(f"Left out: {run.title}, as {run.path} has no {split} numbers", indent=2)
    lines += paired_tests(runs, split) + seed_table([*runs, *seed_runs], split)
    text = "\n".join(lines) + "\n"
    rows = [
        {
            "title": textwrap.fill(run.title, 24),
            "note": f"{run.parameters:,} parameters\ntrained in {run.seconds:,.0f} s",
            **run.splits[split],
        }
        for run in runs
    ]
    write_text(folder / "comparison.txt", text)
    plot_comparison(folder / "comparison.png", split, rows, rows[0]["majority_accuracy"])
    following = ["python", "live_inference.py"]
    if folder != cli.RESULTS_DIR:
        following += ["--weights", str(folder / "advanced_model.pth")]
    wrote = f"wrote {folder / 'comparison.txt'} and {folder / 'comparison.png'}"
    print(f"{text}\n{wrote}; next: {shlex.join(following)}")
    return 0


def table(runs: list[Run], split: str) -> list[str]:
    """Returns the lines of the table of all models."""
    lines = [
        f"{'':51}{'------- macro -------':25}{'':11}{'train':>6} {'train':>6}",
        f"{'':24} {'accuracy [95 % interval]':24}  {'precision':>9} {'recall':>6} {'F1':>6}"
        f" {'parameters':>10} {'s':>6} {'img/s':>7}",
    ]
    for run in runs:
        numbers = run.splits[split]
        low, high = numbers["accuracy_interval"]
        accuracy = f"{numbers['accuracy']:.4f} [{low:.4f}, {high:.4f}]"
        speed = "-" if run.images_per_second is None else f"{run.images_per_second:,.0f}"
        title, *rest = textwrap.wrap(run.title, 24) or [run.model]
        lines.append(
            f"{title:24} {accuracy:>24}  {numbers['macro_precision']:9.4f}"
            f" {numbers['macro_recall']:6.4f} {numbers['macro_f1']:6.4f}"
            f" {run.parameters:10,} {run.seconds:6,.0f} {speed:>7}"
        )
        lines += rest
    return lines


def paired_tests(runs: list[Run], split: str) -> list[str]:
    """Returns the lines of the McNemar tests between neighbouring models, and how to read them."""
    lines, tests = [], 0
    for other, run in itertools.pairwise(runs):
        pair = f"{run.title} vs {other.title}"
        try:
            labels, right = read_right(run, split)
            other_labels, other_right = read_right(other, split)
            if not np.array_equal(labels, other_labels):
                raise UserError("their predictions are of different images")
        except UserError as error:
            lines += wrapped(f"{pair}: not tested, as {error}", indent=2)
            continue
        only, only_other, p = mcnemar(right, other_right)
        chance = f"p = {p:.2g}" if p >= 1e-99 else "p < 1e-99"
        lines += wrapped(
            f"{pair}: {only:,} images only {run.title} gets right, "
            f"{only_other:,} only {other.title}; {chance}",
            indent=2,
        )
        tests += 1
    if tests:
        text = HOW_TO_READ
        if tests > 1:
            text += f" {tests} tests are made and each may be lucky, so rather hold p against"
            text += f" 0.05 / {tests} = {0.05 / tests:.2g} (Bonferroni)."
        lines += wrapped(text)
    heading = ["", "Is the next model better, or lucky with these images? McNemar's test"]
    return heading + lines if lines else []


def mcnemar(right: np.ndarray, other_right: np.ndarray) -> tuple[int, int, float]:
    """Tests whether two models err equally often on the same images.

    The exact form of the test of McNemar 1947 (Psychometrika 12:153-157): under equal error
    rates, the images that one model alone gets right are fair coin tosses between the two.

    Args:
        right, other_right: bool `(n,)`: the images each model gets right.

    Returns:
        How many images only the first gets right, how many only the other, and the two-sided p
        value in [0, 1]; 1 where the models never differ.
    """
    only, only_other = int((right & ~other_right).sum()), int((other_right & ~right).sum())
    differing = only + only_other
    return only, only_other, float(binomtest(only, differing).pvalue) if differing else 1.0


def seed_table(runs: list[Run], split: str) -> list[str]:
    """Returns the lines about models of which runs with several seeds are there.

    Args:
        runs: of all models and seeds; of those with equal model and seed the first counts, and
            those of another recipe than their model's first are left out, which a line says.
        split: whose numbers are meant.
    """
    by_model: dict[str, dict[int, Run]] = {}
    lines, left_out = [], []
    for run in runs:
        by_seed = by_model.setdefault(run.model, {run.seed: run})
        first = next(iter(by_seed.values()))
        if other := difference(run, first):
            text = f"Left out of the seeds: {run.path}, which has {other} as {first.path} has"
            left_out += wrapped(text, indent=2)
        else:
            by_seed.setdefault(run.seed, run)
    for model, by_seed in by_model.items():
        if len(by_seed) < 2:
            continue
        title, *rest = textwrap.wrap(next(iter(by_seed.values())).title, 24) or [model]
        cells = ""
        for key in ("accuracy", "macro_f1"):
            values = [run.splits[split][key] for run in by_seed.values()]
            cells += f"  {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
        lines += [f"{title:24}{cells}  {', '.join(map(str, sorted(by_seed)))}", *rest]
    if lines:
        heading = f"Over several seeds, {split} split: mean ± sample standard deviation"
        lines = [heading, f"{'':24}  {'accuracy':15}  {'macro F1':15}  seeds", *lines]
    return ["", *lines, *left_out] if lines or left_out else []


if __name__ == "__main__":
    sys.exit(main())
