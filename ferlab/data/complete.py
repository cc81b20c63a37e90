"""The record of what a complete folder of a dataset holds."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

RECORD = ".complete.json"


@dataclass(frozen=True)
class Content:
    """What a folder holds, its record left out.

    Attributes:
        files: their number.
        size: their total size, bytes.
    """

    files: int
    size: int


def content_of(folder: Path) -> Content:
    """Returns the number and size of all files below a folder."""
    files = size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            if name != RECORD:
                files += 1
                size += os.stat(os.path.join(place, name)).st_size
    return Content(files, size)


def write_record(folder: Path) -> None:
    """Writes what a complete folder holds into it, for `recorded` to compare with."""
    (folder / RECORD).write_text(json.dumps(asdict(content_of(folder))) + "\n")


def recorded(folder: Path) -> Content | None:
    """Returns what the folder held when it was complete; None if nobody has recorded it."""
    try:
        return Content(**json.loads((folder / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None
