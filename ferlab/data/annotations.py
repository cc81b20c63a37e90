"""Datasets with label files of their own: RAF-DB, AffectNet's numbered files, CK+, FER+."""

import csv
import re
from pathlib import Path

import numpy as np

from ferlab.data.classes import canonical
from ferlab.data.found import Found, files_below, split_of, subfolders
from ferlab.data.tables import AFFECTNET_OTHER
from ferlab.data.votes import COLUMNS, COUNTS, EXPRESSIONS, summarise
from ferlab.files import UserError

RAF_LISTS = ("list_patition_label.txt", "list_partition_label.txt")  # the first is RAF-DB's own
CK_LABELS = ("Emotion", "Emotion_labels")
CK_IMAGES = ("cohn-kanade-images", "extended-cohn-kanade-images")
CK_LABEL_FILE = re.compile(r"(S\d+)_(\d+)_(\d+)_emotion\.txt")
FERPLUS_LIST = "label.csv"
NOT_THERE = "listed, but the file is not there"


def raf_list(root: Path) -> Path | None:
    """Returns the path of RAF-DB's list of labels in `root`; None if there is none."""
    paths = [root / folder / name for folder in (".", "EmoLabel") for name in RAF_LISTS]
    return next((path for path in paths if path.is_file()), None)


def read_raf_db(root: Path, base: Path) -> Found:
    """Lists the aligned images of RAF-DB; a row of its list is `train_00001.jpg 5`.

    Raises:
        UserError: the images are not unpacked, or a row is not of this form.
    """
    table = raf_list(root)
    places = [root / "Image" / "aligned", root / "aligned"]
    folder = next((path for path in places if path.is_dir()), None)
    if folder is None:
        raise UserError(
            f"{table} is there, and {places[0]} is not: unpack RAF-DB's aligned.zip to it"
        )
    inner = folder / "aligned"
    folder = inner if inner.is_dir() else folder
    found = Found(f"RAF-DB, {table.name}", splits=[], order="raf-db")
    prefix = folder.relative_to(base).as_posix()
    there = {path.name for path in folder.iterdir()}
    for number, line in enumerate(table.read_text(encoding="latin-1").splitlines()):
        if not line.strip():
            continue
        match = re.fullmatch(r"((train|test)_.+?)\.(\w+)\s+(\d+)", line.strip())
        if match is None:
            raise UserError(f"{table}, line {number + 1}: {line!r} is not as 'train_00001.jpg 5'")
        stem, split, suffix, label = match.groups()
        names = [f"{stem}_aligned.{suffix}", f"{stem}.{suffix}"]
        name = next((name for name in names if name in there), None)
        if name is None:
            found.left_out[NOT_THERE] += 1
            continue
        found.names.append(f"{prefix}/{name}")
        found.classes.append(label)
        found.splits.append(split)
    return found


def affectnet_folders(root: Path) -> list[Path]:
    """Returns the folders `train_set`, `val_set` of AffectNet that hold annotations."""
    return [f for f in subfolders(root) if split_of(f.name) and (f / "annotations").is_dir()]


def read_affectnet(root: Path, base: Path) -> Found:
    """Lists the images of AffectNet: `train_set/images/0.jpg` has `annotations/0_exp.npy`.

    Raises:
        UserError: an annotation is not a number.
    """
    folders = affectnet_folders(root)
    names = ", ".join(folder.name for folder in folders)
    found = Found(f"AffectNet, annotations within {names}", splits=[], order="affectnet")
    for folder in folders:
        prefix = (folder / "images").relative_to(base).as_posix()
        for image in files_below(folder / "images"):
            annotation = folder / "annotations" / f"{Path(image).stem}_exp.npy"
            try:
                label = str(int(np.load(annotation).item()))
            except FileNotFoundError:
                found.left_out["image without annotation"] += 1
                continue
            except (OSError, ValueError, TypeError, EOFError) as error:
                raise UserError(f"{annotation} does not hold a number: {error}") from error
            if label in AFFECTNET_OTHER:
                found.left_out[f"expression {label}, {AFFECTNET_OTHER[label]}"] += 1
                continue
            found.names.append(f"{prefix}/{image}")
            found.classes.append(label)
            found.splits.append(split_of(folder.name))
    return found


