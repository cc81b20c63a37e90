"""Writes split files in parts: a split need not fit into memory."""

import hashlib
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

DESCRIPTOR = b"PK\x07\x08"  # of a zip: checksum and sizes, after an entry's bytes
ENTRY_CHECKSUM = 16  # offset of the checksum in the zip's directory, bytes


def write_split_file(
    path: Path,
    parts: Iterable[torch.Tensor],
    tensors: dict[str, torch.Tensor],
    shape: tuple[int, ...],
    class_names: tuple[str, ...],
) -> str:
    """Writes the data contract's dict as `torch.save` does, the images part by part.

    Equal splits give equal bytes.

    Args:
        path: a file, which is overwritten.
        parts: the images, float32 `(n, 1, 48, 48)` each, in [-1, 1].
        tensors: the tensors that follow the images, by name, labels first.
        shape: of all images together.
        class_names: the classes' names.

    Returns:
        The digest of the split, see `Split.digest`.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with tempfile.TemporaryFile(dir=path.parent) as room:  # sparse, in place of memory
        images = torch.from_numpy(np.memmap(room, np.float32, "w+", shape=shape))
        content = {"images": images, **tensors, "class_names": list(class_names)}
        try:
            with torch.serialization.skip_data(), path.open("wb") as file:
                torch.save(content, file)  # leaves room for the tensors' bytes
        except RuntimeError as error:  # torch's writer on a full disk
            raise OSError(str(error).splitlines()[0]) from error
        del images, content
    digest = hashlib.blake2b("\n".join(class_names).encode(), digest_size=8)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        directory = archive.start_dir
    checksums = {}
    with path.open("r+b") as file:
        for number, pieces in enumerate([parts, *([tensor] for tensor in tensors.values())]):
            entry = entries[f"archive/data/{number}"]
            file.seek(entry.header_offset)
            name, extra = struct.unpack("<26x2H", file.read(30))
            file.seek(name + extra, 1)
            checksum = written = 0
            for data in _digested(pieces, digest):
                file.write(data)
                checksum, written = zlib.crc32(data, checksum), written + len(data)
            if written != entry.file_size:
                raise ValueError(f"{written} bytes of {entry.file_size}")
            if file.read(4) == DESCRIPTOR:
                file.write(struct.pack("<I", checksum))
            checksums[entry.filename.encode()] = checksum
        _write_checksums(file, directory, checksums)
    return digest.hexdigest()


def _digested(pieces: Iterable[torch.Tensor], digest: "hashlib._Hash") -> Iterator[memoryview]:
    """Yields the bytes of each tensor, while a second thread adds the previous ones to `digest`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # leaves a core to the second thread
    try:
        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(bool)
            for piece in pieces:
                data = memoryview(piece.contiguous().numpy()).cast("B")
                adding.result()
                adding = pool.submit(digest.update, data)
                yield data
    finally:
        torch.set_num_threads(threads)


def _write_checksums(file, directory: int, checksums: dict[bytes, int]) -> None:
    """Writes the checksums of entries into a zip's directory, which begins at `directory`."""
    file.seek(directory)
    while (head := file.read(46))[:4] == b"PK\x01\x02":
        name, extra, comment = struct.unpack("<3H", head[28:34])
        after = file.tell() + name + extra + comment
        if (checksum := checksums.get(file.read(name))) is not None:
            file.seek(after - name - extra - comment - 46 + ENTRY_CHECKSUM)
            file.write(struct.pack("<I", checksum))
        file.seek(after)
