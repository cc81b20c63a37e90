"""The pictures of explain_models.py; drawn as those of `plots`."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ferlab.evaluation.disturbances import Disturbance
from ferlab.evaluation.plots import BLUE, DARK, GREY, ORANGE, figure_file

GREEN, PURPLE = "#009E73", "#CC79A7"
MODEL_COLOURS = (GREEN, BLUE, ORANGE, PURPLE, GREY)
SMALL = 11  # points: what stands above a face, and captions; readable at half the size
FACE = {"cmap": "gray", "vmin": -1, "vmax": 1}


def coloured(models: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yields each model's title, value and colour; after the last colour they begin again."""
    for (title, value), colour in zip(models.items(), cycle(MODEL_COLOURS), strict=False):
        yield title, value, colour


def caption(figure: Figure, title: str, text: str) -> None:
    """Puts the title above the figure, and below it how to read it."""
    figure.suptitle(title, fontweight="bold", fontsize=14)
    figure.supxlabel(text, fontsize=SMALL, color=GREY)


def tile(axes: Axes, image: np.ndarray, title: str = "", colour: str = DARK, **options) -> None:
    """Draws one image without axes; `title` stands above it."""
    axes.imshow(image, interpolation="nearest", **options)
    axes.set_axis_off()
    axes.set_title(title, fontsize=SMALL, color=colour)


def weight_tile(axes: Axes, weights: np.ndarray, title: str = "", colour: str = DARK) -> None:
    """Draws weights: red above zero, blue below."""
    limit = float(np.quantile(np.abs(weights), 0.99)) or 1.0
    tile(axes, weights, title, colour, cmap="RdBu_r", vmin=-limit, vmax=limit)


def heat_tile(axes: Axes, face: np.ndarray, heat: np.ndarray, title="", colour=DARK) -> None:
    """Draws a face and over it a map from 0 (transparent) to 1 (red)."""
    tile(axes, face, title, colour, **FACE)
    axes.imshow(heat, cmap="inferno", alpha=0.65 * np.clip(heat, 0, 1), vmin=0, vmax=1)


def plot_templates(
    path: Path, names: Sequence[str], weights: np.ndarray, examples: Sequence[dict]
) -> None:
    """Draws softmax regression's weights, and what votes for and against a class in some faces.

    Args:
        path: the PNG file.
        names: the classes.
        weights: float `(classes, 48, 48)`.
        examples: face, products, label, predicted (names), at most as many as there are classes.
    """
    columns = len(names)
    with figure_file(path, 1.45 * columns, 6.3) as figure:
        grid = figure.subplots(3, columns, squeeze=False)
        for axes, name, image in zip(grid[0], names, weights, strict=True):
            weight_tile(axes, image, name)
        for column in range(columns):
            if column >= len(examples):
                grid[1, column].set_axis_off()
                grid[2, column].set_axis_off()
                continue
            example = examples[column]
            correct = example["label"] == example["predicted"]
            tile(grid[1, column], example["face"], f"true: {example['label']}", **FACE)
            colour = DARK if correct else ORANGE
            weight_tile(grid[2, column], example["products"], example["predicted"], colour)
        caption(
            figure,
            "Softmax regression: one template for each class",
            "Above: the weights; red: a bright pixel raises the logit of the class, blue: a dark "
            "one does.\nBelow: a face of each class, and pixel times weight of the predicted class "
            "(orange: wrong);\nred raises its logit, blue lowers it",
        )