def ck_folders(root: Path) -> tuple[Path, Path] | None:
    """Returns the folders of CK+'s emotion labels and of its images; None if one is missing."""
    labels = next((root / name for name in CK_LABELS if (root / name).is_dir()), None)
    images = next((root / name for name in CK_IMAGES if (root / name).is_dir()), None)
    if labels is None or images is None:
        return None
    return _unwrapped(labels), _unwrapped(images)


def read_ck(root: Path, base: Path) -> Found:
    """Lists the peak frame of each labelled sequence of CK+, to which the label applies.

    Raises:
        UserError: a label file does not hold a number.
    """
    labels, images = ck_folders(root)
    found = Found("CK+, the peak frame of each labelled sequence", order="ck+")
    prefix = images.relative_to(base).as_posix()
    frames = sum(1 for _ in images.glob("*/*/*.png"))
    for path in sorted(labels.rglob("*_emotion.txt")):
        match = CK_LABEL_FILE.fullmatch(path.name)
        if match is None:
            continue
        person, sequence, frame = match.groups()
        name = f"{person}/{sequence}/{person}_{sequence}_{frame}.png"
        if not (images / name).is_file():
            found.left_out[NOT_THERE] += 1
            continue
        try:
            found.classes.append(str(int(float(path.read_text(encoding="latin-1")))))
        except (ValueError, OverflowError) as error:
            raise UserError(f"{path} does not hold the number of an emotion: {error}") from error
        found.names.append(f"{prefix}/{name}")
    others = frames - len(found.names)
    found.left_out["frame that is not the peak of a labelled sequence"] = others
    return found


def ferplus_folders(root: Path) -> list[Path]:
    """Returns the folders `FER2013Train` and so on of FER+ that hold a list of votes."""
    return [f for f in subfolders(root) if split_of(f.name) and (f / FERPLUS_LIST).is_file()]


def read_ferplus(root: Path, base: Path) -> Found:
    """Lists the images of FER+; their class is the raters' majority, see `votes.summarise`.

    A row of `FER2013Train/label.csv` is `fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0`: the
    last ten numbers count the votes.

    Raises:
        UserError: a row is not of this form.
    """
    folders = ferplus_folders(root)
    names = ", ".join(folder.name for folder in folders)
    found = Found(f"FER+, {FERPLUS_LIST} within {names}", splits=[])
    expressions = [canonical(name) for name in COLUMNS[:EXPRESSIONS]]
    for folder in folders:
        prefix = folder.relative_to(base).as_posix()
        rows = _votes_of(folder / FERPLUS_LIST)
        counts = np.array([row[2:] for row in rows], dtype=np.int64).reshape(-1, len(COLUMNS))
        votes = summarise(counts, expressions)
        for (name, *_), majority, no_face in zip(rows, votes.majority, votes.no_face, strict=True):
            if not (folder / name).is_file():
                found.left_out[NOT_THERE] += 1
            elif majority < 0:
                found.left_out["no face, by the raters" if no_face else "without a majority"] += 1
            else:
                found.names.append(f"{prefix}/{name}")
                found.classes.append(expressions[majority])
                found.splits.append(split_of(folder.name))
    return found


def _votes_of(path: Path) -> list[list[str]]:
    """Returns the rows of a list of votes of FER+.

    Raises:
        UserError: a row is not a name, a box, and a count for each of COLUMNS.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file: {error}") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 + len(COLUMNS) or not COUNTS.issuperset(row[2:]):
            raise UserError(
                f"{path}, row {number}: {','.join(row)} is not a name, a box and {len(COLUMNS)} "
                "counts of votes, as FER+ has them"
            )
    return rows


def _unwrapped(folder: Path) -> Path:
    """Returns the folder of the subjects S005 and so on, which may be in a further folder."""
    inner = subfolders(folder)
    wrapped = len(inner) == 1 and not re.fullmatch(r"S\d+", inner[0].name)
    return inner[0] if wrapped else folder
