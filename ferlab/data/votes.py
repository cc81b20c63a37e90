"""FER+'s votes: how ten people judged each image of FER2013 (arXiv 1608.01041).

The table, `fer2013new.csv` of github.com/microsoft/FERPlus, has the rows of `fer2013.csv`.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferlab.constants import CLASS_NAMES, RATERS
from ferlab.data.classes import canonical
from ferlab.files import UserError, require_file

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)
COLUMNS = HEADER.split(",")[2:]  # the counts; NF: not a face
COUNTS = frozenset(map(str, range(RATERS + 1)))  # the possible counts, as text
EXPRESSIONS = 8  # the first eight columns are expressions
ROWS = 35_887  # rows of fer2013.csv
LEAST_AGREEMENT = 0.5  # of label and majority; it is 0.67 with the right rows, 0.18 shifted by one
REMEDY = (
    "get it with: python download_dataset.py, "
    "or go on without votes: python dataset_preparation.py --no-votes"
)


@dataclass(frozen=True)
class Votes:
    """The votes on N images.

    Attributes:
        votes: float32 `(N, classes)`: fraction of the votes for each class; a row sums to 1, or to
            0 where nobody voted for any of the classes.
        majority: int64 `(N,)`: class of the majority; -1 where there is none, and where it is
            contempt, unknown or not a face. The rule of Barsoum et al. 2016 (arXiv 1608.01041):
            single votes are dropped; a majority is more than half of what is left.
        agreement: int64 `(N,)`: how many raters chose the majority's expression, contempt
            included; 0 where there is no such expression.
        no_face: bool `(N,)`: whether the majority is "not a face".
    """

    votes: np.ndarray
    majority: np.ndarray
    agreement: np.ndarray
    no_face: np.ndarray


def read_table(path: Path) -> np.ndarray:
    """Reads the counts of `fer2013new.csv`: int64 `(35887, 10)`, columns as in COLUMNS.

    Raises:
        UserError: the file is missing, cannot be read or is not that table.
    """
    require_file(path, REMEDY)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {REMEDY}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not FER+'s table: it is not a CSV file; {REMEDY}") from error
    if ",".join(header) != HEADER:
        raise UserError(f"{path} is not FER+'s table: its columns are not {HEADER}; {REMEDY}")
    if len(rows) != ROWS:
        raise UserError(f"{path} has {len(rows):,} rows, not {ROWS:,} as fer2013.csv; {REMEDY}")
    for number, row in enumerate(rows):
        counts = row[2:]
        valid = len(counts) == len(COLUMNS) and COUNTS.issuperset(counts)
        if not valid or not 0 < sum(map(int, counts)) <= RATERS:
            raise UserError(
                f"{path}, row {number}: {','.join(row)} is not {len(COLUMNS)} counts that sum to "
                f"{RATERS} raters or fewer; {REMEDY}"
            )
    return np.array([row[2:] for row in rows], dtype=np.int64)


def mostly_rows(files: Sequence[str]) -> bool:
    """Returns whether the names of most files are rows of fer2013.csv, see `row_numbers`."""
    return 2 * sum(_row(file) is not None for file in files) > len(files)


def row_numbers(files: Sequence[str]) -> np.ndarray:
    """Returns the row of each image: int64 `(N,)`.

    The file's name is the row, as 12.jpg, or as FER+'s fer0000012.png.

    Raises:
        UserError: a name is not a row of the table.
    """
    rows = [_row(file) for file in files]
    for file, row in zip(files, rows, strict=True):
        if row is None:
            raise UserError(
                f"{file} has no votes: its name is not a row of fer2013.csv, 0 to {ROWS - 1}; "
                "prepare this dataset with --no-votes"
            )
    return np.array(rows, dtype=np.int64)


def _row(file: str) -> int | None:
    match = re.fullmatch(r"(?:.*/)?(?:fer)?(\d{1,9})(?:\.[^/]*)?", file)
    return int(match[1]) if match and int(match[1]) < ROWS else None


def summarise(counts: np.ndarray, class_names: Sequence[str] = CLASS_NAMES) -> Votes:
    """Returns the votes on images.

    Args:
        counts: int64 `(N, 10)`, columns as in COLUMNS.
        class_names: the classes. Votes for other expressions are left out. A majority for
            contempt has an agreement even if contempt is not a class.

    Raises:
        UserError: the raters could not choose one of the classes.
    """
    column_of = {canonical(name): index for index, name in enumerate(COLUMNS[:EXPRESSIONS])}
    absent = [name for name in class_names if name not in column_of]
    if absent:
        raise UserError(
            f"FER+ has no votes for {', '.join(absent)}; prepare this dataset with --no-votes"
        )
    columns = [column_of[name] for name in class_names]
    rows = np.arange(len(counts))
    left = np.where(counts == 1, 0, counts)
    winner = left.argmax(1)
    decided = 2 * left[rows, winner] > left.sum(1)
    class_of = np.full(len(COLUMNS), -1)
    class_of[columns] = range(len(columns))
    expression = decided & ((class_of[winner] >= 0) | (winner == COLUMNS.index("contempt")))
    ours = counts[:, columns]
    return Votes(
        votes=(ours / np.maximum(ours.sum(1, keepdims=True), 1)).astype(np.float32),
        majority=np.where(decided, class_of[winner], -1),
        agreement=np.where(expression, counts[rows, winner], 0),
        no_face=decided & (winner == COLUMNS.index("NF")),
    )


def require_aligned(votes: Votes, labels: np.ndarray, path: Path) -> float:
    """Checks that the votes belong to the images; returns the agreement with the labels, in [0, 1].

    Args:
        votes: of N images.
        labels: int `(N,)`, the dataset's labels.
        path: of the table.

    Raises:
        UserError: labels and majorities agree on less than half of the images with a majority.
    """
    decided = votes.majority >= 0
    agreement = float((votes.majority == labels)[decided].mean()) if decided.any() else 0.0
    if agreement < LEAST_AGREEMENT:
        raise UserError(
            f"{path} is not of these images: its majority and the label agree on {agreement:.0%} "
            f"of them, and on 67 % where the rows are right; {REMEDY}"
        )
    return agreement
