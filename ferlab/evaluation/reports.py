"""The results contract's files: text for people, JSON, history, predictions and plots."""

import csv
import json
import os
import textwrap
from pathlib import Path

import numpy as np

from ferlab.cli import stage_command
from ferlab.data.splits import Split
from ferlab.evaluation.plots import plot_confusion_matrix, plot_curves, plot_errors
from ferlab.files import atomic_path, write_text
from ferlab.training.checkpoint import script_of

STAGES = (
    "baseline.py",
    "softmax.py",
    "basic_nn.py",
    "advanced_network.py",
    "compare_results.py",
)


def write_results(folder: Path, record: dict, data_dir: Path) -> str:
    """Writes a model's metrics as JSON, text and plot; returns the text.

    Args:
        folder: the results folder.
        record: `{"model", "title", "class_names", "parameters", "train", "val", "test", "run"}`,
            a split's entry as `evaluation.evaluate` returns it, missing where it was not there.
        data_dir: where the splits came from.
    """
    name, text = record["model"], results_text(record, data_dir)
    write_text(folder / f"{name}_metrics.json", json.dumps(record, indent=2) + "\n")
    write_text(folder / f"{name}_results.txt", text)
    split = last_split(record)
    plot_confusion_matrix(
        folder / f"{name}_confusion_matrix.png",
        f"{record['title']}, {split} split: accuracy {record[split]['accuracy']:.3f}",
        np.array(record[split]["confusion_matrix"]),
        record["class_names"],
    )
    return text


