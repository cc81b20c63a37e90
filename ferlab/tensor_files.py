"""Dicts of tensors on disk: written whole or not at all, and checked when they are read."""

import errno
import io
import os
import zipfile
from pathlib import Path

import torch

from ferlab.files import UserError, atomic_path, lacks_memory, require_file

PIECE = 1 << 20  # bytes that are read at once


def save_tensors(content: dict, path: str | os.PathLike) -> None:
    """Writes `content` as `serialised` to `path`, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(serialised(content))


def serialised(content: dict) -> bytes:
    """Returns what `torch.save` writes of `content`; the bytes don't depend on a file's name."""
    buffer = io.BytesIO()  # a full disk is then an OSError, not a RuntimeError of torch's writer
    torch.save(content, buffer)
    return buffer.getvalue()  # Python 3.12.1 crashes where a failed write held `getbuffer()`


def load_tensors(path: Path, remedy: str, mmap: bool = False) -> dict:
    """Returns the dict that `save_tensors` wrote, on the CPU.

    Args:
        path: the file.
        remedy: what a person can do if the file is missing or broken, as the end of a sentence.
        mmap: maps the tensors from disk instead of reading them, where the file system can.

    Raises:
        UserError: the file is missing, unreadable, damaged or not such a dict; too little memory.
    """
    require_file(path, remedy)
    options = {"map_location": "cpu", "weights_only": True}
    try:
        require_checksums(path)
        try:
            content = torch.load(path, mmap=mmap, **options)
        except RuntimeError as error:
            if not mmap or "unable to mmap" not in str(error):
                raise
            content = torch.load(path, **options)  # a file system that cannot map files
    except Exception as error:  # a damaged pickle can raise any
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        if lacks_memory(error):
            raise UserError(f"too little memory to read {path}; end other programs") from error
        raise UserError(f"{path} is damaged or not a file of this project; {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a file of this project; {remedy}")
    return content


def require_checksums(path: Path) -> None:
    """Compares a file's bytes with the checksums in it, which `torch.load` does not read.

    Raises:
        OSError: the file cannot be read.
        zipfile.BadZipFile: a byte has changed, or the file is not `torch.save`'s zip.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED:  # it could take any amount of memory
                raise zipfile.BadZipFile("torch.save compresses nothing")
            with archive.open(entry) as file:
                while file.read(PIECE):
                    pass
