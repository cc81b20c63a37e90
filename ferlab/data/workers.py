"""Computes the items of a dataset in worker processes, which end with the run."""

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

    Threads would wait for each other: a face of 48x48 is decoded in 15 microseconds. The caller
    must close the iterator, which ends the processes.

    Args:
        dataset: `dataset[i]` runs in a worker process; an item that is a UserError is raised.

    Raises:
        UserError: an item is one.
        OSError: a process cannot be started.
        RuntimeError: a process was killed, see `was_killed`; a signal handler raises it.
    """
    workers, threads = min(available_cores(), len(dataset)), cv2.getNumThreads()
    cv2.setNumThreads(1)  # a forked process would wait for OpenCV's threads, which are not forked
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
        del items  # ends the processes: they must not write while the caller removes files
        raise fault


def was_killed(error: RuntimeError) -> bool:
    """Returns whether torch raised an error because a worker process was killed."""
    return str(error).startswith("DataLoader worker (pid")


def _loader(dataset: Dataset, workers: int, on_interrupt: Callable | signal.Handlers) -> DataLoader:
    """Returns a loader of `dataset`, which uses this process if no others can be started."""
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
        # a process that is not forked imports torch, which takes seconds
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


def _can_start(count: int) -> bool:
    """Returns whether `count` more processes or threads can be started (`ulimit -u`).

    A DataLoader that can start only some of its workers leaves them running, and prints tracebacks.
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
        _exit()  # the parent has ended; torch would take the new parent for it


def _exit(*_) -> None:
    os._exit(0)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[Callable | signal.Handlers]:
    """Delays Ctrl-C while processes are started: Python and torch would lose it.

    Yields the processes' handler of Ctrl-C: they end without a traceback, unless it is ignored.
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
