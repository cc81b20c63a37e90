"""CSV files given to the benchmarks."""

import csv
from pathlib import Path

from ferlab.files import UserError


def read_rows(path: Path, columns: tuple[str, ...], flag: str) -> list[dict[str, str]]:
    """Returns the rows of a CSV file with at least the given columns.

    Args:
        path: the file.
        columns: names of the columns.
        flag: the flag that the file was given by, for messages.

    Raises:
        UserError: the file cannot be read, lacks a column or a value, or has no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # with the mark of some editors
            reader = csv.DictReader(file)
            rows, header = list(reader), reader.fieldnames or []
    except OSError as error:
        raise UserError(f"cannot read {flag} {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{flag} {path} is not a CSV file: {error}") from error
    missing = [name for name in columns if name not in header]
    if missing:
        raise UserError(
            f"{flag} {path} has no column {', '.join(missing)}; its first line must name the "
            f"columns {', '.join(columns)}"
        )
    if not rows:
        raise UserError(f"{flag} {path} has no rows")
    for number, row in enumerate(rows, start=2):
        if any(row[name] is None for name in columns):
            raise UserError(f"{flag} {path}, line {number}: has fewer values than columns")
    return rows
