"""Faults a user can mend, and files that are written whole or not at all."""

import contextlib
import csv
import functools
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: the temporary files of killed processes stay
    fcntl = None


TEMPORARY = ".tmp"  # suffix
CHECKSUM = "checksum"  # key in JSON files


class UserError(Exception):
    """A fault that a user can cause and mend: `entry.command` shows it as one line, exit 1.

    The message names what is wrong, the file, and where there is one the command that mends it.
    """


def lacks_memory(error: Exception) -> bool:
    """Returns whether Python, NumPy or torch could not get memory; torch has no class for it."""
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


@contextlib.contextmanager
def naming_write_errors(path: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError that occurs while `path` is written into a `UserError` that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it there when the block succeeds.

    If the block fails or its process is killed, an older file at `path` stays as it was. The
    temporary file of a killed process is removed by a later write to the folder. The folder is made
    if it is missing.

    Raises:
        UserError: the folder or the file cannot be written (permissions, full disk).
    """
    path = Path(path)
    with naming_write_errors(path), temporary_path(path) as temporary:
        yield temporary
        _rename(temporary, path)


@contextlib.contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Yields an empty hidden file beside `path`, which is removed after the block.

    The process holds a lock on it. Temporary files without a lock were left by killed processes and
    are removed.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent.resolve())
    handle, temporary = _locked_file(path)
    with contextlib.ExitStack() as stack:
        stack.callback(temporary.unlink, missing_ok=True)
        if fcntl:
            stack.callback(os.close, handle)
        else:
            os.close(handle)
        yield temporary


def _locked_file(path: Path) -> tuple[int, Path]:
    """Makes the file of `temporary_path`; returns its locked descriptor and its path."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
        if fcntl:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):
            return handle, Path(name)
        os.close(handle)  # before it was locked, another process took it for a leftover


@functools.cache
def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of killed processes, those without a lock, from a folder.

    The cache makes this happen once in a process: to list a large folder at each write takes long.
    """
    for left in folder.glob(f".*{TEMPORARY}") if fcntl else ():
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def replace_together(renames: Sequence[tuple[Path, Path]]) -> None:
    """Replaces a set of files, so that old and new ones are never mixed.

    If the process is killed in between, the last target is missing; programs that read the set
    require it.

    Args:
        renames: `(new, target)` of each file.

    Raises:
        UserError: a file cannot be renamed.
    """
    for _, target in reversed(renames):
        with naming_write_errors(target):
            target.unlink(missing_ok=True)
    for new, target in renames:
        with naming_write_errors(target):
            _rename(new, target)


def _rename(temporary: Path, path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o666 & ~mask)
    os.replace(temporary, path)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` (UTF-8) to `path` through `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: str | os.PathLike, columns: Collection[str], rows: Iterable[dict]) -> None:
    """Writes `rows`, dicts by column, to `path` through `atomic_path`, after a line of names."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: str | os.PathLike, content: dict) -> None:
    """Writes `content` and its checksum, which `read_json` compares, through `atomic_path`."""
    whole = {**content, CHECKSUM: _checksum(content)}
    write_text(path, json.dumps(whole, indent=2) + "\n")


def read_json(path: Path) -> dict:
    """Returns what `write_json` wrote to `path`; a file without a checksum is not compared.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, not a dict, or has changed since it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a BOM
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(content, dict):
        raise ValueError(f"{type(content).__name__}, not a dict")
    if content.pop(CHECKSUM, None) not in (None, _checksum(content)):
        raise ValueError("it has changed since it was written")
    return content


def _checksum(content: dict) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()


def require_file(path: Path, remedy: str) -> None:
    """Checks that `path` is a file: reading a pipe would wait for ever.

    Args:
        path: the file.
        remedy: what a person can do if it is not, as the end of a sentence.

    Raises:
        UserError: it is missing, or is not a file.
        OSError: the system refuses the path: no permission, too long a name.
    """
    try:
        fault = "" if stat.S_ISREG(path.stat().st_mode) else "is not a file"
    except (FileNotFoundError, NotADirectoryError):  # other faults are of permissions and names
        fault = "is not a file" if os.path.lexists(path) else "is missing"
    if fault:
        raise UserError(f"{path} {fault}; {remedy}")


def require_writable(folder: str | os.PathLike) -> Path:
    """Makes `folder` and checks that a file can be written there, before hours of work.

    Raises:
        UserError: it cannot.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to folder {folder}: {reason}; choose another") from error
    return folder
