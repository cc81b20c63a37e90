"""Reads the images of a dataset in bounded memory, into shards on disk.

A pool of threads decodes a shard of images each and writes it. A run that was killed continues with
the shards that are there, as long as the files are as they were.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ferlab.cores import available_cores
from ferlab.data import shards
from ferlab.data.images import READING_ERRORS, SIDE, grey_of, reason_of, resized
from ferlab.data.layouts import Layout
from ferlab.data.shards import KEY_SIZE, Record, shard_path
from ferlab.data.tables import header_of, pixels_of_row

EQUAL_PIXELS = "all pixels are equal"


@dataclass(frozen=True)
class Pixels:
    """The grey levels of all images of a layout, on disk.

    Attributes:
        folder: of the shards.
        keys: S16 `(N,)`, a digest of each image: equal keys, equal images.
        faults: why an image cannot be used, by its index in the layout.
    """

    folder: Path
    keys: np.ndarray
    faults: dict[int, str]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Returns uint8 `(n, 1, 48, 48)`: the images that `rows`, ascending, picks."""
        result = np.empty((len(rows), 1, SIDE, SIDE), np.uint8)
        numbers = rows // shards.SHARD
        for number in np.unique(numbers):
            chosen = numbers == number
            pixels = np.load(shard_path(self.folder, number), mmap_mode="r")
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
        layout: what the dataset has.
        folder: where the shards are written; whole ones that are there are kept.
        quiet: shows no progress bar.
        part: `(K, N)`; keys of the other parts are left empty.
        dataset: what `digest_of_dataset` returns, where it is known.

    Raises:
        UserError: a shard cannot be written.
    """
    keys, faults = np.zeros(len(layout.names), f"S{KEY_SIZE}"), {}
    numbers = shards.shards_of_part(layout, part)
    count = sum(len(shards.rows_of_shard(layout, number)) for number in numbers)
    dataset = dataset or shards.digest_of_dataset(layout)
    workers = available_cores()
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)  # one thread an image: the pool has as many as there are cores
    torch.set_num_threads(1)
    stop = Event()

    def read(number: int) -> tuple[range, np.ndarray, dict[int, str]]:
        return _shard(layout, folder, number, dataset, part[1], stop)

    try:
        with (
            ThreadPoolExecutor(workers) as pool,
            tqdm(total=count, unit="image", desc="reading", disable=quiet) as progress,
        ):
            for rows, shard_keys, shard_faults in _in_order(pool, read, numbers, stop, 2 * workers):
                keys[rows.start : rows.stop] = shard_keys
                faults |= {rows[index]: reason for index, reason in shard_faults.items()}
                progress.update(len(rows))
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    return Pixels(folder, keys, faults)


def _in_order(
    pool: ThreadPoolExecutor, read: Callable, numbers: range, stop: Event, ahead: int
) -> Iterator[tuple[range, np.ndarray, dict[int, str]]]:
    """Yields what `read` returns of each of `numbers`; no more than `ahead` results wait."""
    waiting: deque[Future] = deque()
    try:
        for number in numbers:
            waiting.append(pool.submit(read, number))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also where the caller is stopped, by Ctrl-C or a full disk
        stop.set()
        for future in waiting:
            future.cancel()


def _shard(
    layout: Layout, folder: Path, number: int, dataset: str, parts: int, stop: Event
) -> tuple[range, np.ndarray, dict[int, str]]:
    """Reads a shard, unless it is there; returns its rows of the layout, its keys and faults.

    Raises:
        CancelledError: `stop` was set.
    """
    rows, path = shards.rows_of_shard(layout, number), shard_path(folder, number)
    kept = shards.read_shard(path, layout, rows, dataset)
    if kept is None:
        files = shards.digest_of_files(layout, rows)  # before the work: they may change meanwhile
        pixels, faults, content = _decode(layout, rows, stop)
        keys = shards.keys_of(pixels)
        listed = sorted(faults.items())
        record = Record(dataset, files, content, shards.digest_of_keys(keys), listed, parts)
        shards.write_shard(path, pixels, record)
    else:
        keys, faults = kept
    return rows, keys, faults


def _decode(layout: Layout, rows: range, stop: Event) -> tuple[np.ndarray, dict[int, str], str]:
    """Returns uint8 `(n, 48, 48)`, the reasons of the images that cannot be used, and the digest of
    the bytes that they were decoded from.

    Raises:
        CancelledError: `stop` was set.
    """
    pixels, faults = np.zeros((len(rows), SIDE, SIDE), np.uint8), {}
    column = header_of(layout.table).index("pixels") if layout.table else 0
    state = shards.new_digest()
    for place, content in enumerate(shards.contents(layout, rows)):
        if stop.is_set():
            raise CancelledError
        shards.add_content(state, content)
        try:
            if isinstance(content, OSError):
                raise content
            if layout.table:
                pixels[place] = resized(torch.from_numpy(pixels_of_row(content, column))[None])
            else:
                box = None if layout.boxes is None else layout.boxes[rows[place]]
                pixels[place] = grey_of(content, box)
        except READING_ERRORS as error:
            known = b"" if isinstance(content, OSError) else content
            faults[place] = str(error) if layout.table else reason_of(error, known)
    flat = pixels.reshape(len(rows), -1)
    for place in np.flatnonzero(flat.min(1) == flat.max(1)).tolist():
        faults.setdefault(place, EQUAL_PIXELS)
    return pixels, faults, state.hexdigest()
