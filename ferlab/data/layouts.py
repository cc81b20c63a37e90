"""Finds out the form of a dataset, its classes and its splits, without guessing.

docs/data.md has the table of the forms. A dataset that can be understood in two ways is refused, by
a `UserError` with the flag or the path that decides.
"""

import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ferlab.constants import SPLITS
from ferlab.data import annotations, folders, tables
from ferlab.data.classes import chosen_classes, class_map_of, plain
from ferlab.data.found import Found, subfolders
from ferlab.files import UserError

DEPTH = 4  # levels of folders that are searched, the source itself included
SHOWN = 4  # places named in an error
TAR_REMEDY = (
    "is a tar archive; unpack it with tar -xf, and name what is in it with: "
    "python dataset_preparation.py --source FOLDER"
)


class NoDatasetError(UserError):
    """There is no dataset of a known form at a source."""


@dataclass(frozen=True)
class Layout:
    """A dataset as it was understood; images are in the order of split, class, source.

    Attributes:
        form: the name of the dataset's form, which is printed.
        root: where the dataset was found.
        base: folder that `names` are relative to.
        names: object `(N,)`, files, or `<csv>/<row>` for rows of pixels.
        labels: int64 `(N,)`, indices into `class_names`.
        splits: indices into `names` by "train", "val", "test"; by "all" if there are no splits.
        class_names: the classes, alphabetical.
        class_map: the class, "" for none, by the dataset's name of it.
        left_out: number of files or rows that are not used, by the reason.
        rows: number of images that the source lists, including those of left-out classes.
        table: the CSV of pixels; None for files.
        offsets: int64 `(N,)`, where each row begins in `table`, bytes; None for files.
        boxes: int64 `(N, 4)`, the face (x, y, w, h) in each image, pixels; None: the whole image.
    """

    form: str
    root: Path
    base: Path
    names: np.ndarray
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    class_map: dict[str, str]
    left_out: dict[str, int]
    rows: int
    table: Path | None = None
    offsets: np.ndarray | None = None
    boxes: np.ndarray | None = None

    def description(self) -> dict:
        """Returns the part of dataset.json that describes the layout."""
        return {
            "form": self.form,
            "root": self.root.as_posix(),
            "class_map": self.class_map,
            "images": {name: len(rows) for name, rows in self.splits.items()},
            "left_out": self.left_out,
        }


def find_layout(
    source: Path,
    class_map: str | None = None,
    classes: str | None = None,
    form: str | None = None,
) -> Layout:
    """Returns the dataset at `source`: a CSV, a folder, or a folder that wraps the dataset's.

    Args:
        source: the folder or the file.
        class_map: what the dataset's class names stand for, see `classes.parse_class_map`.
        classes: the classes to keep, separated by commas; all if None.
        form: one of FORMS; needed if the source has several.

    Raises:
        NoDatasetError: there is nothing at `source`, or nothing of a known form.
        UserError: it can be understood in several ways, or is damaged.
    """
    try:
        if source.is_file():
            root, base, read = source, source.parent, _reader_of_file(source)
        elif source.is_dir():
            root, read = _search(source, class_map, form)
            base = source
        else:
            raise NoDatasetError(f"{source} is missing; get it with: python download_dataset.py")
        found = read(base)
    except OSError as error:
        raise UserError(f"cannot read {error.filename or source}: {error.strerror}") from error
    return _understand(found, root, base, class_map, classes)


def _reader_of_file(path: Path) -> Callable[[Path], Found]:
    """Returns the reader of a CSV.

    Raises:
        NoDatasetError: the file is not a CSV of pixels or of paths and labels.
    """
    if path.suffix.lower() == ".zip":
        raise NoDatasetError(
            f"{path} is a zip; unpack it with: python download_dataset.py --archive {path}"
        )
    if tarfile.is_tarfile(path):
        raise NoDatasetError(f"{path} {TAR_REMEDY}")
    if tables.is_pixel_table(path):
        return partial(tables.read_pixel_table, path)
    header = tables.header_of(path)
    if all(
        tables.column(header, columns, path) is not None
        for columns in (tables.PATH_COLUMNS, tables.LABEL_COLUMNS)
    ):
        return partial(tables.read_lists, [path])
    raise NoDatasetError(f"{path} is no CSV with the columns emotion and pixels, or path and label")


