"""The plots: training curves, confusion matrices, errors, comparison of the models.

They are drawn by Agg, without pyplot, whatever backend the environment names.
Equal numbers give equal bytes.
"""

import contextlib
import os
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

os.environ["MPLBACKEND"] = "agg"  # shells of notebooks name backends that may not be installed

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ferlab.files import atomic_path

# The palette of Okabe & Ito, distinguishable for colour-blind readers, and two greys.
BLUE, ORANGE, DARK, GREY = "#0072B2", "#D55E00", "#222222", "#666666"
DPI = 130
ERROR_GRID = (4, 6)  # rows and columns of faces
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "text.color": DARK,
    "axes.labelcolor": DARK,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2,
    "legend.frameon": False,
}
TRAIN_NOTE = (
    "train is measured during training, on augmented images, with dropout where the model has it;\n"
    "val afterwards, on plain images, by the targets (votes: without contempt).\n"
    "Train may therefore be worse than val"
)
INTERVAL_NOTE = (
    "black lines: 95 % intervals, for other images of the same kind;\n"
    "training again with another seed adds to them"
)


def plot_curves(
    path: str | os.PathLike, title: str, history: Sequence[dict], best_epoch: int
) -> None:
    """Draws loss and accuracy of train and val over the epochs, the best epoch marked.

    Args:
        path: the PNG file.
        title: the model's name.
        history: one dict an epoch, at least one, as `trainer.Trainer.epoch` returns it.
        best_epoch: the epoch whose weights were kept, counted from 1.
    """
    epochs = [row["epoch"] for row in history]
    best = history[epochs.index(best_epoch)]
    marker = "o" if len(epochs) == 1 else ""  # a line through one point is invisible
    ring = {"ms": 9, "mfc": "none", "mec": DARK, "mew": 1.5, "clip_on": False}
    with figure_file(path, 8.4, 4.1) as figure:
        panels = figure.subplots(1, 2)
        for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
            for split, colour, dashes in (("train", ORANGE, "--"), ("val", BLUE, "-")):
                values = [row[f"{split}_{quantity}"] for row in history]
                axes.plot(epochs, values, dashes, color=colour, marker=marker, label=split)
            axes.axvline(best_epoch, color=GREY, lw=1, ls=":", zorder=1)
            label = f"best epoch on val: {best_epoch} of {epochs[-1]}"
            axes.plot(best_epoch, best[f"val_{quantity}"], "o", label=label, **ring)
            axes.set(title=quantity, xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
            ticks = MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
            axes.xaxis.set_major_locator(ticks)
            axes.grid(axis="y")
        panels[1].yaxis.set_major_formatter(_percent)
        _legend(figure, panels[0], title)
        figure.supxlabel(TRAIN_NOTE, fontsize=8.5, color=GREY)


def plot_confusion_matrices(
    path: str | os.PathLike, title: str, matrices: dict[str, np.ndarray], class_names: Sequence[str]
) -> None:
    """Draws confusion matrices side by side: colour and percentage by row, count below.

    Args:
        path: the PNG file.
        title: title of the figure.
        matrices: int `(classes, classes)`, rows true, columns predicted, by their title.
        class_names: the classes' names.
    """
    with figure_file(path, 7.2 * len(matrices), 7) as figure:
        panels = figure.subplots(1, len(matrices), squeeze=False)[0]
        for axes, (subtitle, matrix) in zip(panels, matrices.items(), strict=True):
            _draw_matrix(axes, matrix, class_names)
            axes.set_title(subtitle)
        figure.suptitle(title, fontsize=12, fontweight="bold")
        note = "each row adds up to 100 % of a true class; the diagonal is the recall of the class"
        figure.supxlabel(note, fontsize=8.5, color=GREY)


def _draw_matrix(axes: Axes, matrix: np.ndarray, class_names: Sequence[str]) -> None:
    support = matrix.sum(1)
    fractions = matrix / np.maximum(support, 1)[:, None]  # a class without images: a row of zeros
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for (row, column), fraction in np.ndenumerate(fractions):
        axes.text(
            column,
            row,
            f"{100 * fraction:.0f} %\n{matrix[row, column]:,}",
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold" if row == column else "normal",
            color="white" if fraction > 0.58 else DARK,
        )
    names = [f"{name}\n{count:,}" for name, count in zip(class_names, support, strict=True)]
    axes.set_xticks(range(len(names)), class_names)
    axes.set_yticks(range(len(names)), names)
    borders = np.arange(0.5, len(names) - 1)
    axes.set_xticks(borders, minor=True)
    axes.set_yticks(borders, minor=True)
    axes.grid(which="minor", color="white", lw=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="true")


def plot_errors(
    path: str | os.PathLike,
    title: str,
    images: np.ndarray,
    labels: np.ndarray,
    probs: np.ndarray,
    class_names: Sequence[str],
    majority: np.ndarray | None = None,
) -> None:
    """Draws the most confident errors by the labels, many of which are errors of the label.

    Args:
        path: the PNG file.
        title: title of the figure.
        images: `(N, 48, 48)`, from black -1 to white 1.
        labels: int `(N,)`, the dataset's labels.
        probs: `(N, classes)`.
        class_names: the classes' names.
        majority: int `(N,)`, class of the raters' majority, -1 for none; None without votes.
    """
    preds = probs.argmax(1)
    wrong = np.flatnonzero(preds != labels)
    worst = wrong[np.argsort(-probs[wrong].max(1), kind="stable")][: ERROR_GRID[0] * ERROR_GRID[1]]
    with figure_file(path, 8.4, 7.2 if majority is None else 8.2) as figure:
        panels = figure.subplots(*ERROR_GRID)
        for axes in panels.flat:
            axes.set_axis_off()
        for axes, index in zip(panels.flat, worst, strict=False):
            axes.imshow(images[index], cmap="gray", vmin=-1, vmax=1)
            lines = [
                f"{class_names[preds[index]]} {100 * probs[index].max():.0f} %",
                f"label: {class_names[labels[index]]}",
            ]
            if majority is not None:
                raters = "no majority" if majority[index] < 0 else class_names[majority[index]]
                lines.append(f"raters: {raters}")
            axes.set_title("\n".join(lines), fontsize=8.5)
        figure.suptitle(textwrap.fill(title, 70), fontsize=12, fontweight="bold")
        note = f"of {len(wrong):,} errors by the labels among {len(labels):,} images"
        figure.supxlabel(note, fontsize=8.5, color=GREY)


def plot_comparison(path: str | os.PathLike, split: str, rows: Sequence[dict]) -> None:
    """Draws the models' accuracy by the labels and by the raters, with 95 % intervals.

    A dashed line is the accuracy of always predicting the most frequent class.

    Args:
        path: the PNG file.
        split: the split the numbers are of.
        rows: one dict a model, from top to bottom, at least one: title, n (images), accuracy,
            accuracy_interval, majority_accuracy (of the dashed line), note (one or two short lines
            beside the bars), and, with votes, raters, a dict with the same four numbers.
    """
    places = np.arange(len(rows))
    judges = [("by the labels", BLUE, rows)]
    if all("raters" in row for row in rows):
        judges.append(("by the raters' majority", ORANGE, [row["raters"] for row in rows]))
    height = 0.72 / len(judges)
    with figure_file(path, 8.4, 2 + 0.72 * len(rows)) as figure:
        axes = figure.subplots()
        for number, (judge, colour, numbers) in enumerate(judges):
            heights = places + (number - (len(judges) - 1) / 2) * height
            values = np.array([row["accuracy"] for row in numbers])
            low, high = np.array([row["accuracy_interval"] for row in numbers]).T
            errors = np.maximum([values - low, high - values], 0)
            line = numbers[0]["majority_accuracy"]
            label = f"{judge}, {numbers[0]['n']:,} images"
            axes.axvline(line, color=colour, lw=1.2, ls="--")
            axes.barh(heights, values, 0.9 * height, color=colour, label=label)
            axes.errorbar(values, heights, xerr=errors, fmt="none", ecolor=DARK, lw=1.3)
            for place, value, end in zip(heights, values, high, strict=True):
                text = axes.text(max(value, end) + 0.008, place, f"{100 * value:.1f} %")
                text.set(
                    va="center",
                    color=colour,
                    zorder=4,
                    bbox={"fc": "white", "ec": "none", "pad": 1},
                )
        beside = {"transform": axes.get_yaxis_transform(), "va": "center"}
        for place, row in zip(places, rows, strict=True):
            axes.text(1.01, place, row["note"], color=GREY, fontsize=9, **beside)
        axes.set_yticks(places, [row["title"] for row in rows], fontsize=11)
        axes.tick_params(axis="y", length=0)
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.13))  # room for "100 %"
        axes.spines.bottom.set_bounds(0, 1)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.xaxis.set_major_formatter(_percent)
        axes.grid(axis="x")
        _legend(figure, axes, f"Accuracy on the {split} split")
        note = f"dashed: always the most frequent class; {INTERVAL_NOTE}"
        figure.supxlabel(note, fontsize=8.5, color=GREY)


@contextlib.contextmanager
def figure_file(path: str | os.PathLike, width: float, height: float) -> Iterator[Figure]:
    """Yields an empty figure of `width` by `height` inches and writes it to `path` as PNG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})


def _legend(figure: Figure, axes: Axes, title: str) -> None:
    """Puts the figure's title and, below it, the legend of `axes` above all panels."""
    handles, labels = axes.get_legend_handles_labels()
    heading = {"title": title, "title_fontproperties": {"weight": "bold", "size": 12}}
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 2), **heading)


def _percent(fraction: float, position: int | None = None) -> str:
    """Returns a fraction with at most one decimal, 0.275 as "27.5 %"; also formats an axis."""
    return f"{100 * fraction:.1f}".removesuffix(".0") + " %"
