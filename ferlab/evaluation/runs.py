"""Finished runs, read back from a results folder and checked against each other."""

import itertools
import shlex
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferlab.commands import script_of, stage_command
from ferlab.files import UserError, read_json, require_file

ORDER = ("baseline", "softmax", "basic_nn", "advanced", "transfer")


@dataclass(frozen=True)
class Run:
    """What is compared of one metrics file.

    Attributes:
        model: the model's name in file names.
        path: of the metrics file.
        title: the model's name for people.
        targets: "labels" or "votes", what it was trained on.
        parameters: number of parameters of the network.
        seed: seed of the run.
        recipe: the settings of the run and of the network by name, without the seed and the number
            format, which depends on the machine; empty for a model that is not trained in steps.
        seconds: time of the training.
        data_dir: --data-dir of the command that wrote the file; None for the default.
        splits: by split name: `n`, `digest` of the split's images, labels and votes, `macro_f1`
            and what `plots.plot_comparison` takes.
    """

    model: str
    path: Path
    title: str
    parameters: int
    targets: str
    seed: int
    recipe: dict
    seconds: float
    data_dir: str | None
    splits: dict[str, dict]


def read_folder(folder: Path) -> tuple[list[Run], list[Run]]:
    """Returns the runs in `folder` and its `votes/`, and those in the `seed_<n>` folders of both.

    First those trained on labels, then those trained on votes, each in the order of ORDER, further
    models after them by name.

    Raises:
        UserError: the folder is missing or empty, or a file is faulty.
    """

    def read(pattern: str) -> list[Run]:
        paths = [*sorted(folder.glob(pattern)), *sorted(folder.glob(f"votes/{pattern}"))]
        return sorted(map(read_run, paths), key=lambda run: (run.targets, place_of(run.model)))

    runs = read("*_metrics.json")
    if not runs:
        fault = "has no *_metrics.json" if folder.is_dir() else "is missing"
        remedy = stage_command("baseline.py", results_dir=folder)
        raise UserError(f"{folder} {fault}; make results with: {remedy}")
    return runs, read("seed_*/*_metrics.json")


def place_of(model: str) -> tuple[int, str]:
    """Returns what models are sorted by: the order of ORDER, then further models by name."""
    return ORDER.index(model) if model in ORDER else len(ORDER), model


def read_run(path: Path) -> Run:
    """Reads a metrics file.

    Raises:
        UserError: it cannot be read, or is not what the model scripts write.
    """
    model = path.name.removesuffix("_metrics.json")
    targets = "votes" if "votes" in path.parts[-3:-1] else "labels"  # results/votes/seed_1
    remedy = stage_command(script_of(model), results_dir=path.parent, targets=targets)
    require_file(path, f"make it anew with: {remedy}")
    try:
        record = read_json(path)
        run = record["run"]
        command = run.get("evaluated_by", run["command"])
        words = shlex.split(command.replace("--data-dir=", "--data-dir "))
        return Run(
            model=model,
            path=path,
            title=str(record["title"]),
            targets=str(run["targets"]),
            parameters=int(record["parameters"]),
            seed=int(run["seed"]),
            recipe=_recipe(run.get("recipe", {})) | run.get("network", {}),
            seconds=float(run["seconds"]),
            data_dir=dict(itertools.pairwise(words)).get("--data-dir"),
            splits={s: _split_numbers(record[s]) for s in ("train", "val", "test") if s in record},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else f"{error}"
        raise UserError(
            f"{path} is not what the model scripts write ({reason}); make it anew with: {remedy}"
        ) from error


def _recipe(record: dict) -> dict:
    """Picks what of a recipe makes runs comparable; raises TypeError, AttributeError."""
    flat = record | (record.get("augmentation") or {})
    if "augmentation" in flat:
        flat["augmentation"] = bool(flat["augmentation"])
    return {key: value for key, value in flat.items() if key not in ("seed", "precision")}


def _split_numbers(record: dict) -> dict:
    """Picks and checks what is compared of a split; raises KeyError, TypeError, ValueError."""
    numbers = {"macro_f1": float(record["macro_f1"])} | _accuracy(record)
    if "raters" in record:
        numbers["raters"] = _accuracy(record["raters"])
    return {"digest": str(record["digest"]), **numbers}


def _accuracy(record: dict) -> dict:
    """Picks n and what the plot shows; raises KeyError, TypeError, ValueError."""
    low, high = map(float, record["accuracy_interval"])
    accuracy = float(record["accuracy"])
    if not 0 <= low <= accuracy <= high <= 1:
        raise ValueError(f"accuracy is {accuracy} [{low}, {high}]")
    return {
        "n": int(record["n"]),
        "accuracy": accuracy,
        "accuracy_interval": [low, high],
        "majority_accuracy": float(record["majority_accuracy"]),
    }


def difference(run: Run, other: Run) -> str | None:
    """Returns in what a run differs from another of its model, beside the seed.

    Returns:
        The first such thing, say "epochs 36, not 240"; None where there is none. What only one of
        them recorded, being of another version, does not count.
    """
    if run.parameters != other.parameters:
        return f"{run.parameters:,} parameters, not {other.parameters:,}"
    for key, value in run.recipe.items():
        if other.recipe.get(key, value) != value:
            return f"{key} {value}, not {other.recipe[key]}"
    return None


def common_split(runs: list[Run]) -> str:
    """Returns the split to compare on: test, or val if that alone is there for all.

    Where neither is there for all, it is the one that more models have.

    Raises:
        UserError: no model has either.
    """
    counts = {split: sum(split in run.splits for run in runs) for split in ("test", "val")}
    if not any(counts.values()):
        first = runs[0]
        command = stage_command(
            script_of(first.model),
            "--evaluate",
            results_dir=first.path.parent,
            targets=first.targets,
        )
        raise UserError(f"{first.path} has no test or val numbers; add them with: {command}")
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
        remedy = stage_command(
            script_of(run.model), *flags, results_dir=run.path.parent, targets=run.targets
        )
        raise UserError(
            f"{run.path} and {reference.path} are of different {split} images; "
            f"if the latter is right, run: {remedy}"
        )


def read_correct(run: Run, split: str, judge: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads a model's predictions.

    Args:
        run: the run.
        split: the split.
        judge: "labels", or "majority": the images with a majority of the raters alone.

    Returns:
        The true classes, int `(n,)`, and bool `(n,)`: which images are correctly classified.

    Raises:
        UserError: the file is missing, damaged, or of another run than the metrics.
    """
    path = run.path.with_name(f"{run.model}_predictions.npz")
    try:
        with np.load(path) as content:
            labels, true = content[f"{split}_labels"], content[f"{split}_{judge}"]
            preds = content[f"{split}_probs"].argmax(1)
        count = int((preds == labels).sum())
        correct = preds == true
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except KeyError as error:
        raise UserError(f"{path} has no {split} predictions") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged") from error
    numbers = run.splits[split]
    if correct.shape != (numbers["n"],) or count != round(numbers["accuracy"] * numbers["n"]):
        raise UserError(f"{path} is of another run than {run.path.name}")
    decided = true >= 0
    return true[decided], correct[decided]