def _search(
    source: Path, class_map: str | None, form: str | None
) -> tuple[Path, Callable[[Path], Found]]:
    """Returns the uppermost folder at or below `source` that is a dataset, and its reader.

    Raises:
        NoDatasetError: there is none.
        UserError: there are several.
    """
    known = {plain(pair.split("=")[0]) for pair in (class_map or "").split(",") if "=" in pair}
    level = [source]
    for _ in range(DEPTH):
        hits = {
            (folder, name): read
            for folder in level
            for name, read in _readers(folder, known).items()
            if form in (None, name)
        }
        if len({folder for folder, _ in hits}) > 1:
            places = sorted(str(folder) for folder, _ in hits)
            more = ", ..." if len(places) > SHOWN else ""
            raise UserError(
                f"{source} holds several datasets: {', '.join(places[:SHOWN])}{more}; name one "
                "with --source"
            )
        if len(hits) > 1:
            flags = " or ".join(f"--layout {name}" for _, name in hits)
            raise UserError(
                f"{next(iter(hits))[0]} can be read in several ways; choose one with {flags}"
            )
        if hits:
            (root, _), read = next(iter(hits.items()))
            return root, read
        level = [inner for folder in level for inner in subfolders(folder)]
    what = f"no dataset of the form {form}" if form else "no dataset of a known form"
    raise NoDatasetError(
        f"{source} holds {what} (docs/data.md lists them); name the dataset's folder or CSV with "
        "--source, or get one with: python download_dataset.py"
    )


def _readers(root: Path, known: set[str]) -> dict[str, Callable[[Path], Found]]:
    """Returns the reader of each form that `root` itself has."""
    for name, has_form, read in (
        ("raf-db", annotations.raf_list, annotations.read_raf_db),
        ("affectnet", annotations.affectnet_folders, annotations.read_affectnet),
        ("ck+", annotations.ck_folders, annotations.read_ck),
        ("fer+", annotations.ferplus_folders, annotations.read_ferplus),
    ):
        if has_form(root):
            return {name: partial(read, root)}
    result: dict[str, Callable[[Path], Found]] = {}
    csvs = sorted(path for path in root.glob("*.[cC][sS][vV]") if path.is_file())
    pixels = [path for path in csvs if tables.is_pixel_table(path)]
    if pixels:
        result["pixels"] = lambda base: tables.read_pixel_table(_only(pixels), base)
    lists = [path for path in csvs if path not in pixels and tables.is_list(path)]
    if lists:
        named = {tables.split_of_list(path) for path in lists}
        several = len(named) == len(lists) and None not in named
        result["list"] = lambda base: tables.read_lists(lists if several else [_only(lists)], base)
    if folders.split_folders(root) or folders.is_class_root(root, known):
        result["folders"] = partial(folders.read_folders, root)
    return result


def _only(paths: list[Path]) -> Path:
    """Returns the only path.

    Raises:
        UserError: there are several.
    """
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise UserError(
            f"{paths[0].parent} has several tables of images: {names}; name one, as with "
            f"--source {paths[0]}, or leave only those called train, val and test there"
        )
    return paths[0]


def _understand(
    found: Found, root: Path, base: Path, class_map: str | None, classes: str | None
) -> Layout:
    """Returns the layout: with this project's classes, and the images in order.

    Raises:
        NoDatasetError: there are no images.
        UserError: classes are unknown or uncertain, or fewer than two are kept.
    """
    left_out = +found.left_out  # without zeros
    if not found.names:
        reasons = "; ".join(f"{reason}: {count:,}" for reason, count in left_out.items())
        raise NoDatasetError(
            f"{root}: {found.form}, without a single image{f' ({reasons})' if reasons else ''}; "
            "get it again, or name another with --source"
        )
    mapping = class_map_of(set(found.classes), str(root), found.order, class_map)
    present = {mapping[name] for name in set(found.classes)} - {""}
    class_names = chosen_classes(classes, present, str(root))
    index = {name: number for number, name in enumerate(class_names)}
    labels = np.array([index.get(mapping[name], -1) for name in found.classes], dtype=np.int64)
    for name, count in Counter(found.classes).items():
        if mapping[name] not in index:
            flag = "--classes" if mapping[name] else "--class-map"
            left_out[f"class {name}, left out by {flag}"] += count
    order = {name: number for number, name in enumerate(SPLITS)}
    places = np.array([order[name] for name in found.splits] if found.splits else labels * 0)
    kept = np.flatnonzero(labels >= 0)
    kept = kept[np.lexsort((labels[kept], places[kept]))]
    places, labels = places[kept], labels[kept]
    splits = {"all": np.arange(len(kept))}
    if found.splits:
        splits = {s: np.flatnonzero(places == n) for s, n in order.items() if (places == n).any()}
    return Layout(
        form=found.form,
        root=root,
        base=base,
        names=np.array(found.names, dtype=object)[kept],
        labels=labels,
        splits=splits,
        class_names=class_names,
        class_map=mapping,
        left_out=dict(left_out),
        rows=len(found.names),
        table=found.table,
        offsets=None if found.offsets is None else found.offsets[kept],
        boxes=None if found.boxes is None else found.boxes[kept],
    )
