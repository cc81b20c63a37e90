"""Compares the models: one table, one picture, and how sure the differences are.

    python compare_results.py
    python compare_results.py --results-dir results/sample

Reads `<model>_metrics.json` and `<model>_predictions.npz` of every model in the results folder, and
of further training runs in its `seed_<n>` folders (made by, say, `python softmax.py --seed 1
--results-dir results/seed_1`). Writes `comparison.txt` and `comparison.png` there. The text:

    3,533 test images; each model next to the numbers of its <model>_results.txt

                                                     -------- macro --------                train
    model                accuracy [95 % interval]  precision  recall      F1  parameters      s ...
    majority class        0.2513 [0.2373, 0.2659]     0.0359  0.1429  0.0574           0      0 ...
    softmax regression    ...

    softmax regression vs majority class: 700 images only softmax regression gets right, 348 only
      majority class; p = 6.4e-28
"""

import argparse
import itertools
import json
import shlex
import sys
import textwrap
import zipfile
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
SHARES = (
    "accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "majority_accuracy",
)
WIDTH = 100


@dataclass(frozen=True)
class Run:
    """One training run's metrics file, checked.

    Attributes:
        model: the model's name in file names.
        path: of the metrics file.
        title: the model's name for people.
        parameters: of the network.
        seed: of the run.
        seconds: of training.
        images_per_second: in training; None for a model that is not trained in steps.
        command: the command that wrote the file.
        splits: for each of "train", "val", "test" that was evaluated: `n`, `digest` of the images
            and labels, the `SHARES` in [0, 1], and the intervals of accuracy and macro F1.
    """

    model: str
    path: Path
    title: str
    parameters: int
    seed: int
    seconds: float
    images_per_second: float | None
    command: str
    splits: dict[str, dict]

    def remake(self, *flags: str) -> str:
        """Returns the command that makes the file anew."""
        return remake_command(self.model, self.path.parent, *flags)


def read_run(path: Path) -> Run:
    """Reads a metrics file.

    Raises:
        UserError: it cannot be read or is not what the model scripts write.
    """
    model = path.name.removesuffix("_metrics.json")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        run = record["run"]
        speed = run.get("images_per_second")
        return Run(
            model=model,
            path=path,
            title=str(record["title"]),
            parameters=int(record["parameters"]),
            seed=int(run["seed"]),
            seconds=float(run["seconds"]),
            images_per_second=None if speed is None else float(speed),
            command=str(run.get("evaluated_by", run["command"])),
            splits={s: _read_split(record[s]) for s in ("train", "val", "test") if s in record},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        remedy = remake_command(model, path.parent)
        raise UserError(f"{path} is no metrics file ({reason}); make it anew: {remedy}") from error


def _read_split(record: dict) -> dict:
    """Picks what is compared from a split's entry; raises KeyError, TypeError or ValueError."""
    numbers = {key: float(record[key]) for key in SHARES}
    for key in ("accuracy", "macro_f1"):
        low, high = map(float, record[f"{key}_interval"])
        numbers[f"{key}_interval"] = [low, high]
    for key, value in numbers.items():
        if not all(0 <= number <= 1 for number in np.atleast_1d(value)):
            raise ValueError(f"{key} is {value}")
    return {"n": int(record["n"]), "digest": str(record["digest"]), **numbers}


def read_folder(folder: Path) -> tuple[list[Run], list[Run]]:
    """Returns the runs in `folder`, a model each, and those in its `seed_<n>` folders.

    Both are in the didactic order of the models, models unknown to it behind, by name.

    Raises:
        UserError: the folder is missing or empty, or a file is faulty.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; make results with: {remake_command('baseline', folder)}")
    order = {model: place for place, model in enumerate(ORDER)}

    def read(pattern: str) -> list[Run]:
        runs = [read_run(path) for path in sorted(folder.glob(pattern))]
        return sorted(runs, key=lambda run: (order.get(run.model, len(order)), run.model))

    runs = read("*_metrics.json")
    if not runs:
        raise UserError(f"{folder} is empty; make results with: {remake_command('baseline', folder)}")
    return runs, read("seed_*/*_metrics.json")
