"""Computes the items of a dataset in worker processes, and ends them with the run."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import cv2
from torch.utils.data import DataLoader, Dataset

from ferlab.cores import available_cores
from ferlab.files import UserError


def results(dataset: Dataset) -> Iterator:
    """Yields the items of a dataset, in order, computed by as many processes as there are cores.

    Threads would wait for each other: a face of 48x48 is decoded in 15 microseconds. Close the
    iterator, which ends the processes.

    Args:
        dataset: its items are computed where they are taken; one that is a UserError is raised.

    Raises:
        UserError: as an item.
        OSError: a process cannot be started.
        RuntimeError: a process was killed, see `was_killed`; it comes from a signal handler.
    """
    workers, threads = min(available_cores(), len(dataset)), cv2.getNumThreads()
    cv2.setNumThreads(1)  # a forked process would wait for OpenCV's threads, which it lacks
    fault = None
    try:
        with _interrupts_held() as on_interrupt:
            items = iter(_loader(dataset, workers if workers > 1 else 0, on_interrupt))
        for item in items:
            if isinstance(item, UserError):
                fault = item
                break
            yield item
    finally:
        cv2.setNumThreads(threads)
    if fault:
        del items  # ends the processes: they must not write while a caller clears up
        raise fault


def was_killed(error: RuntimeError) -> bool:
    """Whether an error is torch's about a worker process that was killed."""
    return str(error).startswith("DataLoader worker (pid")


def _loader(dataset: Dataset, workers: int, on_interrupt: Callable | signal.Handlers) -> DataLoader:
    """Returns a loader of `dataset`, in this process where no others can be had."""
    try:
        multiprocessing.Lock()
    except OSError:  # no /dev/shm
        workers = 0
    if not _can_start(3 * workers):  # a worker's process, and a thread of each side's queue
        workers = 0
    return DataLoader(
        dataset,
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=functools.partial(_begin_worker, on_interrupt, os.getpid()),
        # processes that are not forked import torch for seconds
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


def _can_start(count: int) -> bool:
    """Whether so many processes or threads can be started beside those there are (`ulimit -u`).

    A DataLoader that can start only some of them leaves them running, and prints tracebacks.
    """
    end, started = threading.Event(), []
    try:
        for _ in range(count):
            thread = threading.Thread(target=end.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        return False
    finally:
        end.set()
        for thread in started:
            thread.join()
    return True


def _as_it_is(item):
    return item


def _begin_worker(on_interrupt: Callable | signal.Handlers, parent: int, _: int) -> None:
    signal.signal(signal.SIGINT, on_interrupt)
    if os.getppid() != parent:
        _exit()  # torch looks after the parent from here on, and would take another for it


def _exit(*_) -> None:
    os._exit(0)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[Callable | signal.Handlers]:
    """Holds Ctrl-C back while processes are started: Python and torch would lose it.

    Yields what the processes do at Ctrl-C: they end without a traceback, unless it is ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield signal.SIG_IGN
        return
    came = []
    handler = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield _exit if callable(handler) else signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)
    if came and callable(handler):
        handler(signal.SIGINT, None)
