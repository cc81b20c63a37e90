"""The results file for people, made from the numbers that the metrics file holds."""

import os
from collections.abc import Sequence
from pathlib import Path

from ferlab.cli import wrapped

TARGETS = {
    "labels": "the dataset's labels",
    "votes": "the votes of ten raters (FER+), as a distribution over the classes",
}
LABEL_ROWS = {  # label: key, and key of its interval
    "accuracy [95 % interval]": ("accuracy", "accuracy_interval"),
    "always the most frequent class": ("majority_accuracy", None),
    "balanced accuracy": ("balanced_accuracy", None),
    "macro precision": ("macro_precision", None),
    "macro recall": ("macro_recall", None),
    "macro F1 [95 % interval]": ("macro_f1", "macro_f1_interval"),
}
RATER_ROWS = {
    "images with a majority": ("n", None),
    "of these contempt, always an error": ("contempt", None),
    **LABEL_ROWS,
    "accuracy of the dataset's label": ("label_accuracy", None),
    "cross-entropy with the votes": ("votes_cross_entropy", None),
    "its lower bound, the raters'": ("votes_entropy", None),
}
CALIBRATION_ROWS = {
    "calibration error": ("ece", None),
    "... after temperature": ("ece_calibrated", None),
}


def last_split(record: dict) -> str:
    """Returns the split that the text and the plots show in full: test, else val, else train."""
    return next(split for split in ("test", "val", "train") if split in record)


def results_text(record: dict, data_dir: str | os.PathLike) -> str:
    """Returns the results file for people (see `write_results` for `record`)."""
    run, shown = record["run"], last_split(record)
    splits = [split for split in ("train", "val", "test") if split in record]
    title = record["title"]
    lines = [title, "=" * len(title), ""]
    facts = {
        "data": f"{Path(data_dir).as_posix()}: "
        + ", ".join(f"{split} {record[split]['n']:,}" for split in splits),
        "classes": ", ".join(record["class_names"]),
        "targets": TARGETS[run["targets"]],
        "weights chosen by": run["chosen_by"],
    }
    if "test" in record:
        evaluated = "evaluated from saved weights; nothing was trained or chosen"
        facts["test"] = evaluated if "evaluated_by" in run else "read once, after training"
    lines += [*_pairs(facts), "", *_split_table(record, splits), ""]
    judges = [("by the labels", record[shown])]
    if "raters" in record[shown]:
        judges.append(("by the raters' majority", record[shown]["raters"]))
        lines += [*_agreement_table(record[shown], shown), ""]
    for judge, numbers in judges:
        lines += [f"Each class {judge}, {shown} split", *_class_table(numbers["per_class"]), ""]
    for judge, numbers in judges:
        lines += [
            f"Confusion matrix {judge}, {shown} split (rows: true class, columns: predicted)",
            *_matrix(numbers["confusion_matrix"], record["class_names"]),
            "",
        ]
    lines += ["The run", *_pairs(_run_facts(record))]
    return "\n".join(lines) + "\n"


def _split_table(record: dict, splits: list[str]) -> list[str]:
    """A column for each split; 95 % intervals: Wilson's for accuracy, bootstrap for macro F1."""
    blocks: list[tuple[str, list[dict], dict]] = [
        ("By the dataset's labels", [record[split] for split in splits], LABEL_ROWS)
    ]
    voted = all("raters" in record[split] for split in splits)
    if voted:
        raters = [record[split]["raters"] for split in splits]
        blocks.append(("By the raters' majority", raters, RATER_ROWS))
    if any("ece" in record[split] for split in splits):
        own = record["run"]["targets"] if voted else "labels"
        heading = f"Calibration by the {own}, one view"
        blocks.append((heading, [record[split] for split in splits], CALIBRATION_ROWS))
    lines = []
    for heading, columns, rows in blocks:
        lines += [""] if lines else []
        lines.append(f"{heading:35}" + "".join(f"{split:>22}" for split in splits))
        for label, (key, interval) in rows.items():
            cells = "".join(f"{_cell(numbers, key, interval):>22}" for numbers in columns)
            lines.append(f"  {label:33}{cells}")
    return lines


def _cell(numbers: dict, key: str, interval: str | None) -> str:
    """Returns a number, with its interval if it has one; "-" where it is missing."""
    value = numbers.get(key)
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if interval is None else with_interval(value, numbers[interval])


