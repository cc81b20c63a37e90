"""The results of a study: text for people, a row a trial, and a plot."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest

from ferlab.evaluation.plots import plot_tuning
from ferlab.evaluation.reports import wrapped
from ferlab.files import atomic_path, write_text
from ferlab.search_space import flags_of, text_of

SHOWN = 10  # trials in the table of the text
STATES = {
    "complete": "ran to the end",
    "stopped": "stopped early",
    "diverged": "diverged",
    "interrupted": "interrupted",
    "running": "still running",
}


@dataclass(frozen=True)
class Report:
    """What is told of a study.

    Attributes:
        script: that was tuned.
        study: the study's name and place.
        data: the splits' folder and sizes.
        val_images: number of images in val.
        epochs: of a trial that runs to its end.
        rows: a dict a trial, see `tuning.rows`.
        defaults: the script's own values of the tuned parameters.
        log_scaled: the parameters that were searched on a log scale.
        importances: each parameter's share, see `tuning.importances`; empty for too few trials.
        rung: the epoch that `importances` are about.
        command: the best trial's command; None while no trial ran to its end.
        own_epochs: of the script, where no flag says otherwise.
    """

    script: str
    study: str
    data: str
    val_images: int
    epochs: int
    rows: list[dict]
    defaults: dict[str, float | str]
    log_scaled: frozenset[str]
    importances: dict[str, float]
    rung: int
    command: str | None
    own_epochs: int


def write(folder: Path, name: str, report: Report) -> str:
    """Writes `<name>_tuning.txt`, `.csv` and `.png`; returns the text."""
    text = report_text(report)
    write_text(folder / f"{name}_tuning.txt", text)
    _write_csv(folder / f"{name}_tuning.csv", report)
    measured = [row for row in report.rows if row["val_accuracy"] is not None]
    if measured:
        title = f"Tuning of {report.script}, {report.epochs} epochs a trial"
        path = folder / f"{name}_tuning.png"
        plot_tuning(path, title, measured, report.defaults, report.log_scaled)
    return text


def best_first(rows: list[dict]) -> list[dict]:
    """Returns the trials, those that ran to their end first, each kind from the best down."""
    measured = [row for row in rows if row["val_accuracy"] is not None]
    return sorted(
        measured, key=lambda row: (row["state"] == "complete", row["val_accuracy"]), reverse=True
    )


def report_text(report: Report) -> str:
    """Returns the results file for people."""
    title = f"Tuning of {report.script}"
    states = Counter(row["state"] for row in report.rows)
    told = [f"{states[state]} {words}" for state, words in STATES.items() if states[state]]
    seconds = sum(row["seconds"] or 0 for row in report.rows)
    workers = len({row["worker"] for row in report.rows})
    facts = {
        "study": report.study,
        "data": f"{report.data}; test was not read",
        "trials": f"{', '.join(told)}; {report.epochs} epochs at most",
        "time": f"{seconds:,.0f} s in trials, {workers} process{'es' if workers > 1 else ''}",
        "machine": " and ".join(sorted({row["machine"] for row in report.rows})),
    }
    lines = [title, "=" * len(title), ""]
    for label, value in facts.items():
        lines += wrapped(f"{label:10} {value}", indent=11)
    lines += ["", *_outcome(report), ""]
    if report.importances:
        lines += [f"What val accuracy after epoch {report.rung} depends on (fANOVA, all trials)"]
        for name, value in report.importances.items():
            lines.append(f"{name:18}{100 * value:4.0f} % {'#' * round(40 * value)}".rstrip())
        lines.append("")
    lines += [f"The best {min(SHOWN, len(best_first(report.rows)))} trials", *_table(report)]
    return "\n".join(lines) + "\n"


def _outcome(report: Report) -> list[str]:
    """The best trial beside the defaults, and how far to trust it."""
    if report.command is None:
        return ["No trial has run to its end yet."]
    best = best_first(report.rows)[0]
    own = [r for r in best_first(report.rows) if r["params"] == report.defaults]
    lines = [f"{'val accuracy':14}{'[95 % interval]':>25}{'trial':>8}{'best epoch':>12}"]
    for label, row in (("best", best), ("defaults", own[0] if own else None)):
        if row is not None and row["state"] == "complete":
            lines.append(
                f"{label:14}{_with_interval(row['val_accuracy'], report.val_images):>25}"
                f"{row['trial']:>8}{row['best_epoch']:>12}"
            )
    lines += ["", "The best trial's flags, as a command (it reads test, once, at its end)"]
    lines += [report.command, ""]
    note = (
        "The best of many trials on val is optimistic: a part of its lead is luck with the "
        f"{report.val_images:,} faces of val. What it is worth on new faces, only test tells."
    )
    if report.own_epochs != report.epochs:
        note += (
            f" Without --epochs the command trains the script's own {report.own_epochs} epochs, "
            "for which other values may be best."
        )
    return lines + wrapped(note)


def _with_interval(accuracy: float, images: int) -> str:
    interval = binomtest(round(accuracy * images), images).proportion_ci(0.95, "wilson")
    return f"{accuracy:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _table(report: Report) -> list[str]:
    return [
        f"{'trial':>5} {'val accuracy':>12} {'epochs':>6}  {'state':11} flags",
        *(trial_line(row) for row in best_first(report.rows)[:SHOWN]),
    ]


def trial_line(row: dict) -> str:
    """Returns a trial as a line: number, val accuracy, epochs, state, parameters."""
    accuracy = "-" if row["val_accuracy"] is None else f"{row['val_accuracy']:.4f}"
    return (
        f"{row['trial']:>5} {accuracy:>12} {row['epochs']:>6}  {row['state']:11} "
        f"{' '.join(flags_of(row['params']))}"
    )


def _write_csv(path: Path, report: Report) -> None:
    names = list(report.defaults)
    fields = ["trial", "state", "val_accuracy", "best_epoch", "epochs", "seconds"]
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*fields, *names])
        for row in report.rows:
            numbers = [f"{v:.6g}" if isinstance(v := row[key], float) else v for key in fields]
            writer.writerow([*numbers, *(text_of(row["params"].get(name, "")) for name in names)])
