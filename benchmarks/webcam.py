"""Stand-ins for the benchmark of the live program: of a webcam, and of a window."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ferlab.live.app import LiveRun

RATE, BUFFER = 30.0, 4  # frames a second, and how many a camera keeps for a slow reader


class BufferedCamera:
    """A stand-in of `cv2.VideoCapture`: keeps the oldest frames that nobody has read yet.

    A frame's number stands in its first two pixels, so that its age can be told at the end.
    """

    def __init__(self, frames: list[np.ndarray]):
        self.frames, self.taken = frames, []
        self.start = time.perf_counter()
        self.buffer: deque[int] = deque()

    def isOpened(self) -> bool:
        return True

    def release(self) -> None:
        pass

    def read(self) -> tuple[bool, np.ndarray | None]:
        if len(self.taken) >= 60_000:
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
        """Takes the pictures that are due; those that find the buffer full are lost."""
        while (due := self.start + len(self.taken) / RATE) <= time.perf_counter():
            if len(self.buffer) < BUFFER:
                self.buffer.append(len(self.taken))
            self.taken.append(due)

    def age(self, frame: np.ndarray) -> float:
        """Returns how long ago a frame was taken, seconds."""
        return time.perf_counter() - self.taken[int(frame[0, 0, 0]) * 256 + int(frame[0, 1, 0])]


class Onlooker:
    """In the place of a window: notes something of the run whenever a frame is shown.

    Args:
        look: what to note.
        seconds: after which to quit.
    """

    def __init__(self, look: Callable[["LiveRun"], float], seconds: float = math.inf):
        self.look, self.end = look, time.perf_counter() + seconds
        self.noted: list[float] = []
        self.run: LiveRun

    def show(self, picture: np.ndarray) -> None:
        self.noted.append(self.look(self.run))

    def key(self, milliseconds: int) -> str:
        return "q" if time.perf_counter() > self.end else ""
