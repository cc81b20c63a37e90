"""Compares the models: one table, one plot, and whether the differences are significant.

    python compare_results.py
    python compare_results.py --results-dir results/sample

Reads `<model>_metrics.json` and `<model>_predictions.npz` of every model in the results folder and
in its `votes/`, and of further runs in their `seed_<n>` folders (made by, say, `python softmax.py
--seed 1 --results-dir results/seed_1`); runs of another recipe are listed, and left out of the
means. Writes `comparison.txt` and `comparison.png` there, and prints the text, within seconds.
"""

import argparse
import itertools
import sys
import textwrap
from pathlib import Path

from ferlab import cli, entry


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    result = cli.parser(__doc__)
    result.add_argument(
        "--results-dir",
        type=Path,
        default=cli.RESULTS_DIR,
        help="folder of the models' results, where the comparison is written",
    )
    return result


if __name__ == "__main__":
    entry.before_imports(parser())  # scipy takes a second to import

import numpy as np
from scipy.stats import binomtest

from ferlab.cli import wrapped
from ferlab.commands import stage_command
from ferlab.evaluation.plots import plot_comparison
from ferlab.evaluation.results_text import with_interval
from ferlab.evaluation.runs import (
    Run,
    common_split,
    difference,
    read_correct,
    read_folder,
    require_same_data,
)
from ferlab.files import UserError, write_text

HOW_TO_READ = (
    "How to read: only images that exactly one of the two models classifies correctly count. If "
    "both models were equally good, each of them would be a fair coin toss; p is the probability "
    "that coins fall at least this unevenly. Where p is not small, say below 0.05, the result is "
    "not statistically significant. p is about these images, not about training with another seed."
)


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the stage; returns the exit code."""
    folder = parser().parse_args(argv).results_dir
    found, seed_runs = read_folder(folder)
    split = common_split(found)
    runs = [run for run in found if split in run.splits]
    lacking = [run for run in [*found, *seed_runs] if split not in run.splits]
    seed_runs = [run for run in seed_runs if split in run.splits]
    require_same_data(runs, seed_runs, split)

    lines = table(runs, split)
    for run in lacking:
        lines += wrapped(f"Left out: {run.title}, as {run.path} has no {split} numbers", indent=2)
    lines += paired_tests(runs, split) + seed_table([*runs, *seed_runs], split)
    text = "\n".join(lines) + "\n"
    rows = [
        {
            "title": textwrap.fill(name_of(run), 24),
            "note": f"{run.parameters:,} parameters\ntrained in {run.seconds:,.0f} s",
            **run.splits[split],
        }
        for run in runs
    ]
    write_text(folder / "comparison.txt", text)
    plot_comparison(folder / "comparison.png", split, rows)
    wrote = f"wrote {folder / 'comparison.txt'} and {folder / 'comparison.png'}"
    own = folder / "advanced_model.pth"
    flags = ["--weights", str(own)] if folder != cli.RESULTS_DIR and own.is_file() else []
    print(f"{text}\n{wrote}; next: {stage_command('live_inference.py', *flags)}")
    return 0


def name_of(run: Run) -> str:
    """Returns the model's name for people, with its targets if they are votes."""
    return f"{run.title}, on votes" if run.targets == "votes" else run.title


def table(runs: list[Run], split: str) -> list[str]:
    """Returns the lines of the table of all models."""
    numbers = runs[0].splits[split]
    heading = f"The models on {numbers['n']:,} {split} images"
    judged = [run.splits[split]["raters"]["n"] for run in runs if "raters" in run.splits[split]]
    if judged:
        heading += f", of which {judged[0]:,} have a majority of the raters"
    lines = [
        heading,
        f"{'':23} {'':7} {'accuracy [95 % interval]':>43}  {'macro':>6} {'':9} {'train':>6}",
        f"{'model':23} {'targets':7} {'by the labels':>21} {'by the raters':>21}  {'F1':>6}"
        f" {'parameters':>10} {'s':>5}",
    ]
    for run in runs:
        numbers = run.splits[split]
        title, *rest = textwrap.wrap(run.title, 23) or [run.model]
        lines.append(
            f"{title:23} {run.targets:7} {accuracy(numbers):>21}"
            f" {accuracy(numbers.get('raters')):>21}  {numbers['macro_f1']:6.4f}"
            f" {run.parameters:10,} {run.seconds:5.0f}"
        )
        lines += rest
    return lines


def accuracy(numbers: dict | None) -> str:
    """Returns the accuracy in `numbers` with its interval; "-" where there are none."""
    return with_interval(numbers["accuracy"], numbers["accuracy_interval"]) if numbers else "-"


