"""Stand-ins for the benchmark of the live program: for a webcam, and for a window."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ferlab.live.app import LiveRun

RATE, BUFFER = 30.0, 4  # frames per second, and frames that the camera buffers


class BufferedCamera:
    """A stand-in for `cv2.VideoCapture` that delivers the oldest unread frame of its buffer.

    The first two pixels hold the frame's number, from which `latency` is computed.
    """

    def __init__(self, frames: list[np.ndarray]):
        self.frames, self.captured = frames, []
        self.start = time.perf_counter()
        self.buffer: deque[int] = deque()

    def isOpened(self) -> bool:
        return True

    def release(self) -> None:
        pass

    def read(self) -> tuple[bool, np.ndarray | None]:
        if len(self.captured) >= 60_000:
            return False, None
        self._fill()
        while not self.buffer:
            time.sleep(0.0005)
            self._fill()
        number = self.buffer.popleft()
        frame = self.frames[number % len(self.frames)].copy()
        frame[0, 0], frame[0, 1] = number // 256, number % 256
        return True, frame

    def _fill(self) -> None:
        """Captures the frames that are due; drops those that do not fit into the buffer."""
        while (due := self.start + len(self.captured) / RATE) <= time.perf_counter():
            if len(self.buffer) < BUFFER:
                self.buffer.append(len(self.captured))
            self.captured.append(due)

    def latency(self, frame: np.ndarray) -> float:
        """Returns the time since a frame was captured, seconds."""
        number = int(frame[0, 0, 0]) * 256 + int(frame[0, 1, 0])
        return time.perf_counter() - self.captured[number]


class Probe:
    """A stand-in for a window: records one number of the run for each frame shown.

    Args:
        measure: computes the number.
        seconds: time after which to quit.
    """

    def __init__(self, measure: Callable[["LiveRun"], float], seconds: float = math.inf):
        self.measure, self.end = measure, time.perf_counter() + seconds
        self.values: list[float] = []
        self.run: LiveRun

    def show(self, image: np.ndarray) -> None:
        self.values.append(self.measure(self.run))

    def key(self, milliseconds: int) -> str:
        return "q" if time.perf_counter() > self.end else ""
