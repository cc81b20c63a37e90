"""The results contract's files: text for people, JSON, history, predictions and plots."""

from pathlib import Path

import numpy as np

from ferlab.data.splits import Split
from ferlab.evaluation.plots import plot_confusion_matrices, plot_curves, plot_errors
from ferlab.evaluation.results_text import last_split, results_text
from ferlab.files import atomic_path, naming_write_errors, write_csv, write_json, write_text


def begin(folder: Path, name: str) -> None:
    """Removes a model's metrics before anything else of an earlier run is replaced.

    They are written last: where they are, all files of the model are of one run.

    Raises:
        UserError: the file cannot be removed.
    """
    path = folder / f"{name}_metrics.json"
    with naming_write_errors(path):
        path.unlink(missing_ok=True)


def write_results(
    folder: Path,
    record: dict,
    data_dir: Path,
    splits: dict[str, Split],
    predictions: dict[str, np.ndarray],
) -> str:
    """Writes a model's results: predictions, text, plots and, last, the metrics.

    Args:
        folder: the results folder.
        record: `{"model", "title", "class_names", "parameters", "train", "val", "test", "run"}`,
            the entry of a split as of `metrics.evaluate_split`, missing where there is no split.
        data_dir: folder of the splits.
        splits: the splits.
        predictions: `<split>_labels` and `_majority`, int8 `(N,)`, and `_probs`, float32
            `(N, classes)`, of val and test.

    Returns:
        The text.
    """
    name, text, shown = record["model"], results_text(record, data_dir), last_split(record)
    title = f"{record['title']}, trained on {record['run']['targets']}"
    begin(folder, name)
    with atomic_path(folder / f"{name}_predictions.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, **predictions)
    write_text(folder / f"{name}_results.txt", text)
    judges = {"the labels": record[shown]}
    if "raters" in record[shown]:
        judges["the raters' majority"] = record[shown]["raters"]
    plot_confusion_matrices(
        folder / f"{name}_confusion_matrix.png",
        f"{title}, {shown} split",
        {
            f"by {judge}: accuracy {numbers['accuracy']:.3f}": np.array(numbers["confusion_matrix"])
            for judge, numbers in judges.items()
        },
        record["class_names"],
    )
    if shown != "train" and record["parameters"]:
        plot_errors(
            folder / f"{name}_errors.png",
            f"{title}: the most confident errors by the labels, {shown} split",
            splits[shown].images[:, 0].numpy(),
            splits[shown].labels.numpy(),
            predictions[f"{shown}_probs"],
            record["class_names"],
            predictions.get(f"{shown}_majority"),
        )
    write_json(folder / f"{name}_metrics.json", record)
    return text


def write_history(
    folder: Path, name: str, title: str, history: list[dict], best_epoch: int
) -> None:
    """Writes the training history as CSV, one row an epoch, and as a plot."""
    rows = [{key: _short(value) for key, value in row.items()} for row in history]
    write_csv(folder / f"{name}_history.csv", rows[0].keys(), rows)
    plot_curves(folder / f"{name}_curves.png", title, history, best_epoch)


def _short(value: float) -> float:
    return float(f"{value:.6g}") if isinstance(value, float) else value
