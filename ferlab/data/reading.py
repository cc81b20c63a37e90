"""Reads the images of a dataset in bounded memory, into shards on disk.

Worker processes decode one shard of images at a time and write it. The run after a killed one keeps
the shards whose files have not changed.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from ferlab import pictures
from ferlab.constants import IMAGE_SIZE
from ferlab.data import shards, workers
from ferlab.data.images import grey_of, reason_of, resized
from ferlab.data.layouts import Layout
from ferlab.data.shards import KEY_SIZE, Record, shard_path
from ferlab.data.tables import header_of, pixels_of_row
from ferlab.files import UserError, lacks_memory, remove_leftovers

EQUAL_PIXELS = "all pixels are equal"


@dataclass(frozen=True)
class Pixels:
    """The grey levels of all images of a layout, on disk.

    Attributes:
        folder: of the shards.
        keys: S16 `(N,)`, a digest of each image; images with equal keys are equal.
        faults: why an image cannot be used, by its index in the layout.
    """

    folder: Path
    keys: np.ndarray
    faults: dict[int, str]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns uint8 `(n, 1, 48, 48)`, the images at the indices `rows`, ascending.

        Raises:
            UserError: a shard cannot be read any more.
        """
        result = np.empty((len(rows), 1, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
        numbers = rows // shards.SHARD
        for number in np.unique(numbers):
            chosen = numbers == number
            path = shard_path(self.folder, number)
            try:
                pixels = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise UserError(
                    f"{path} cannot be read any more: {reason}; if another preparation writes to "
                    "this folder, wait for its end, and run the same command again"
                ) from error
            result[chosen, 0] = pixels[rows[chosen] - number * shards.SHARD]
        return result


def read_images(
    layout: Layout,
    folder: Path,
    quiet: bool = False,
    part: tuple[int, int] = (1, 1),
    dataset: str | None = None,
) -> Pixels:
    """Decodes and preprocesses the images of a dataset, or of part K of N of it.

    Args:
        layout: the dataset as it was understood.
        folder: where the shards are written; undamaged shards that are there are kept.
        quiet: shows no progress bar.
        part: `(K, N)`; keys of the other parts are left empty.
        dataset: what `digest_of_dataset` returns, if it is known.

    Raises:
        UserError: a shard cannot be written, the table cannot be read any more, or a worker
            process cannot be started or was killed.
    """
    keys, faults = np.zeros(len(layout.names), f"S{KEY_SIZE}"), {}
    numbers = shards.shards_of_part(layout, part)
    count = sum(len(shards.rows_of_shard(layout, number)) for number in numbers)
    reader = _Reader(layout, folder, numbers, dataset or shards.digest_of_dataset(layout), part[1])
    remove_leftovers(folder.resolve())  # once, not by each worker
    fault = ""
    try:
        with (
            contextlib.closing(workers.results(reader)) as results,
            tqdm(total=count, unit="image", desc="reading", disable=quiet) as progress,
        ):
            for rows, shard_keys, shard_faults in results:
                keys[rows.start : rows.stop] = shard_keys
                faults |= {rows[index]: reason for index, reason in shard_faults.items()}
                progress.update(len(rows))
    except RuntimeError as error:  # torch raises it anywhere in this block, from a signal handler
        if not workers.was_killed(error):
            raise
        fault = "a process that read images was killed, maybe for want of memory"
    except OSError as error:
        fault = f"cannot start a process that reads images: {error.strerror}; end other programs"
    if fault:  # only here are the exception and the processes that it refers to gone
        raise UserError(fault)
    return Pixels(folder, keys, faults)


@dataclass(frozen=True)
class _Reader(Dataset):
    """The shards `numbers`; an item is read from the dataset and written, if it is not there.

    An item is the shard's rows of the layout, its keys and faults; or the error that ends the run:
    if it were raised, a DataLoader would add a traceback to its message.
    """

    layout: Layout
    folder: Path
    numbers: range
    dataset: str
    parts: int

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[range, np.ndarray, dict[int, str]] | UserError:
        try:
            return self._read(self.numbers[index])
        except UserError as error:
            return error
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            return UserError("there is not enough memory to read the images; end other programs")
        except OSError as error:  # of a single image it is a reason to leave it out
            return UserError(f"cannot read {self.layout.table}: {error.strerror or error}")

    def _read(self, number: int) -> tuple[range, np.ndarray, dict[int, str]]:
        layout, rows = self.layout, shards.rows_of_shard(self.layout, number)
        path = shard_path(self.folder, number)
        kept = shards.read_shard(path, layout, rows, self.dataset)
        if kept is not None:
            return rows, *kept
        # Before the files are decoded: they may change meanwhile.
        files = shards.digest_of_files(layout, rows)
        pixels, faults, content = _decode(layout, rows)
        keys = shards.keys_of(pixels)
        listed = sorted(faults.items())
        digest = shards.digest_of_keys(keys)
        record = Record(self.dataset, files, content, digest, listed, self.parts)
        shards.write_shard(path, pixels, record)
        return rows, keys, faults


def _decode(layout: Layout, rows: range) -> tuple[np.ndarray, dict[int, str], str]:
    """Returns uint8 `(n, 48, 48)`, why some cannot be used, and the digest `Record.content`."""
    pixels, faults = np.zeros((len(rows), IMAGE_SIZE, IMAGE_SIZE), np.uint8), {}
    header = header_of(layout.table) if layout.table else ["pixels"]
    if "pixels" not in header:
        raise UserError(f"{layout.table} has changed while it was read; run the same command again")
    column = header.index("pixels")
    state = shards.new_digest()
    for place, content in enumerate(shards.contents(layout, rows)):
        shards.add_content(state, content)
        try:
            if isinstance(content, OSError):
                raise content
            if layout.table:
                pixels[place] = resized(torch.from_numpy(pixels_of_row(content, column))[None])
            else:
                box = None if layout.boxes is None else layout.boxes[rows[place]]
                pixels[place] = grey_of(content, box)
        except pictures.FAULTS as error:
            known = b"" if isinstance(content, OSError) else content
            faults[place] = str(error) if layout.table else reason_of(error, known)
    flat = pixels.reshape(len(rows), -1)
    for place in np.flatnonzero(flat.min(1) == flat.max(1)).tolist():
        faults.setdefault(place, EQUAL_PIXELS)
    return pixels, faults, state.hexdigest()
