"""Datasets in a CSV: rows of pixels as in fer2013.csv, and lists of paths and labels."""

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ferlab.data.classes import plain
from ferlab.data.found import Found, split_of, subfolders
from ferlab.files import UserError

PATH_COLUMNS = (
    "path", "file", "filepath", "file_path", "filename", "file_name", "image", "image_path",
    "imagepath", "image_name", "img", "pth", "subdirectory_filepath",
)  # fmt: skip
LABEL_COLUMNS = ("label", "emotion", "expression", "class", "class_name", "emotion_label")
SPLIT_COLUMNS = ("usage", "split", "set", "subset", "partition")
AFFECTNET_COLUMN = "subdirectory_filepath"  # of AffectNet's training.csv and validation.csv
AFFECTNET_OTHER = {"8": "none", "9": "uncertain", "10": "no face", "11": "none"}
BOX_COLUMNS = ("face_x", "face_y", "face_width", "face_height")
LARGEST = 1e9  # of a face box's numbers, pixels


def header_of(path: Path) -> list[str]:
    """Returns the columns of a CSV in lower case; an empty list if the file is not text.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 16).decode("utf-8-sig")
    except UnicodeDecodeError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return [name.strip().strip('"').lower() for name in line.strip().split(delimiter_of(line))]


def delimiter_of(header: str) -> str:
    """Returns what separates the columns: a comma, a semicolon or a tab."""
    return max(",;\t", key=header.count)


def column(header: list[str], names: tuple[str, ...], path: Path) -> int | None:
    """Returns the index of the column with one of `names`; None if there is none.

    Raises:
        UserError: several columns have such a name.
    """
    fitting = [index for index, name in enumerate(header) if name in names]
    if len(fitting) > 1:
        columns = " and ".join(header[index] for index in fitting)
        raise UserError(f"{path}: columns {columns} both fit; rename all but the one to use")
    return fitting[0] if fitting else None


def is_pixel_table(path: Path) -> bool:
    """Returns whether a CSV has FER2013's columns `emotion` and `pixels`."""
    return {"emotion", "pixels"} <= set(header_of(path))


def read_pixel_table(path: Path, base: Path) -> Found:
    """Lists the rows of a CSV with the columns emotion, pixels and, if it has splits, Usage.

    Args:
        path: the CSV, such as fer2013.csv or icml_face_data.csv.
        base: folder that the names are relative to.

    Raises:
        UserError: a row has another number of columns, or an unknown Usage.
    """
    header = header_of(path)
    emotion, usage = header.index("emotion"), column(header, SPLIT_COLUMNS, path)
    found = Found(f"CSV of pixels, {path.name}", order="fer2013", table=path)
    found.splits = None if usage is None else []
    offsets, prefix = [], path.relative_to(base).as_posix()
    with path.open("rb") as file:
        offset = len(file.readline())
        for row, line in enumerate(file):
            start, offset = offset, offset + len(line)
            if not line.strip():
                continue
            cells = _pixel_cells(line)
            if len(cells) != len(header):
                raise UserError(
                    f"{path}, row {row}: {len(cells)} columns in place of {len(header)} "
                    f"({', '.join(header)}); the file is damaged, get it again"
                )
            found.names.append(f"{prefix}/{row}")
            found.classes.append(plain(cells[emotion].strip('" ')))
            offsets.append(start)
            if usage is not None:
                found.splits.append(_split(cells[usage].strip('" '), path, row))
    found.offsets = np.array(offsets, dtype=np.int64)
    return found


def pixels_of_row(line: bytes, index: int) -> np.ndarray:
    """Returns the image of a row of a pixel table, uint8 `(side, side)`.

    Args:
        line: the row.
        index: of the column `pixels`.

    Raises:
        ValueError: the pixels are not those of a square image.
    """
    cells = _pixel_cells(line)
    text = cells[index].strip('" ') if index < len(cells) else ""
    values = np.fromstring(text, dtype=np.int64, sep=" ")
    side = round(len(values) ** 0.5)
    if side == 0 or side * side != len(values):
        raise ValueError(f"{len(values)} pixels are not a square image")
    if values.min() < 0 or values.max() > 255:
        raise ValueError("pixels are not within 0 to 255")
    return values.astype(np.uint8).reshape(side, side)


def _pixel_cells(line: bytes) -> list[str]:
    """Returns the cells of a row, separated by any of the delimiters of `delimiter_of`."""
    text = line.decode("latin-1").rstrip("\r\n")
    return text.replace(";", ",").replace("\t", ",").split(",")


def is_list(path: Path) -> bool:
    """Returns whether a CSV lists paths and labels of images that are there."""
    header = header_of(path)
    if column(header, PATH_COLUMNS, path) is None or column(header, LABEL_COLUMNS, path) is None:
        return False
    return images_folder(path) is not None


