"""Frames, threads that read them, and the source of all frames of a file.

`FileSource` decodes ahead and delivers every frame in order; `streams.LiveSource` keeps only the
newest one. The first `read` starts the thread.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import cv2
import numpy as np

from ferlab.files import UserError

DECODE_AHEAD = 8  # frames of a file
LEAVE_SECONDS = 0.5  # that `close` waits for a thread inside OpenCV
THREAD_NAME = "capture"  # of every thread that may be inside OpenCV when the program ends


@dataclass
class Frame:
    """One frame of a source.

    Attributes:
        image: uint8 `(H, W, 3)`, BGR.
        gray: uint8 `(H, W)`.
        number: index in the source, from 0.
        time_s: time since the source's first frame, seconds.
        read_at: time at which it was read, by `time.perf_counter`.
        name: the image file, for still images.
        detection: the future boxes of a whole-frame detection; None if none was started.
    """

    image: np.ndarray
    gray: np.ndarray
    number: int
    time_s: float
    read_at: float
    name: str = ""
    detection: Future | None = None


def as_bgr(image: np.ndarray | None) -> np.ndarray | None:
    """Converts a gray, BGRA or 16-bit image to uint8 `(H, W, 3)`; None if it is empty."""
    if image is None or image.size == 0 or image.ndim not in (2, 3):
        return None
    if image.dtype != np.uint8:
        image = cv2.convertScaleAbs(image, alpha=255 / 65535 if image.dtype == np.uint16 else 255)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 3:
        return image
    if channels not in (1, 4):
        return None
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)


def make_frame(image: np.ndarray, number: int, time_s: float, name: str = "") -> Frame:
    """Returns a frame that is read now."""
    read_at = time.perf_counter()
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return Frame(image, gray, number, time_s, read_at, name)


def as_user_error(name: str, error: Exception) -> UserError:
    """Returns an exception of a capture thread as one line that names the source."""
    if isinstance(error, UserError):
        return error
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{name} cannot be read any further: {reason}")


def capture_thread(target: Callable, *args: object) -> threading.Thread:
    """Returns a daemon thread: the program can end while OpenCV has not returned."""
    return threading.Thread(target=target, args=args, name=THREAD_NAME, daemon=True)


def interruptible(work: Callable[[], object]) -> object:
    """Returns `work()`, done in a capture thread so that Ctrl-C ends the wait for it."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # is raised by the caller
            future.set_exception(error)

    capture_thread(run).start()
    while not future.done():
        time.sleep(0.005)
    return future.result()


class FileSource:
    """All frames of a video file, or a list of still images, in order.

    Args:
        frames: yields images, names and times, seconds.
        rate: frames per second.
        length: number of frames; None if unknown.
        stills: the frames are independent still images.
        name: the source's name in messages.

    Attributes:
        error: why the frames ended too early, if they did.
    """

    live = camera = False
    status = ""

    def __init__(
        self,
        frames: Iterator[tuple[np.ndarray, str, float]],
        rate: float,
        length: int | None,
        stills: bool,
        name: str = "the source",
    ):
        self.rate, self.length, self.stills, self.name = rate, length, stills, name
        self.ended = False
        self.error: UserError | None = None
        self.clean_up: Callable[[], None] | None = None  # called by `close`
        self._stop = threading.Event()
        self._queue: queue.Queue = queue.Queue(1 if stills else DECODE_AHEAD)
        self._thread = capture_thread(self._decode, frames)

    def _decode(self, frames: Iterator[tuple[np.ndarray, str, float]]) -> None:
        try:
            for number, (image, name, time_s) in enumerate(frames):
                self._put(make_frame(image, number, time_s, name))
                if self._stop.is_set():
                    return
            self._put(None)
        except Exception as error:  # is handed to the reader
            self._put(as_user_error(self.name, error))

    def _put(self, item: Frame | UserError | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                pass

    def read(self, timeout: float) -> Frame | None:
        """Returns the next frame; None if there is none within `timeout` seconds or at the end."""
        if self._thread.ident is None:
            self._thread.start()
        try:
            item = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, Frame):
            return item
        self.ended, self.error = True, item
        return None

    def close(self) -> None:
        """Stops the thread, or leaves it behind where OpenCV does not return in time."""
        self._stop.set()
        if self._thread.ident:
            self._thread.join(LEAVE_SECONDS)
        if self.clean_up:
            self.clean_up()
