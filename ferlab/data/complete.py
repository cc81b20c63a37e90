"""The record of how many files a complete dataset's folder holds, and of their size."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

RECORD = ".complete.json"


@dataclass(frozen=True)
class Content:
    """The files of a folder, without system files and the record.

    Attributes:
        files: their number.
        size: their total size, bytes.
    """

    files: int
    size: int


def is_of_system(name: str) -> bool:
    """Returns whether a file is hidden, as .DS_Store and the record, or is one of Windows."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def sizes_of(folder: Path) -> dict[str, int]:
    """Returns the size in bytes of each file below a folder by its path, without system files."""
    result = {}
    for place, _, names in os.walk(folder):
        prefix = Path(place).relative_to(folder).as_posix() + "/"
        for name in names:
            if not is_of_system(name):
                path = os.path.join(place, name)
                size = os.path.getsize(path) if os.path.exists(path) else 0  # a link to nothing
                result[prefix.removeprefix("./") + name] = size
    return result


def content_of(folder: Path) -> Content:
    """Returns the number and size of all files below a folder."""
    sizes = sizes_of(folder)
    return Content(len(sizes), sum(sizes.values()))


def write_record(folder: Path) -> None:
    """Writes into a complete folder the record that `recorded` returns."""
    (folder / RECORD).write_text(json.dumps(asdict(content_of(folder))) + "\n")


def recorded(folder: Path) -> Content | None:
    """Returns what the folder held when it was complete; None without a record."""
    try:
        return Content(**json.loads((folder / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None
