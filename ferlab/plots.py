"""The pictures: training curves, confusion matrix, comparison of the models."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ferlab.files import atomic_path

# Okabe & Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
DPI = 130


def plot_curves(
    path: str | os.PathLike, title: str, history: Sequence[dict], best_epoch: int
) -> None:
    """Draws loss and accuracy of train and val over the epochs, the best epoch marked.

    Args:
        path: the PNG file.
        title: the model's name.
        history: one dict an epoch, as `training.Trainer.epoch` returns it.
        best_epoch: the epoch whose weights were kept, counted from 1.
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(f"{title}: training", fontweight="bold")
    marker = {"marker": "o"} if len(epochs) == 1 else {}
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, colour in (("train", ORANGE), ("val", BLUE)):
            values = [row[f"{split}_{quantity}"] for row in history]
            axes.plot(epochs, values, color=colour, label=split, **marker)
        axes.axvline(best_epoch, color=GREY, linestyle=":", label=f"best epoch ({best_epoch})")
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if quantity == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _plain(axes)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.supxlabel(
        "train is measured while learning, on augmented faces and with dropout: "
        "it may lie below val",
        fontsize=8,
        color=GREY,
    )
    _save(figure, path)


def plot_confusion_matrix(
    path: str | os.PathLike, title: str, matrix: np.ndarray, class_names: Sequence[str]
) -> None:
    """Draws a confusion matrix: colour and percentage by row, count below.

    Args:
        path: the PNG file.
        title: stands above.
        matrix: int `(classes, classes)`, rows true, columns predicted.
        class_names: the classes' names.
    """
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(7.4, 6.6), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column,
            row,
            f"{share:.0%}\n({matrix[row, column]:,})",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share > 0.55 else "black",
            fontweight="bold" if row == column else "normal",
        )
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, format=PercentFormatter(1, decimals=0))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    _save(figure, path)


def plot_comparison(
    path: str | os.PathLike, split: str, rows: Sequence[dict], majority_accuracy: float
) -> None:
    """Draws the models' accuracies with their intervals, and macro F1 beside.

    Args:
        path: the PNG file.
        split: the split the numbers are of.
        rows: one dict a model: title, accuracy, accuracy_interval, macro_f1, macro_f1_interval,
            note (a short text below the title).
        majority_accuracy: of always answering the majority class, drawn as a line.
    """
    figure = Figure(figsize=(9, 1.5 + 0.85 * len(rows)), layout="constrained")
    axes = figure.subplots()
    height = 0.36
    for number, (quantity, label, colour) in enumerate(
        (("accuracy", "accuracy", BLUE), ("macro_f1", "macro F1", ORANGE))
    ):
        y = np.arange(len(rows)) + (number - 0.5) * height
        values = np.array([row[quantity] for row in rows])
        low, high = np.array([row[f"{quantity}_interval"] for row in rows]).T
        errors = np.maximum([values - low, high - values], 0)
        style = {"ecolor": "black", "elinewidth": 1, "capsize": 3}
        axes.barh(y, values, height, color=colour, label=label, xerr=errors, error_kw=style)
        for at, value, end in zip(y, values, high, strict=True):
            axes.text(end + 0.012, at, f"{value:.1%}", va="center", fontsize=9)
    axes.axvline(
        majority_accuracy, color=GREY, linestyle=":", label="always the majority class", zorder=0
    )
    axes.set_yticks(range(len(rows)), [f"{row['title']}\n{row['note']}" for row in rows])
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.45, -0.55))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(f"{split} split, with 95 % intervals", fontsize=10, loc="left")
    _plain(axes)
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=9)
    _save(figure, path)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a PNG; equal figures give equal bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
