"""Finished runs, read back from a results folder and checked against each other."""

import itertools
import json
import shlex
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferlab.files import UserError
from ferlab.training.checkpoint import script_of

ORDER = ("baseline", "softmax", "basic_nn", "advanced", "transfer")
SHARES = ("accuracy", "macro_precision", "macro_recall", "macro_f1", "majority_accuracy")


@dataclass(frozen=True)
class Run:
    """What is compared of one metrics file.

    Attributes:
        model: the model's name in file names.
        path: of the metrics file.
        title: the model's name for people.
        parameters: of the network.
        seed: of the run.
        recipe: by name what the run did, and of which network, but for its seed and for the number
            format, which is the machine's; empty for a model that is not trained in steps.
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
    recipe: dict
    seconds: float
    images_per_second: float | None
    data_dir: str | None
    splits: dict[str, dict]


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
            recipe=_recipe(run.get("recipe", {})) | run.get("network", {}),
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


def _recipe(record: dict) -> dict:
    """Picks what of a recipe makes runs comparable; raises TypeError, AttributeError."""
    flat = record | (record.get("augmentation") or {})
    if "augmentation" in flat:
        flat["augmentation"] = bool(flat["augmentation"])
    return {key: value for key, value in flat.items() if key not in ("seed", "precision")}


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


def difference(run: Run, other: Run) -> str | None:
    """Tells in what a run differs from another of its model, beside the seed.

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