def paired_tests(runs: list[Run], split: str) -> list[str]:
    """Returns the lines of the McNemar tests, and how to read them.

    Neighbouring models of the same targets are judged by these; the same model trained on labels
    and on votes by the raters.
    """
    pairs = [
        (run, other) for other, run in itertools.pairwise(runs) if run.targets == other.targets
    ]
    votes = {run.model: run for run in runs if run.targets == "votes"}
    labels = [run for run in runs if run.targets == "labels" and run.model in votes]
    pairs += [(votes[run.model], run) for run in labels]
    lines, tests = [], 0
    for run, other in pairs:
        judge = "labels" if run.targets == other.targets == "labels" else "majority"
        pair = f"{name_of(run)} vs {name_of(other)}"
        try:
            true, correct = read_correct(run, split, judge)
            other_true, other_correct = read_correct(other, split, judge)
            if not np.array_equal(true, other_true):
                raise UserError("their predictions are of different images")
        except UserError as error:
            lines += wrapped(f"{pair}: not tested, as {error}", indent=2)
            continue
        only, only_other, p = mcnemar(correct, other_correct)
        chance = f"p = {p:.2g}" if p >= 1e-99 else "p < 1e-99"
        by = "the labels" if judge == "labels" else "the raters"
        lines += wrapped(
            f"{pair}, by {by}: {only:,} images only the first classifies correctly, "
            f"{only_other:,} only the second; {chance}",
            indent=2,
        )
        tests += 1
    if tests:
        text = HOW_TO_READ
        if tests > 1:
            text += f" With {tests} tests, hold p against 0.05 / {tests} = {0.05 / tests:.2g}"
            text += " (Bonferroni)."
        lines += wrapped(text)
    heading = ["", "Is the next model better? McNemar's test on the same images"]
    return heading + lines if lines else []


def mcnemar(correct: np.ndarray, other_correct: np.ndarray) -> tuple[int, int, float]:
    """Tests whether two models err equally often on the same images.

    The exact form of the test of McNemar 1947 (Psychometrika 12:153-157): under equal error
    rates, the images that one model alone classifies correctly are fair coin tosses.

    Args:
        correct, other_correct: bool `(n,)`: the images each model classifies correctly.

    Returns:
        How many images only the first classifies correctly, how many only the other, and the
        two-sided p value in [0, 1]; 1 where the models never differ.
    """
    only, only_other = int((correct & ~other_correct).sum()), int((other_correct & ~correct).sum())
    differing = only + only_other
    return only, only_other, float(binomtest(only, differing).pvalue) if differing else 1.0


def seed_table(runs: list[Run], split: str) -> list[str]:
    """Returns the lines about the models that have runs with several seeds.

    Args:
        runs: runs of all models and seeds; of those with equal model, targets and seed the first
            counts, and those of another recipe than their model's first are listed and left out.
        split: the split whose numbers are compared.
    """
    by_model: dict[tuple[str, str], dict[int, Run]] = {}
    lines, left_out = [], []
    for run in runs:
        by_seed = by_model.setdefault((run.model, run.targets), {run.seed: run})
        first = next(iter(by_seed.values()))
        if other := difference(run, first):
            text = f"Left out of the seeds: {run.path}, which has {other} as {first.path} has"
            left_out += wrapped(text, indent=2)
        else:
            by_seed.setdefault(run.seed, run)
    for by_seed in by_model.values():
        if len(by_seed) < 2:
            continue
        first = next(iter(by_seed.values()))
        title, *rest = textwrap.wrap(first.title, 23) or [first.model]
        numbers = [run.splits[split] for run in by_seed.values()]
        cells = mean_and_deviation([each["accuracy"] for each in numbers])
        raters = [each["raters"]["accuracy"] for each in numbers if "raters" in each]
        cells += f"  {mean_and_deviation(raters) if len(raters) == len(numbers) else '-':15}"
        seeds = ", ".join(map(str, sorted(by_seed)))
        lines += [f"{title:23} {first.targets:7}  {cells}  {seeds}", *rest]
    if lines:
        heading = f"Over several seeds, {split} split: accuracy, mean ± sample standard deviation"
        columns = f"{'':23} {'targets':7}  {'by the labels':15}  {'by the raters':15}  seeds"
        lines = [heading, columns, *lines]
    return ["", *lines, *left_out] if lines or left_out else []


def mean_and_deviation(values: list[float]) -> str:
    """Returns "mean ± sample standard deviation" of two values or more."""
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else "-"


if __name__ == "__main__":
    sys.exit(main())
