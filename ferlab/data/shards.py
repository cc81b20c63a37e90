"""Shards: the images of a dataset on disk, 1,024 in a file, and the parts of several machines.

Each shard has a record of the dataset and the files that it was read from. A shard is used if these
are the same; else it is read anew.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ferlab.data.layouts import Layout
from ferlab.files import UserError, atomic_path, read_json, write_json

SHARD = 1024  # images
KEY_SIZE = 16  # bytes of a digest
SHOWN = 10  # parts named in a message


@dataclass(frozen=True)
class Record:
    """Where a shard comes from.

    Attributes:
        dataset: digest of the names and face boxes of all images of the dataset, in order.
        files: digest of the shard's files as the file system describes them.
        content: digest of their bytes, which is the same on every machine.
        keys: digest of the shard's keys; if it differs, the shard is damaged.
        faults: index in the shard and reason of each image that cannot be used.
        parts: N of the `--shard K/N` that read it; 1 without `--shard`.
    """

    dataset: str
    files: str
    content: str
    keys: str
    faults: list[tuple[int, str]]
    parts: int


def shard_path(folder: Path, shard: int) -> Path:
    """Returns the path of a shard's pixels."""
    return folder / f"{shard:06}.npy"


def shard_count(layout: Layout) -> int:
    """Returns how many shards the images of a dataset fill."""
    return -(-len(layout.names) // SHARD)


def shards_of_part(layout: Layout, part: tuple[int, int]) -> range:
    """Returns the shards of part K of N, given as `(K, N)`; `(1, 1)` is all."""
    number, parts = part
    count = shard_count(layout)
    return range(count * (number - 1) // parts, count * number // parts)


def rows_of_shard(layout: Layout, shard: int) -> range:
    """Returns the indices into the layout of a shard's images."""
    return range(shard * SHARD, min((shard + 1) * SHARD, len(layout.names)))


def new_digest(data: bytes | np.ndarray = b"") -> "hashlib._Hash":
    """Returns a digest of `data`, by which images, keys, files and contents are compared."""
    return hashlib.blake2b(data, digest_size=KEY_SIZE)


def keys_of(pixels: np.ndarray) -> np.ndarray:
    """Returns S16 `(n,)`, a digest of each image of uint8 `(n, 48, 48)`."""
    return np.array([new_digest(image).digest() for image in pixels], f"S{KEY_SIZE}")


def digest_of_keys(keys: np.ndarray) -> str:
    """Returns the digest `Record.keys` of what `keys_of` returns."""
    return new_digest(keys.tobytes()).hexdigest()


def digest_of_dataset(layout: Layout) -> str:
    """Returns a digest of the names and face boxes of all images, in order."""
    state = new_digest()
    for shard in range(shard_count(layout)):
        rows = rows_of_shard(layout, shard)
        names = "\n".join(layout.names[rows.start : rows.stop])
        state.update(names.encode(errors="surrogateescape"))
        if layout.boxes is not None:
            state.update(layout.boxes[rows.start : rows.stop].tobytes())
    return state.hexdigest()


def digest_of_files(layout: Layout, rows: range) -> str:
    """Returns a digest of the sizes, times and inode numbers of the files of `rows`.

    It is quick to compute, and differs between machines.
    """
    state = new_digest()
    for row in rows:
        try:
            found = os.stat(layout.table or os.path.join(layout.base, layout.names[row]))
            state.update(b"%d %d %d\n" % (found.st_size, found.st_mtime_ns, found.st_ino))
        except OSError:
            state.update(b"missing\n")
    return state.hexdigest()


def contents(layout: Layout, rows: range) -> Iterator[bytes | OSError]:
    """Yields the bytes of each image's file or row of the table, or the error of reading it."""
    if layout.table:
        with layout.table.open("rb") as file:
            for row in rows:
                file.seek(layout.offsets[row])
                yield file.readline()
        return
    for row in rows:
        try:
            with open(os.path.join(layout.base, layout.names[row]), "rb", 0) as file:
                content: bytes | OSError = file.read()
        except OSError as error:
            content = error
        yield content


def add_content(state: "hashlib._Hash", content: bytes | OSError) -> None:
    """Adds what `contents` yields to the digest `Record.content`."""
    state.update(b"%d\n" % (-1 if isinstance(content, OSError) else len(content)))
    state.update(b"" if isinstance(content, OSError) else content)


def write_shard(path: Path, pixels: np.ndarray, record: Record) -> None:
    """Writes uint8 `(n, 48, 48)` and the record beside it.

    Raises:
        UserError: a file cannot be written.
    """
    content = io.BytesIO()  # NumPy's errors of writing to a file lack the reason
    np.save(content, pixels)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getvalue())
    write_json(path.with_suffix(".json"), asdict(record))


def read_record(path: Path) -> Record | None:
    """Returns the record of the shard at `path`; None if it has none, or a damaged one."""
    try:
        return Record(**read_json(path.with_suffix(".json")))
    except (OSError, ValueError, TypeError):
        return None


def read_shard(
    path: Path, layout: Layout, rows: range, dataset: str
) -> tuple[np.ndarray, dict[int, str]] | None:
    """Returns keys and faults of a shard; None if it is damaged or is not of the files of `rows`.

    Files with another time or inode number, as on another machine, are compared by their bytes.
    """
    record = read_record(path)
    if record is None or record.dataset != dataset:
        return None
    try:
        pixels = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    keys = keys_of(pixels)
    if digest_of_keys(keys) != record.keys:
        return None
    if record.files != digest_of_files(layout, rows):
        state = new_digest()
        for content in contents(layout, rows):
            add_content(state, content)
        if record.content != state.hexdigest():
            return None
    return keys, dict(record.faults)


def parts_there(folder: Path, layout: Layout, dataset: str) -> tuple[str, bool]:
    """Checks that all parts in `folder` are of this dataset.

    Returns:
        A line on what is there and what is missing; and whether all is there.

    Raises:
        UserError: a part is of another dataset, or was read with other flags.
    """
    missing, parts = set(range(shard_count(layout))), set()
    for path in folder.glob("[0-9]*.json"):
        record = read_record(path)
        if record is None or not path.stem.isdecimal():  # "000001 (2).json", of a file manager
            continue
        if record.dataset != dataset:
            raise UserError(
                f"{path} is a part of another dataset, or was read with other flags; all parts "
                "need the same files, --source, --class-map, --classes and --layout; to begin "
                f"anew, remove {folder}"
            )
        missing.discard(int(path.stem))
        parts |= {record.parts} - {1}
    count = shard_count(layout)
    text = f"parts: {count - len(missing):,} of {count:,} shards are in {folder}"
    if missing and len(parts) == 1:
        total = parts.pop()
        lacking = [
            f"{number}/{total}"
            for number in range(1, total + 1)
            if missing & set(shards_of_part(layout, (number, total)))
        ]
        more = ", ..." if len(lacking) > SHOWN else ""
        text += f"; missing: --shard {', '.join(lacking[:SHOWN])}{more}"
    return text, not missing
