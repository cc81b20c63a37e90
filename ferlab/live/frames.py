"""Frames and the sources that read them, each in a thread of its own.

`FileSource` decodes ahead and delivers every frame in order. `LiveSource` keeps only the newest
frame of a camera or a stream, so that the display does not lag behind. The first `read` starts the
thread.
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

RETRY_SECONDS = 5.0  # of attempts to reconnect to a lost camera
DECODE_AHEAD = 8  # frames of a file


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


def _start_once(thread: threading.Thread) -> None:
    if thread.ident is None:
        thread.start()


class FileSource:
    """All frames of a video file, or a list of still images, in order.

    Args:
        frames: yields images and names.
        rate: frames per second.
        length: number of frames; None if unknown.
        stills: the frames are independent still images.

    Attributes:
        error: the exception that ended the source, if one did.
    """

    live = camera = False

    def __init__(
        self,
        frames: Iterator[tuple[np.ndarray, str]],
        rate: float,
        length: int | None,
        stills: bool,
    ):
        self.rate, self.length, self.stills = rate, length, stills
        self.ended = False
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._queue: queue.Queue = queue.Queue(DECODE_AHEAD)
        self._thread = threading.Thread(target=self._decode, args=(frames,))

    def _decode(self, frames: Iterator[tuple[np.ndarray, str]]) -> None:
        number = 0
        try:
            for image, name in frames:
                self._put(make_frame(image, number, number / self.rate, name))
                number += 1
                if self._stop.is_set():
                    return
            self._put(None)
        except Exception as error:  # is handed to the reader
            self._put(error)

    def _put(self, item: Frame | Exception | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                pass

    def read(self, timeout: float) -> Frame | None:
        """Returns the next frame; None if there is none within `timeout` seconds or at the end."""
        _start_once(self._thread)
        try:
            item = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, Frame):
            return item
        self.ended, self.error = True, item
        return None

    def close(self) -> None:
        """Stops the thread."""
        self._stop.set()
        if self._thread.ident:
            self._thread.join()


class LiveSource:
    """The newest frame of a camera or a stream.

    Args:
        name: the source's name in messages.
        connect: opens the capture anew.
        capture: the open capture.
        rate: expected frames per second.
        camera: whether it is a camera of this machine.

    Attributes:
        error: why it ended, once it has.
    """

    live, stills, length = True, False, None

    def __init__(
        self,
        name: str,
        connect: Callable[[], "cv2.VideoCapture"],
        capture: "cv2.VideoCapture",
        rate: float,
        camera: bool = True,
    ):
        self.name, self.connect, self.rate, self.camera = name, connect, rate, camera
        self.error: UserError | None = None
        self._newest: Frame | None = None
        self._fresh = threading.Condition()
        self._stop = threading.Event()
        self._capture = capture
        self._thread = threading.Thread(target=self._read_frames)

    @property
    def ended(self) -> bool:
        """Whether the source delivers no more frames."""
        return self.error is not None

    def _read_frames(self) -> None:
        capture = self._capture
        start = seen = time.perf_counter()
        number = 0
        while not self._stop.is_set():
            there, image = capture.read() if capture.isOpened() else (False, None)
            image = as_bgr(image) if there else None
            now = time.perf_counter()
            if image is not None:
                seen = now
                with self._fresh:
                    self._newest = make_frame(image, number, now - start)
                    self._fresh.notify()
                number += 1
            elif now - seen > RETRY_SECONDS:
                self.error = UserError(
                    f"{self.name} delivers no more frames; check that it is plugged in and that no "
                    "other program uses it, then run the same command again"
                )
                break
            elif not there:
                capture.release()
                self._stop.wait(0.25)
                capture = self.connect()
        capture.release()
        with self._fresh:
            self._fresh.notify()

    def read(self, timeout: float) -> Frame | None:
        """Returns the newest unread frame; None if there is none within `timeout` seconds."""
        _start_once(self._thread)
        with self._fresh:
            if self._newest is None and not self.ended:
                self._fresh.wait(timeout)
            frame, self._newest = self._newest, None
        return frame

    def close(self) -> None:
        """Stops the thread; a thread inside OpenCV would crash the interpreter at exit."""
        self._stop.set()
        if self._thread.ident:
            self._thread.join()
        self._capture.release()
