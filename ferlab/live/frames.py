"""Frames and their readers, one thread each: of a file every frame, of a camera the newest.

A file's frames all arrive, in order, decoded ahead in a thread. Of a camera or a stream only the
newest frame is kept, by a thread that does nothing else, so that what is shown never lags behind.
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

RETRY_SECONDS = 5.0  # how long a camera that was lost is tried again
AHEAD = 8  # frames of a file decoded ahead


@dataclass
class Frame:
    """A picture on its way through the program.

    Attributes:
        image: uint8 `(H, W, 3)`, BGR.
        gray: uint8 `(H, W)`.
        number: counted from 0, of the source's frames.
        time_s: the source's clock, seconds from its first frame.
        taken: when it was read, of `time.perf_counter`.
        name: of the picture file, for pictures.
        search: the faces found in it, once a thread has searched it; None if not asked for.
    """

    image: np.ndarray
    gray: np.ndarray
    number: int
    time_s: float
    taken: float
    name: str = ""
    search: Future | None = None


def as_bgr(image: np.ndarray | None) -> np.ndarray | None:
    """Returns a frame as uint8 `(H, W, 3)`, whatever a camera delivers; None if it is empty."""
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
    """Returns a frame taken now."""
    taken = time.perf_counter()
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return Frame(image, gray, number, time_s, taken, name)


class FileSource:
    """All frames of a video file, or pictures, in order.

    Args:
        frames: yields images and names.
        rate: frames a second.
        length: how many frames to expect; None if unknown.
        stills: the frames are pictures that have nothing to do with each other.
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
        self.fault: Exception | None = None
        self._stop = threading.Event()
        self._queue: queue.Queue = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._decode, args=(frames,))
        self._thread.start()

    def _decode(self, frames: Iterator[tuple[np.ndarray, str]]) -> None:
        number = 0
        try:
            for image, name in frames:
                self._put(make_frame(image, number, number / self.rate, name))
                number += 1
                if self._stop.is_set():
                    return
            self._put(None)
        except Exception as error:  # the reader, who would wait forever, tells of it
            self._put(error)

    def _put(self, item: Frame | Exception | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                pass

    def read(self, timeout: float) -> Frame | None:
        """Returns the next frame; None if there is none within `timeout` seconds or any more."""
        try:
            item = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, Frame):
            return item
        self.ended, self.fault = True, item
        return None

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()


class LiveSource:
    """The newest frame of a camera or a stream.

    Args:
        name: what messages call it.
        connect: opens the capture.
        capture: the open capture.
        rate: frames a second to expect.
        camera: whether it is a camera of this machine.

    Attributes:
        fault: why it ended, once it has.
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
        self.fault: UserError | None = None
        self._newest: Frame | None = None
        self._fresh = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._capture, args=(capture,))
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""
        return self.fault is not None

    def _capture(self, capture: "cv2.VideoCapture") -> None:
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
                self.fault = UserError(
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
        """Returns a frame newer than the last; None if there is none within `timeout` seconds."""
        with self._fresh:
            if self._newest is None and not self.ended:
                self._fresh.wait(timeout)
            frame, self._newest = self._newest, None
        return frame

    def close(self) -> None:
        """Ends the thread: one that is still inside OpenCV would crash the interpreter's end."""
        self._stop.set()
        self._thread.join()
