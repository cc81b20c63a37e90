"""The parts of explain_models.py: each computes, draws a picture, and returns lines of the text."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ferlab.data.splits import Split
from ferlab.evaluation import explanation_plots as plots
from ferlab.evaluation import explanations as explain
from ferlab.evaluation.disturbances import DISTURBANCES
from ferlab.evaluation.metrics import evaluate_by_raters
from ferlab.training.prediction import predict_members
from ferlab.training.recipe import target_distribution

# Of the pictures: hidden units, faces of a class, faces of a mean, channels, faces of a channel,
# faces of the disagreements.
UNITS, CAM_ROWS, MEAN_OF, CHANNELS, STRONGEST, DISAGREEMENTS = 24, 2, 100, 5, 8, 24


def steps_of(
    models: dict[str, tuple[nn.Module, dict]],
    test: Split,
    expected: torch.Tensor,
    targets: str,
    folder: Path,
) -> list[Callable[[], list[str]]]:
    """Returns what is to be done, in order; each step returns lines of the text.

    Args:
        models: network and content of the weights file by the model's name.
        test: the test split.
        expected: int64 `(N,)`, the class that counts as correct, -1 for none.
        targets: "labels" or "votes".
        folder: where the pictures are written.
    """
    networks = {name: model for name, (model, _) in models.items()}
    steps: list[Callable[[], list[str]]] = []
    if "softmax" in networks:
        steps.append(partial(softmax_pictures, networks["softmax"], test, expected, folder))
    if "basic_nn" in networks:
        steps.append(partial(unit_picture, networks["basic_nn"], test, folder))
    steps.append(partial(shift_picture, models, test, folder))
    if "advanced" in networks:
        steps.append(partial(cam_pictures, networks["advanced"], test, expected, folder))
        steps.append(partial(channel_picture, networks["advanced"], test, folder))
    steps.append(partial(robustness_picture, models, test, targets, folder))
    steps.append(partial(agreement_pictures, models, test, targets, folder))
    return steps


def examples_of(split: Split, expected: torch.Tensor, found: torch.Tensor) -> list[dict]:
    """Returns for each class the rows of correct and of wrong predictions."""
    return [
        {
            "correct": torch.nonzero((expected == label) & (found == label))[:, 0],
            "wrong": torch.nonzero((expected == label) & (found != label))[:, 0],
        }
        for label in range(len(split.class_names))
    ]


def softmax_pictures(
    model: nn.Module, split: Split, expected: torch.Tensor, folder: Path
) -> list[str]:
    """Draws the templates, and a face of each class with its products, every second one wrong."""
    found = explain.predictions(model, split.images)
    examples = []
    for label, rows in enumerate(examples_of(split, expected, found)):
        order = ("wrong", "correct") if label % 2 else ("correct", "wrong")
        kind = next((rows[key] for key in order if len(rows[key])), rows["correct"])
        for row in kind[:1].tolist():
            products = explain.contributions(model.linear, split.images[[row]], found[[row]])
            examples.append(
                {
                    "face": split.images[row, 0].numpy(),
                    "products": products[0].numpy(),
                    "label": split.class_names[label],
                    "predicted": split.class_names[found[row]],
                }
            )
    weights = explain.templates(model.linear).numpy()
    plots.plot_templates(folder / "explain_softmax.png", split.class_names, weights, examples)
    return []


def cam_pictures(model: nn.Module, split: Split, expected: torch.Tensor, folder: Path) -> list[str]:
    """Draws the CNN's Grad-CAM on single faces and averaged; returns the lines of the text."""
    names = split.class_names
    found = explain.predictions(model, split.images)
    groups = examples_of(split, expected, found)
    rows: list[list[dict]] = [[{} for _ in names] for _ in range(2 * CAM_ROWS)]
    columns: list[dict] = []
    agreements = []
    for label, group in enumerate(groups):
        for number, (kind, chosen) in enumerate(group.items()):
            chosen = chosen[:CAM_ROWS]
            if not len(chosen):
                continue
            maps = explain.cams(model, split.images[chosen], found[chosen])
            for place, (row, heat) in enumerate(zip(chosen, maps, strict=True)):
                rows[number * CAM_ROWS + place][label] = {
                    "face": split.images[row, 0].numpy(),
                    "heat": heat.numpy(),
                    "text": names[found[row]],
                    "correct": kind == "correct",
                }
        correct = group["correct"][:MEAN_OF]
        if not len(correct):
            columns.append({})
            continue
        images, classes = split.images[correct], found[correct]
        cams = explain.cams(model, images, classes)
        hidden = explain.occlusion(model, images, classes)
        agreements.append((explain.correlation(cams, hidden), len(correct)))
        columns.append(
            {
                "face": images[:, 0].mean(0).numpy(),
                "cam": explain.scaled(cams.mean(0)[None])[0].numpy(),
                "occlusion": explain.scaled(hidden.mean(0)[None])[0].numpy(),
                "n": len(correct),
            }
        )
    plots.plot_cams(folder / "explain_cnn.png", names, rows)
    plots.plot_mean_maps(folder / "explain_cnn_mean.png", names, columns)
    total = sum(count for _, count in agreements)
    mean = sum(value * count for value, count in agreements) / max(1, total)
    return [f"correlation of Grad-CAM and occlusion, {total} correct faces: {mean:.2f}", ""]


