"""Reads all images of a dataset in bounded memory, into shards on disk.

A pool of threads decodes a shard of images each and writes it. A run that was killed continues with
the shards that are there, as long as the files are as they were.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ferlab.data.images import READING_ERRORS, SIDE, grey_of, reason_of, resized
from ferlab.data.layouts import Layout
from ferlab.data.tables import header_of, pixels_of_row
from ferlab.files import atomic_path, write_text

SHARD = 1024  # images
KEY_SIZE = 16  # bytes of an image's digest
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
        shards = rows // SHARD
        for shard in np.unique(shards):
            chosen = shards == shard
            pixels = np.load(shard_path(self.folder, shard), mmap_mode="r")
            result[chosen, 0] = pixels[rows[chosen] - shard * SHARD]
        return result


def shard_path(folder: Path, shard: int) -> Path:
    """Returns where a shard's pixels lie."""
    return folder / f"{shard:06}.npy"


def read_images(layout: Layout, folder: Path, quiet: bool = False) -> Pixels:
    """Decodes and preprocesses all images of a dataset.

    Args:
        layout: what the dataset has.
        folder: where the shards are written; whole ones of an earlier run are kept.
        quiet: shows no progress bar.

    Raises:
        UserError: a shard cannot be written.
    """
    count = len(layout.names)
    keys, faults = np.empty(count, f"S{KEY_SIZE}"), {}
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)  # one thread an image: the pool has as many as there are cores
    torch.set_num_threads(1)
    try:
        with (
            ThreadPoolExecutor(workers) as pool,
            tqdm(total=count, unit="image", desc="reading", disable=quiet) as progress,
        ):
            for start, shard_keys, shard_faults in _in_order(pool, layout, folder, 2 * workers):
                keys[start : start + len(shard_keys)] = shard_keys
                faults |= {start + index: reason for index, reason in shard_faults.items()}
                progress.update(len(shard_keys))
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
    return Pixels(folder, keys, faults)


def _in_order(
    pool: ThreadPoolExecutor, layout: Layout, folder: Path, ahead: int
) -> Iterator[tuple[int, np.ndarray, dict[int, str]]]:
    """Yields the shards' first index, keys and faults; no more than `ahead` shards wait."""
    waiting: deque[tuple[int, Future]] = deque()
    stop = Event()
    try:
        for start in range(0, len(layout.names), SHARD):
            waiting.append((start, pool.submit(_shard, layout, folder, start, stop)))
            if len(waiting) > ahead:
                begun, first = waiting.popleft()
                yield begun, *first.result()
        while waiting:
            begun, first = waiting.popleft()
            yield begun, *first.result()
    finally:  # also where the caller is stopped, by Ctrl-C or a full disk
        stop.set()
        for _, future in waiting:
            future.cancel()


def _shard(
    layout: Layout, folder: Path, start: int, stop: Event
) -> tuple[np.ndarray, dict[int, str]]:
    """Reads the shard that begins at `start`, unless it is there; returns its keys and faults.

    Raises:
        CancelledError: `stop` was set.
    """
    rows = range(start, min(start + SHARD, len(layout.names)))
    path = shard_path(folder, start // SHARD)
    record, state = path.with_suffix(".json"), fingerprint(layout, rows)
    try:
        kept = json.loads(record.read_text())
        pixels = np.load(path) if kept["of"] == state else None
        faults = {int(index): reason for index, reason in kept["faults"].items()}
    except (OSError, ValueError, KeyError, EOFError):
        pixels = None
    if pixels is None:
        pixels, faults = _decode(layout, rows, stop)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, pixels)
        write_text(record, json.dumps({"of": state, "faults": faults}))
    digests = [hashlib.blake2b(image, digest_size=KEY_SIZE).digest() for image in pixels]
    return np.array(digests, f"S{KEY_SIZE}"), faults


def _decode(layout: Layout, rows: range, stop: Event) -> tuple[np.ndarray, dict[int, str]]:
    """Returns uint8 `(n, 48, 48)`, and the reasons of the images that cannot be used."""
    pixels, faults = np.zeros((len(rows), SIDE, SIDE), np.uint8), {}
    if layout.table:
        index = header_of(layout.table).index("pixels")
        with layout.table.open("rb") as file:
            for place, row in enumerate(rows):
                file.seek(layout.offsets[row])
                try:
                    image = torch.from_numpy(pixels_of_row(file.readline(), index))
                    pixels[place] = resized(image[None])
                except ValueError as error:
                    faults[place] = str(error)
    else:
        for place, row in enumerate(rows):
            if stop.is_set():
                raise CancelledError
            content = b""
            try:
                with open(os.path.join(layout.base, layout.names[row]), "rb", 0) as file:
                    content = file.read()
                box = None if layout.boxes is None else layout.boxes[row]
                pixels[place] = grey_of(content, box)
            except READING_ERRORS as error:
                faults[place] = reason_of(error, content)
    flat = pixels.reshape(len(rows), -1)
    for place in np.flatnonzero(flat.min(1) == flat.max(1)).tolist():
        faults.setdefault(place, EQUAL_PIXELS)
    return pixels, faults


def fingerprint(layout: Layout, rows: range) -> str:
    """Returns a digest that changes with the names, sizes and times of the files of `rows`."""
    state = hashlib.blake2b(digest_size=KEY_SIZE)
    for row in rows:
        path = layout.table or os.path.join(layout.base, layout.names[row])
        try:
            status = os.stat(path)
            found = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            found = "missing"
        box = "" if layout.boxes is None else layout.boxes[row].tolist()
        state.update(f"{layout.base} {layout.names[row]} {found} {box}\n".encode())
    return state.hexdigest()