def images_folder(path: Path) -> Path | None:
    """Returns the folder that the paths of a list are relative to; None if none fits.

    The folder has the first file of the list. It is the CSV's folder, one in it or beside it, or a
    subfolder of one of these.
    """
    rows = _rows(path)
    index = column(header_of(path), PATH_COLUMNS, path)
    first = next((_file(cells[index]) for _, cells in rows if len(cells) > index), None)
    if first is None:
        return None
    for level in ([path.parent], subfolders(path.parent), subfolders(path.parent.parent)):
        for folder in (*level, *(inner for outer in level for inner in subfolders(outer))):
            if (folder / first).is_file():
                return folder
    return None


def read_lists(paths: list[Path], base: Path) -> Found:
    """Lists the images of CSVs of paths and labels, such as AffectNet's.

    Args:
        paths: one CSV; or several, each named as its split.
        base: folder that the names are relative to.

    Raises:
        UserError: a row is incomplete, has an unknown split or a wrong face box; or only some of
            the CSVs have face boxes.
    """
    if len({set(BOX_COLUMNS) <= set(header_of(path)) for path in paths}) > 1:
        raise UserError(
            f"{' and '.join(map(str, paths))}: some have the columns {', '.join(BOX_COLUMNS)} and "
            "others do not; add them to all, or remove them from all"
        )
    affectnet = all(AFFECTNET_COLUMN in header_of(path) for path in paths)
    kind = "AffectNet's annotations" if affectnet else "CSV of paths and labels"
    found = Found(f"{kind}, {', '.join(p.name for p in paths)}", splits=[])
    found.order = "affectnet" if affectnet else None
    boxes: list[list[int]] = []
    for path in paths:
        _read_list(path, base, split_of_list(path) if len(paths) > 1 else None, found, boxes)
    if len(paths) == 1 and column(header_of(paths[0]), SPLIT_COLUMNS, paths[0]) is None:
        found.splits = None
    if boxes:
        found.boxes = np.array(boxes, dtype=np.int64)
    return found


def split_of_list(path: Path) -> str | None:
    """Returns the split in a CSV's name, as in train.csv, train_labels.csv; None if none."""
    return split_of(path.stem) or split_of(path.stem.replace("-", "_").split("_")[0])


def _read_list(
    path: Path, base: Path, split: str | None, found: Found, boxes: list[list[int]]
) -> None:
    """Adds the rows of one list to `found`, and the face boxes that it has to `boxes`."""
    header, folder = header_of(path), images_folder(path)
    if folder is None:
        raise UserError(f"{path}: the images it lists are not there; put them beside it")
    prefix = Path(os.path.relpath(folder, base)).as_posix()
    prefix = "" if prefix == "." else f"{prefix}/"
    file, label = column(header, PATH_COLUMNS, path), column(header, LABEL_COLUMNS, path)
    usage = column(header, SPLIT_COLUMNS, path)
    boxed = set(BOX_COLUMNS) <= set(header)
    for row, cells in _rows(path):
        if len(cells) != len(header):
            raise UserError(
                f"{path}, row {row}: {len(cells)} columns in place of {len(header)} "
                f"({', '.join(header)})"
            )
        name = plain(cells[label])
        if found.order == "affectnet" and name in AFFECTNET_OTHER:
            found.left_out[f"expression {name}, {AFFECTNET_OTHER[name]}"] += 1
            continue
        name_of_file = _file(cells[file])
        absolute = Path(name_of_file).is_absolute()
        found.names.append(name_of_file if absolute else prefix + name_of_file)
        found.classes.append(name)
        found.splits.append(split or ("all" if usage is None else _split(cells[usage], path, row)))
        if boxed:
            boxes.append(_box([cells[header.index(name)] for name in BOX_COLUMNS], path, row))


def _box(cells: list[str], path: Path, row: int) -> list[int]:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = [math.nan]
    if not all(abs(number) < LARGEST for number in numbers):
        raise UserError(f"{path}, row {row}: {','.join(cells)} is not a face box, four numbers")
    return [round(number) for number in numbers]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a CSV below its header, with their number, counted from 0."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = delimiter_of(file.readline())
            for row, cells in enumerate(csv.reader(file, delimiter=delimiter)):
                if cells:
                    yield row, cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is damaged or no CSV: {error}") from error


def _file(cell: str) -> str:
    """Returns a path with slashes; lists made on Windows have backslashes."""
    return cell.strip().replace("\\", "/")


def _split(name: str, path: Path, row: int) -> str:
    split = split_of(name)
    if split is None:
        raise UserError(
            f"{path}, row {row}: {name!r} is not the name of a split, as Training, PublicTest, "
            "PrivateTest, train, val, test"
        )
    return split