def plot_units(path: Path, weights: np.ndarray, use: np.ndarray) -> None:
    """Draws the weights of an MLP's most used hidden units, float `(N, 48, 48)`, `(N,)`."""
    columns = 8
    rows = -(-len(weights) // columns)
    with figure_file(path, 10, 1.42 * rows + 1.1) as figure:
        for axes, image, part in zip(
            figure.subplots(rows, columns, squeeze=False).flat, weights, use, strict=False
        ):
            weight_tile(axes, image, f"{100 * part:.2f} %")
        caption(
            figure,
            "MLP: the hidden units that are used most",
            "Weights on the pixels; red: a bright pixel raises the unit, blue: a dark one does. In "
            "percent: its part\nof what all units add to the next layer. Each weight belongs to "
            "one place of the image",
        )


def plot_shifts(path: Path, shifts: Sequence[int], changed: Mapping[str, Sequence[float]]) -> None:
    """Draws the fraction of predictions that a shift changes, by model."""
    with figure_file(path, 7, 4.6) as figure:
        axes = figure.subplots()
        for title, values, colour in coloured(changed):
            text = f"{title}: {100 * values[-1]:.0f} % at {shifts[-1]} pixels"
            axes.plot(shifts, 100 * np.array(values), "o-", color=colour, label=text)
        axes.set(xlabel="shift of the face, pixels of 48", ylabel="predictions that change, %")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.legend()
        caption(
            figure,
            "Predictions that change when the face is shifted",
            "Each test image is compared with itself, shifted in four directions.\n"
            "The lower, the less the place of the face matters",
        )


def plot_cams(path: Path, names: Sequence[str], rows: Sequence[Sequence[dict]]) -> None:
    """Draws the CNN's Grad-CAM on faces, a column for each class.

    Args:
        path: the PNG file.
        names: the classes.
        rows: for each row and class a dict of face, heat, text, correct; empty where there is none.
    """
    with figure_file(path, 1.45 * len(names), 1.75 * len(rows) + 1.2) as figure:
        grid = figure.subplots(len(rows), len(names), squeeze=False)
        for axes_row, row in zip(grid, rows, strict=True):
            for axes, entry in zip(axes_row, row, strict=True):
                if not entry:
                    axes.set_axis_off()
                    continue
                colour = DARK if entry["correct"] else ORANGE
                heat_tile(axes, entry["face"], entry["heat"], entry["text"], colour)
        caption(
            figure,
            "CNN: where the prediction comes from (Grad-CAM)",
            "A column: faces of one true class; above each: the predicted class (orange: wrong).\n"
            "Bright: the part of the face that raises the logit of the predicted class",
        )


def plot_mean_maps(path: Path, names: Sequence[str], columns: Sequence[dict]) -> None:
    """Draws, for each class, the mean face, and the CNN's mean Grad-CAM and mean occlusion map.

    `columns` has for each class face, cam, occlusion, float `(48, 48)` each, and n; empty where
    there is none.
    """
    with figure_file(path, 1.45 * len(names), 6.3) as figure:
        grid = figure.subplots(3, len(names), squeeze=False)
        for number, (name, column) in enumerate(zip(names, columns, strict=True)):
            if not column:
                for axes in grid[:, number]:
                    axes.set_axis_off()
                grid[0, number].set_title(f"{name}: none", fontsize=SMALL)
                continue
            tile(grid[0, number], column["face"], f"{name}, {column['n']:,}", **FACE)
            heat_tile(grid[1, number], column["face"], column["cam"])
            heat_tile(grid[2, number], column["face"], column["occlusion"])
        caption(
            figure,
            "CNN: the average of each class",
            "Correctly classified test faces (above: how many). From above: mean face; mean "
            "Grad-CAM;\nmean drop of the logit where a grey square covers the face. Bright in both "
            "maps: the\nprediction depends on this place",
        )


def plot_strongest(path: Path, layers: Mapping[str, Sequence[Sequence[dict]]]) -> None:
    """Draws the faces to which the CNN's channels respond most.

    Each is a dict of face and place, the row and column of the highest activation.
    """
    rows = [(name, row) for name, block in layers.items() for row in block]
    with figure_file(path, 9, 1.12 * len(rows) + 1.1) as figure:
        grid = figure.subplots(len(rows), len(rows[0][1]), squeeze=False)
        for axes_row, (name, row) in zip(grid, rows, strict=True):
            for axes, entry in zip(axes_row, row, strict=True):
                tile(axes, entry["face"], **FACE)
                axes.plot(entry["place"][1], entry["place"][0], "o", ms=11, mfc="none", mec=ORANGE)
            axes_row[0].set_axis_on()
            axes_row[0].spines[:].set_visible(False)
            axes_row[0].set(xticks=[], yticks=[])
            axes_row[0].set_ylabel(name, fontsize=9)
        caption(
            figure,
            "CNN: what single channels respond to",
            "A row: the test faces with the highest activation of one channel; circle: where it is",
        )


def plot_robustness(
    path: Path,
    disturbances: Sequence[Disturbance],
    models: Mapping[str, Mapping[str, Sequence[dict]]],
    judge: str,
) -> None:
    """Draws accuracy against the strength of each disturbance, by model, with 95 % intervals."""
    columns = 5
    rows = -(-len(disturbances) // columns)
    with figure_file(path, 11, 2.6 * rows + 1.3) as figure:
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for axes, disturbance in zip(grid, disturbances, strict=False):
            places = np.arange(len(disturbance.strengths))
            for title, results, colour in coloured(models):
                numbers = results[disturbance.name]
                low, high = np.array([entry["accuracy_interval"] for entry in numbers]).T
                axes.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
                values = [entry["accuracy"] for entry in numbers]
                axes.plot(places, values, "o-", ms=4, color=colour, label=title)
            axes.set_xticks(places, [f"{strength:g}" for strength in disturbance.strengths])
            axes.set_title(disturbance.name)
            axes.set_xlabel(disturbance.unit)
            axes.tick_params(axis="x", labelsize=9)
            axes.grid(axis="y")
            axes.set_ylim(0, 1)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=12)
        figure.supylabel(f"accuracy on test, {judge}", fontsize=12)
        figure.supxlabel(
            "Each panel: undisturbed at the left; bands: 95 % intervals. Where a line is flat, the "
            "model does not need what is disturbed",
            fontsize=SMALL,
            color=GREY,
        )


def plot_disagreements(path: Path, entries: Sequence[dict], count: int) -> None:
    """Draws faces on which label, raters and CNN differ: face, label, raters, predicted."""
    columns = 6
    rows = max(1, -(-len(entries) // columns))
    with figure_file(path, 10, 2.2 * rows + 1.0) as figure:
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes in panels.flat:
            axes.set_axis_off()
        for axes, entry in zip(panels.flat, entries, strict=False):
            colour = DARK if entry["model_with_raters"] else ORANGE
            text = f"label {entry['label']}\n{entry['raters']}\nmodel {entry['predicted']}"
            tile(axes, entry["face"], text, colour, **FACE)
        caption(
            figure,
            "CNN: where label, raters and model disagree",
            f"{len(entries)} of {count:,} such test faces, those with most agreeing raters first. "
            "Orange:\nthe model disagrees with the raters. The number: how many of ten agree",
        )


def plot_agreement(
    path: Path, models: Mapping[str, Sequence[dict]], reliabilities: Mapping[str, Sequence[tuple]]
) -> None:
    """Draws accuracy by the number of agreeing raters, and the reliability diagram.

    Args:
        path: the PNG file.
        models: entries of `by_agreement` by model; empty without votes.
        reliabilities: mean confidence, accuracy, number by model (see `explanations.reliability`).
    """
    with figure_file(path, 9.6 if models else 7, 4.6) as figure:
        panels = figure.subplots(1, 2 if models else 1, squeeze=False)[0]
        if models:
            axes = panels[0]
            for title, entries, colour in coloured(models):
                raters = [entry["raters"] for entry in entries]
                axes.plot(raters, [e["accuracy"] for e in entries], "o-", color=colour, label=title)
            labels = [entry["label_accuracy"] for entry in entries]
            axes.plot(raters, labels, "o--", color=DARK, label="the dataset's label")
            axes.set(
                xlabel="agreeing raters of ten", ylabel="accuracy by the raters", ylim=(0, 1.02)
            )
            axes.set_title("The clearer a face, the better")
            axes.legend(fontsize=SMALL)
            axes.grid(axis="y")
        axes = panels[-1]
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
        for title, points, colour in coloured(reliabilities):
            if points:
                confidence, correct, _ = zip(*points, strict=True)
                axes.plot(confidence, correct, "o-", color=colour, label=title)
        axes.set(xlabel="confidence", ylabel="fraction that is correct", xlim=(0, 1), ylim=(0, 1))
        axes.set_title("Confidence after temperature")
        axes.legend(fontsize=SMALL)
        figure.supxlabel(
            "Confidence: on the dashed line, predictions of 70 % are correct 70 times in 100;\n"
            "below it the model is too confident",
            fontsize=SMALL,
            color=GREY,
        )