def with_interval(value: float, interval: Sequence[float]) -> str:
    """Returns a number with its interval, as "0.5000 [.478, .522]"."""
    low, high = (f"{bound:.3f}".removeprefix("0") for bound in interval)
    return f"{value:.4f} [{low}, {high}]"


def _agreement_table(numbers: dict, split: str) -> list[str]:
    """Accuracy by the number of raters who agree, and with whom they side in the errors."""
    lines = [
        f"Accuracy by the number of agreeing raters, {split} split",
        f"  {'raters of ten':>13} {'images':>8} {'model':>8} {'label':>8}",
    ]
    for row in numbers["raters"]["by_agreement"]:
        lines.append(
            f"  {row['raters']:13} {row['n']:8,} {row['accuracy']:8.4f}"
            f" {row['label_accuracy']:8.4f}"
        )
    errors = numbers["raters"]["errors"]
    count = max(1, errors["n"])
    return [
        *lines,
        *wrapped(
            f"Of {errors['n']:,} errors by the labels, the raters' majority agrees with the model "
            f"in {errors['raters_with_model']:,} ({errors['raters_with_model'] / count:.0%}) and "
            f"with the label in {errors['raters_with_label']:,} "
            f"({errors['raters_with_label'] / count:.0%}).",
            indent=2,
        ),
    ]


def _class_table(per_class: dict[str, dict]) -> list[str]:
    names = max(10, *(len(name) + 1 for name in per_class))
    lines = [f"{'':{names}}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}"]
    for name, numbers in per_class.items():
        ratios = "".join(f"{numbers[key]:10.4f}" for key in ("precision", "recall", "f1"))
        lines.append(f"{name:{names}}{ratios}{numbers['support']:10,}")
    return lines


def _matrix(matrix: list[list[int]], class_names: list[str]) -> list[str]:
    width = max(9, *(len(name) + 1 for name in class_names))
    lines = [" " * (width + 1) + "".join(f"{name:>{width}}" for name in class_names)]
    for name, row in zip(class_names, matrix, strict=True):
        lines.append(f"{name:{width + 1}}" + "".join(f"{count:{width},}" for count in row))
    return lines


def _run_facts(record: dict) -> dict[str, str]:
    run = record["run"]
    facts = {f"member {n}": command for n, command in enumerate(run.get("members", []), 1)}
    facts = facts or {"command": run["command"]}
    if "evaluated_by" in run:
        facts["evaluated by"] = run["evaluated_by"]
        facts["weights"] = run["weights"]
    if "members" not in run:
        facts["seed"] = run["seed"]
    facts["parameters"] = f"{record['parameters']:,}"
    if "network" in run:
        facts["network"] = _settings(run["network"])
    if "epochs" in run:
        facts["epochs"] = f"{run['epochs']}, best {run['best_epoch']}"
        facts["speed"] = f"{run['seconds']:,.0f} s, {run['images_per_second']:,} images/s"
        facts["recipe"] = _recipe(run["recipe"])
    if "temperature" in run:
        temperatures = run["temperature"]
        several = isinstance(temperatures, list)
        shown = ", ".join(f"{t:.3f}" for t in (temperatures if several else [temperatures]))
        facts["temperature"] = f"{shown}, fitted to the {run['targets']} of val in training"
    facts["device"] = f"{run['device']} ({run['device_name']}, {run['threads']} threads)"
    if run.get("processes", 1) > 1:
        facts["device"] += f" in each of {run['processes']} processes"
    facts["versions"] = ", ".join(f"{k} {run[k]}" for k in ("python", "torch", "torchvision"))
    return facts


def _recipe(recipe: dict) -> str:
    """Returns the settings that are in use, without those shown elsewhere."""
    left_out = {"seed", "epochs", "augmentation", "targets"}
    if recipe["targets"] == "votes":
        left_out.add("label_smoothing")  # votes are not smoothed
    if not (recipe["low_resolution_fraction"] and recipe["augmentation"]):
        left_out |= {"low_resolution", "low_resolution_fraction"}
    if not recipe["frozen_epochs"]:
        left_out.add("frozen_lr")
    plain = {k: v for k, v in recipe.items() if k not in left_out and v not in (0, False, "none")}
    augmentation = [
        key if value is True else f"{key} {value:g}"
        for key, value in (recipe["augmentation"] or {}).items()
        if value
    ]
    return f"{_settings(plain)}; augmentation {', '.join(augmentation) or 'none'}"


def _settings(values: dict) -> str:
    """Returns hyperparameters as text, lists as the flags take them."""

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
