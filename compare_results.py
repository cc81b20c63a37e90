"""Compares the models: one table, one picture, and how sure the differences are.

    python compare_results.py
    python compare_results.py --results-dir results/sample

Reads `<model>_metrics.json` and `<model>_predictions.npz` of every model in the results folder, and
of further training runs in its `seed_<n>` folders (made by, say, `python softmax.py --seed 1
--results-dir results/seed_1`). Writes `comparison.txt` and `comparison.png` there and prints the
text within seconds (here with n for the digits):

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
import json
import shlex
import sys
import textwrap
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from ferlab import cli
from ferlab.checkpoint import script_of
from ferlab.files import UserError, write_text
from ferlab.plots import plot_comparison

ORDER = ("baseline", "softmax", "basic_nn", "advanced", "transfer")
SHARES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "majority_accuracy")
WIDTH = 100  # columns of the text
HOW_TO_READ = (
    "How to read: only images that one of the two models alone gets right count. Were both equally "
    "good, a fair coin could give each of them to either; p is how often coins fall at least this "
    "unevenly. A small p, say below 0.05, means that the difference is hardly luck with these "
    "images; it says nothing about training again with another seed."
)


@dataclass(frozen=True)
class Run:
    """What is compared of one metrics file.

    Attributes:
        model: the model's name in file names.
        path: of the metrics file.
        title: the model's name for people.
        parameters: of the network.
        seed: of the run.
        seconds: of training.
        images_per_second: in training; None for a model that sees no images in steps.
        data_dir: of the command that wrote the file; None for the default.
        splits: by split name: `n`, `digest` (tells the split's images and labels), the `SHARES`
            in [0, 1], `accuracy_interval` and `macro_f1_interval` (low, high).
    """

    model: str
    path: Path
    title: str
    parameters: int
    seed: int
    seconds: float
    images_per_second: float | None
    data_dir: str | None
    splits: dict[str, dict]


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
        lines += wrapped(f"Left out: {run.title}, as {run.path} has no {split} numbers")
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
    print(f"{text}\nwrote {folder / 'comparison.txt'} and {folder / 'comparison.png'}")
    return 0


def read_folder(folder: Path) -> tuple[list[Run], list[Run]]:
    """Returns the runs in `folder`, one a model, and those in its `seed_<n>` folders.

    Both stand in the order in which the models are taught, further models behind, by name.

    Raises:
        UserError: the folder is missing or empty, or a file is faulty.
    """

    def read(pattern: str) -> list[Run]:
        runs = [read_run(path) for path in sorted(folder.glob(pattern))]
        places = {model: place for place, model in enumerate(ORDER)}
        return sorted(runs, key=lambda run: (places.get(run.model, len(places)), run.model))

    runs = read("*_metrics.json")
    if not runs:
        fault = "is empty" if folder.is_dir() else "is missing"
        remedy = remake_command("baseline", folder)
        raise UserError(f"{folder} {fault}; make results with: {remedy}")
    return runs, read("seed_*/*_metrics.json")


def read_run(path: Path) -> Run:
    """Reads a metrics file.

    Raises:
        UserError: it cannot be read, or is not what the model scripts write.
    """
    model = path.name.removesuffix("_metrics.json")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        run = record["run"]
        speed = run.get("images_per_second")
        command = run.get("evaluated_by", run["command"])
        words = shlex.split(command.replace("--data-dir=", "--data-dir "))
        return Run(
            model=model,
            path=path,
            title=str(record["title"]),
            parameters=int(record["parameters"]),
            seed=int(run["seed"]),
            seconds=float(run["seconds"]),
            images_per_second=None if speed is None else float(speed),
            data_dir=dict(itertools.pairwise(words)).get("--data-dir"),
            splits={s: _split_numbers(record[s]) for s in ("train", "val", "test") if s in record},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else f"{error}"
        raise UserError(
            f"{path} is not what the model scripts write ({reason}); "
            f"make it anew with: {remake_command(model, path.parent)}"
        ) from error


def _split_numbers(record: dict) -> dict:
    """Picks and checks what is compared of a split; raises KeyError, TypeError, ValueError."""
    numbers = {key: float(record[key]) for key in SHARES}
    for key in ("accuracy_interval", "macro_f1_interval"):
        low, high = record[key]
        numbers[key] = [float(low), float(high)]
    for key, value in numbers.items():
        if not all(0 <= number <= 1 for number in np.ravel(value)):
            raise ValueError(f"{key} is {value}")
    return {"n": int(record["n"]), "digest": str(record["digest"]), **numbers}


def remake_command(model: str, folder: Path, *flags: str) -> str:
    """Returns the command that writes the results of `model` in `folder`."""
    place = [] if folder == Path("results") else ["--results-dir", str(folder)]
    return shlex.join(["python", script_of(model), *flags, *place])


def common_split(runs: list[Run], folder: Path) -> str:
    """Returns the split to compare on: test, or val if that alone is there for all.

    Where neither is there for all, it is the one that more models have.

    Raises:
        UserError: no model has either.
    """
    counts = {split: sum(split in run.splits for run in runs) for split in ("test", "val")}
    if not any(counts.values()):
        remedy = remake_command(runs[0].model, folder, "--evaluate")
        raise UserError(f"{runs[0].path} has no test or val numbers; add them with: {remedy}")
    return max(counts, key=counts.__getitem__)


def require_same_data(runs: list[Run], seed_runs: list[Run], split: str) -> None:
    """Checks that all runs were evaluated on the same images and labels.

    Raises:
        UserError: one was not; names it, a file of what most of `runs` were evaluated on, and the
            command that mends it.
    """
    digests = [run.splits[split]["digest"] for run in runs]
    usual = Counter(digests).most_common(1)[0][0]
    reference = runs[digests.index(usual)]
    for run in [*runs, *seed_runs]:
        if run.splits[split]["digest"] == usual:
            continue
        trained_on = [r.splits.get("train", {}).get("digest") for r in (run, reference)]
        retrain = None not in trained_on and trained_on[0] != trained_on[1]
        flags = [] if retrain else ["--evaluate"]  # old weights may have seen the new test images
        flags += ["--data-dir", reference.data_dir] if reference.data_dir else []
        raise UserError(
            f"{run.path} and {reference.path} are of different {split} images; "
            f"if the latter is right, run: {remake_command(run.model, run.path.parent, *flags)}"
        )


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
            lines += wrapped(f"{pair}: not tested, as {error}")
            continue
        only, only_other, p = mcnemar(right, other_right)
        chance = f"p = {p:.2g}" if p >= 1e-99 else "p < 1e-99"
        lines += wrapped(
            f"{pair}: {only:,} images only {run.title} gets right, "
            f"{only_other:,} only {other.title}; {chance}"
        )
        tests += 1
    if tests:
        text = HOW_TO_READ
        if tests > 1:
            text += f" {tests} tests are made and each may be lucky, so rather hold p against"
            text += f" 0.05 / {tests} = {0.05 / tests:.2g} (Bonferroni)."
        lines += textwrap.wrap(text, WIDTH)
    heading = ["", "Is the next model better, or lucky with these images? McNemar's test"]
    return heading + lines if lines else []


def read_right(run: Run, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a model's predictions.

    Returns:
        The labels, int `(n,)`, and bool `(n,)`: which images the model gets right.

    Raises:
        UserError: the file is missing, damaged, or of another run than the metrics.
    """
    path = run.path.with_name(f"{run.model}_predictions.npz")
    try:
        with np.load(path) as content:
            labels, probs = content[f"{split}_labels"], content[f"{split}_probs"]
        right = probs.argmax(1) == labels
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except KeyError as error:
        raise UserError(f"{path} has no {split} predictions") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged") from error
    numbers = run.splits[split]
    if right.shape != (numbers["n"],) or right.sum() != round(numbers["accuracy"] * numbers["n"]):
        raise UserError(f"{path} is of another run than {run.path.name}")
    return labels, right


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
        runs: of all models and seeds; of those with equal model and seed the first counts.
        split: whose numbers are meant.
    """
    by_model: dict[str, dict[int, Run]] = {}
    for run in runs:
        by_model.setdefault(run.model, {}).setdefault(run.seed, run)
    lines = []
    for model, by_seed in by_model.items():
        if len(by_seed) < 2:
            continue
        title, *rest = textwrap.wrap(next(iter(by_seed.values())).title, 24) or [model]
        cells = ""
        for key in ("accuracy", "macro_f1"):
            values = [run.splits[split][key] for run in by_seed.values()]
            cells += f"  {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
        lines += [f"{title:24}{cells}  {', '.join(map(str, sorted(by_seed)))}", *rest]
    if not lines:
        return []
    heading = f"Over several seeds, {split} split: mean ± sample standard deviation"
    return ["", heading, f"{'':24}  {'accuracy':15}  {'macro F1':15}  seeds", *lines]


def wrapped(text: str) -> list[str]:
    """Breaks a line of the text that may be too wide; further lines are indented."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False)


if __name__ == "__main__":
    sys.exit(main())
