"""Adds runs to docs/experiments.csv, one row each, from the metrics files that they wrote.

    python benchmarks/experiments.py results results/votes --note "reference"

Takes every `*_metrics.json` below the folders. A run that is already in the table, with any
commit and note, is not added again. `data` is the digest of the train split (images, labels and
votes), `commit` that of the working tree. Accuracies are by the labels and by the raters' majority.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferlab import cli, entry
from ferlab.constants import ROOT
from ferlab.files import UserError, read_json, write_csv

TABLE = ROOT / "docs" / "experiments.csv"
COLUMNS = (
    "id", "model", "targets", "command", "commit", "data", "hardware", "seed", "parameters",
    "val_labels", "val_raters", "test_labels", "test_raters", "seconds", "note",
)  # fmt: skip
OF_A_RUN = [name for name in COLUMNS if name not in ("id", "commit", "note")]


def parser() -> argparse.ArgumentParser:
    """Returns the script's flags."""
    result = cli.parser(__doc__)
    result.add_argument("folders", type=Path, nargs="+", help="folders of results")
    result.add_argument("--note", default="", help="note on these runs")
    return result


def row_of(path: Path, commit: str, note: str) -> dict:
    """Returns the row of a metrics file.

    Raises:
        UserError: it is no metrics file.
    """
    try:
        record = read_json(path)
        run = record["run"]
        row = {
            "model": record["model"],
            "targets": run.get("targets", "labels"),
            "command": run.get("evaluated_by", run["command"]),
            "commit": commit,
            "data": record.get("train", record.get("val", {})).get("digest", ""),
            "hardware": f"{run['device_name']}, {run['threads']} threads, {run['precision']}",
            "seed": run["seed"],
            "parameters": record["parameters"],
            "seconds": round(run["seconds"]),
            "note": note,
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not what the model scripts write ({error})") from error
    for split in ("val", "test"):
        numbers = record.get(split, {})
        for column, judged in (("labels", numbers), ("raters", numbers.get("raters", {}))):
            value = judged.get("accuracy")
            row[f"{split}_{column}"] = "" if value is None else f"{value:.4f}"
    return row


def read_table() -> list[dict]:
    """Returns the rows of the table, none if there is no table yet."""
    if not TABLE.is_file():
        return []
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Adds the rows; returns the exit code."""
    args = parser().parse_args(argv)
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    rows = read_table()
    known = {tuple(row[key] for key in OF_A_RUN) for row in rows}
    added = 0
    for path in sorted(path for folder in args.folders for path in folder.rglob("*_metrics.json")):
        row = {key: str(value) for key, value in row_of(path, commit, args.note).items()}
        if tuple(row[key] for key in OF_A_RUN) not in known:
            rows.append({"id": str(len(rows) + 1), **row})
            added += 1
    write_csv(TABLE, COLUMNS, rows)
    print(f"added {added} of {len(rows)} rows to {TABLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