def write_history(
    folder: Path, name: str, title: str, history: list[dict], best_epoch: int
) -> None:
    """Writes the training history as CSV, one row an epoch, and as a plot."""
    with atomic_path(folder / f"{name}_history.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, history[0].keys(), lineterminator="\n")
        writer.writeheader()
        for row in history:
            writer.writerow({key: _short(value) for key, value in row.items()})
    plot_curves(folder / f"{name}_curves.png", title, history, best_epoch)


def write_errors(
    folder: Path, record: dict, split: Split, predictions: dict[str, np.ndarray]
) -> None:
    """Draws the most confident errors on the split that the text shows in full."""
    shown = last_split(record)
    plot_errors(
        folder / f"{record['model']}_errors.png",
        f"{record['title']}: the most confident errors on the {shown} split",
        split.images[:, 0].numpy(),
        split.labels.numpy(),
        predictions[f"{shown}_probs"],
        split.class_names,
    )


def write_predictions(folder: Path, name: str, predictions: dict[str, np.ndarray]) -> None:
    """Writes `<split>_labels` int8 `(N,)` and `<split>_probs` float32 `(N, classes)`."""
    with atomic_path(folder / f"{name}_predictions.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, **predictions)


def last_split(record: dict) -> str:
    """Returns the split that the text and the plot show in full: test, else val, else train."""
    return next(split for split in ("test", "val", "train") if split in record)


def next_command(name: str, data_dir: Path, results_dir: Path) -> str:
    """Returns the command of the stage after the model called `name`."""
    script = script_of(name)
    following = STAGES[STAGES.index(script) + 1] if script in STAGES[:-1] else STAGES[-1]
    if following == STAGES[-1]:
        return stage_command(following, results_dir=results_dir)
    return stage_command(following, data_dir, results_dir)


def results_text(record: dict, data_dir: str | os.PathLike) -> str:
    """Returns the results file for people (see `write_results` for `record`)."""
    run, shown = record["run"], last_split(record)
    splits = [split for split in ("train", "val", "test") if split in record]
    title = record["title"]
    lines = [title, "=" * len(title), ""]
    lines += _pairs(
        {
            "data": f"{Path(data_dir).as_posix()}: "
            + ", ".join(f"{split} {record[split]['n']:,}" for split in splits),
            "classes": ", ".join(record["class_names"]),
            "weights chosen by": run["chosen_by"],
            "test": "read once, after training",
        }
    )
    lines += ["", *_split_table(record, splits), ""]
    lines += [f"Each class, {shown} split", *_class_table(record[shown]["per_class"]), ""]
    lines += [
        f"Confusion matrix, {shown} split (rows: true class, columns: predicted)",
        *_matrix(record[shown]["confusion_matrix"], record["class_names"]),
        "",
        "The run",
        *_pairs(_run_facts(record)),
    ]
    return "\n".join(lines) + "\n"


def _split_table(record: dict, splits: list[str]) -> list[str]:
    """A column a split; intervals are 95 %: Wilson's for accuracy, bootstrap for macro F1."""
    rows = {
        "accuracy": ("accuracy", "accuracy_interval"),
        "always the majority class": ("majority_accuracy", None),
        "balanced accuracy": ("balanced_accuracy", None),
        "macro precision": ("macro_precision", None),
        "macro recall": ("macro_recall", None),
        "macro F1": ("macro_f1", "macro_f1_interval"),
        "calibration error": ("ece", None),
        "... after temperature": ("ece_calibrated", None),
    }
    lines = [f"{'[95 % interval]':27}" + "".join(f"{split:>24}" for split in splits)]
    for label, (key, interval) in rows.items():
        cells = []
        for split in splits:
            cell = f"{record[split][key]:.4f}" if key in record[split] else "-"
            if interval:
                low, high = record[split][interval]
                cell += f" [{low:.4f}, {high:.4f}]"
            cells.append(f"{cell:>24}")
        lines.append(f"{label:27}" + "".join(cells))
    return lines


def _class_table(per_class: dict[str, dict]) -> list[str]:
    lines = [f"{'':10}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}"]
    for name, numbers in per_class.items():
        ratios = "".join(f"{numbers[key]:10.4f}" for key in ("precision", "recall", "f1"))
        lines.append(f"{name:10}{ratios}{numbers['support']:10,}")
    return lines


def _matrix(matrix: list[list[int]], class_names: list[str]) -> list[str]:
    width = max(9, *(len(name) + 1 for name in class_names))
    lines = [" " * 10 + "".join(f"{name:>{width}}" for name in class_names)]
    for name, row in zip(class_names, matrix, strict=True):
        lines.append(f"{name:10}" + "".join(f"{count:{width},}" for count in row))
    return lines


def _run_facts(record: dict) -> dict[str, str]:
    run = record["run"]
    facts = {"command": run["command"]}
    if "evaluated_by" in run:
        facts["evaluated by"] = run["evaluated_by"]
        facts["weights"] = run["weights"]
    facts |= {"seed": run["seed"], "parameters": f"{record['parameters']:,}"}
    if "network" in run:
        facts["network"] = _told(run["network"])
    if "epochs" in run:
        facts["epochs"] = f"{run['epochs']}, best {run['best_epoch']}"
        facts["speed"] = f"{run['seconds']:,.0f} s, {run['images_per_second']:,} images/s"
        facts["recipe"] = _recipe(run["recipe"])
    facts["temperature"] = f"{run['temperature']:.3f}, fitted on val, one view a face"
    facts["device"] = f"{run['device']} ({run['device_name']}, {run['threads']} threads)"
    if run.get("processes", 1) > 1:
        facts["device"] += f" in each of {run['processes']} processes"
    facts["versions"] = ", ".join(f"{k} {run[k]}" for k in ("python", "torch", "torchvision"))
    return facts


def _recipe(recipe: dict) -> str:
    """Returns the hyperparameters that are not at rest, without those told elsewhere."""
    plain = {k: v for k, v in recipe.items() if k not in ("seed", "epochs", "augmentation")}
    augmentation = [
        key if value is True else f"{key} {value:g}"
        for key, value in (recipe["augmentation"] or {}).items()
        if value
    ]
    return f"{_told(plain)}; augmentation {', '.join(augmentation) or 'none'}"


def _told(values: dict) -> str:
    """Returns hyperparameters as text, lists as the flags take them; None is not told."""

    def text(value: object) -> str:
        if isinstance(value, list):
            return " ".join(map(text, value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{key} {text(v)}" for key, v in values.items() if v is not None)


def _pairs(facts: dict[str, object]) -> list[str]:
    lines = []
    for label, value in facts.items():
        lines += wrapped(f"{label:18} {value}", indent=19)
    return lines


def wrapped(text: str, indent: int = 0) -> list[str]:
    """Returns `text` in lines of 100 characters; flags and paths stay whole, to be pasted."""
    return textwrap.wrap(
        text,
        100,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _short(value: float) -> float:
    return float(f"{value:.6g}") if isinstance(value, float) else value
