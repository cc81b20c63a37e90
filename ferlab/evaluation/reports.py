"""The results contract's files: text for people, JSON, history, predictions and plots."""

import csv
from pathlib import Path

import numpy as np

from ferlab.data.splits import Split
from ferlab.evaluation.plots import plot_confusion_matrices, plot_curves, plot_errors
from ferlab.evaluation.results_text import last_split, results_text
from ferlab.files import atomic_path, naming_write_errors, write_json, write_text


def begin(folder: Path, name: str) -> None:
    """Removes a model's metrics before anything else of an earlier run is replaced.

    They are written last: where they are, all files of the model are of one run.

    Raises:
        UserError: the file cannot be removed.
    """
    path = folder / f"{name}_metrics.json"
    with naming_write_errors(path):
        path.unlink(missing_ok=True)


def write_metrics(folder: Path, record: dict) -> None:
    """Writes a model's metrics (see `write_results`) as JSON."""
    write_json(folder / f"{record['model']}_metrics.json", record)


def write_results(folder: Path, record: dict, data_dir: Path) -> str:
    """Writes a model's results as text and plot; returns the text.

    Args:
        folder: the results folder.
        record: `{"model", "title", "class_names", "parameters", "train", "val", "test", "run"}`,
            the entry of a split as of `metrics.evaluate_split`, missing where there is no split.
        data_dir: folder of the splits.
    """
    name, text = record["model"], results_text(record, data_dir)
    write_text(folder / f"{name}_results.txt", text)
    split = last_split(record)
    numbers = {"the labels": record[split]}
    if "raters" in record[split]:
        numbers["the raters' majority"] = record[split]["raters"]
    plot_confusion_matrices(
        folder / f"{name}_confusion_matrix.png",
        f"{record['title']}, trained on {record['run']['targets']}, {split} split",
        {
            f"by {judge}: accuracy {part['accuracy']:.3f}": np.array(part["confusion_matrix"])
            for judge, part in numbers.items()
        },
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
        f"{record['title']}, trained on {record['run']['targets']}: the most confident errors "
        f"by the labels, {shown} split",
        split.images[:, 0].numpy(),
        split.labels.numpy(),
        predictions[f"{shown}_probs"],
        split.class_names,
        predictions.get(f"{shown}_majority"),
    )


def write_predictions(folder: Path, name: str, predictions: dict[str, np.ndarray]) -> None:
    """Writes `<split>_labels` and `_majority`, int8 `(N,)`, and `_probs` float32 `(N, classes)`."""
    with atomic_path(folder / f"{name}_predictions.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, **predictions)


def _short(value: float) -> float:
    return float(f"{value:.6g}") if isinstance(value, float) else value