def channel_picture(model: nn.Module, split: Split, folder: Path) -> list[str]:
    """Draws the faces to which channels of the CNN's first layer and middle block respond most."""
    middle = len(model.stages) // 2
    layers = {
        "first layer": model.stem[:4],
        "middle block": nn.Sequential(model.stem, *model.stages[:middle]),
    }
    blocks = {}
    for name, layer in layers.items():
        rows, places = explain.strongest(layer, split.images, CHANNELS, STRONGEST)
        blocks[name] = [
            [
                {"face": split.images[row, 0].numpy(), "place": place.tolist()}
                for row, place in zip(each, where, strict=True)
            ]
            for each, where in zip(rows, places, strict=True)
        ]
    plots.plot_strongest(folder / "explain_cnn_channels.png", blocks)
    return []


def shift_picture(models: dict, split: Split, folder: Path) -> list[str]:
    """Draws how many predictions a shift changes; returns the lines of the text."""
    changed = {
        content["run"]["title"]: explain.changed_by_shift(model, split.images)
        for model, content in models.values()
    }
    plots.plot_shifts(folder / "explain_shift.png", explain.SHIFTS, changed)
    lines = ["Fraction of predictions that a shift changes, by pixels"]
    lines.append(f"{'':22}" + "".join(f"{pixels:8}" for pixels in explain.SHIFTS))
    for title, values in changed.items():
        lines.append(f"{title:22}" + "".join(f"{value:8.3f}" for value in values))
    return [*lines, ""]


def robustness_picture(models: dict, split: Split, targets: str, folder: Path) -> list[str]:
    """Draws accuracy under disturbances; returns the lines of the text."""
    results = {
        content["run"]["title"]: explain.robustness(model, split, targets)
        for model, content in models.values()
    }
    judge = "by the labels" if targets == "labels" else "by the raters' majority"
    plots.plot_robustness(folder / "explain_robustness.png", DISTURBANCES, results, judge)
    lines = [f"Accuracy on disturbed test images, {judge}, one view [95 % interval]"]
    for disturbance in DISTURBANCES:
        lines.append(f"{disturbance.name}, {disturbance.unit}")
        heads = "".join(f"{strength:>21g}" for strength in disturbance.strengths)
        lines.append(f"{'':22}{heads}")
        for title, numbers in results.items():
            cells = []
            for entry in numbers[disturbance.name]:
                low, high = entry["accuracy_interval"]
                cells.append(f"{entry['accuracy']:.3f} [{low:.3f}, {high:.3f}]")
            lines.append(f"{title:22}" + "".join(f"{cell:>21}" for cell in cells))
    return [*lines, ""]


def unit_picture(model: nn.Module, split: Split, folder: Path) -> list[str]:
    """Draws the MLP's most used hidden units; returns the lines of the text."""
    weights, use = explain.used_units(model.layers, split.images, UNITS)
    plots.plot_units(folder / "explain_mlp.png", weights.numpy(), use.numpy())
    part = float(use.sum())
    return [f"MLP: the {UNITS} most used hidden units make {part:.1%} of the use of all", ""]


def agreement_pictures(models: dict, split: Split, targets: str, folder: Path) -> list[str]:
    """Draws reliability, accuracy by agreeing raters, and disagreements; returns the lines."""
    reliabilities, by_agreement, lines = {}, {}, []
    voted = split.votes is not None
    aim = target_distribution(split, targets).numpy()
    counted = aim.sum(1) > 0
    for name, (model, content) in models.items():
        title = content["run"]["title"]
        probs, _, calibrated = predict_members([(model, content["temperature"])], split.images)
        preds = calibrated.argmax(1)
        correct = aim[np.arange(len(aim)), preds]
        reliabilities[title] = explain.reliability(calibrated[counted], correct[counted])
        lines.append(f"{title}: confidence, fraction that is correct, images")
        lines += [f"  {c:.3f} {a:.3f} {n:6,}" for c, a, n in reliabilities[title]]
        if voted:
            by_agreement[title] = evaluate_by_raters(split, probs, 0)["by_agreement"]
            lines.append(f"{title}: agreeing raters, images, accuracy, the label's accuracy")
            lines += [
                f"  {e['raters']:2} {e['n']:5,} {e['accuracy']:.3f} {e['label_accuracy']:.3f}"
                for e in by_agreement[title]
            ]
        if voted and name == "advanced":
            disagreement_picture(split, probs.argmax(1), folder)
    plots.plot_agreement(folder / "explain_confidence.png", by_agreement, reliabilities)
    return [*lines, ""]


def disagreement_picture(split: Split, preds: np.ndarray, folder: Path) -> None:
    """Draws faces on which label, raters and the CNN's prediction differ, clear faces first."""
    labels, majority = split.labels.numpy(), split.majority.numpy()
    agreement = split.agreement.numpy()
    differ = (majority >= 0) & ((labels != majority) | (preds != majority))
    rows = np.random.default_rng(0).permutation(np.flatnonzero(differ))  # of all classes
    rows = rows[np.argsort(-agreement[rows], kind="stable")]
    names = split.class_names
    entries = [
        {
            "face": split.images[row, 0].numpy(),
            "label": names[labels[row]],
            "raters": f"raters {names[majority[row]]}, {agreement[row]}",
            "predicted": names[preds[row]],
            "model_with_raters": preds[row] == majority[row],
        }
        for row in rows[:DISAGREEMENTS]
    ]
    plots.plot_disagreements(folder / "explain_disagreements.png", entries, len(rows))
