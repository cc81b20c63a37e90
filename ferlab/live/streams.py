"""The newest frame of a camera or a stream, so that the display does not lag behind."""

import threading
import time
from collections.abc import Callable

import cv2
import numpy as np

from ferlab.files import UserError
from ferlab.live.frames import (
    LEAVE_SECONDS,
    Frame,
    as_bgr,
    as_user_error,
    capture_thread,
    make_frame,
)

RETRY_SECONDS = 30.0  # of attempts to reconnect to a lost camera or stream
STALL_SECONDS = 8.0  # for which OpenCV may not return; then another reader connects
CONNECT_SECONDS = 30.0  # that opening may take in addition: some cameras on Windows need 20 s
FIRST_WAIT, LONGEST_WAIT = 0.25, 4.0  # seconds between two attempts; doubled after each


class LiveSource:
    """The newest frame of a camera or a stream, which is reconnected when it fails or stalls.

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
        self._number = 0
        self._fresh = threading.Condition()
        self._capture, self._thread = capture, None

    @property
    def ended(self) -> bool:
        """Whether the source delivers no more frames."""
        return self.error is not None

    @property
    def status(self) -> str:
        """What the program does while no frames come; empty while they come."""
        if self._thread is None or self._lost_at is None:
            return ""
        return f"no frames for {time.perf_counter() - self._seen_at:.0f} s, reconnecting"

    def _start_reader(self, capture: "cv2.VideoCapture | None") -> None:
        self._stop, self._entered_at = threading.Event(), time.perf_counter()
        self._thread = capture_thread(self._read_frames, capture, self._stop)
        self._thread.start()

    def _read_frames(self, capture: "cv2.VideoCapture | None", stop: threading.Event) -> None:
        """Delivers frames until `stop` is set: by `close`, or when the reader is given up."""
        wait = FIRST_WAIT
        try:
            while not stop.is_set():
                if capture is None:
                    self._entered_at = time.perf_counter() + CONNECT_SECONDS
                    capture = self.connect()
                    continue  # unless it was given up meanwhile
                self._entered_at = time.perf_counter()
                there, image = capture.read() if capture.isOpened() else (False, None)
                image = as_bgr(image) if there else None
                if stop.is_set():
                    break
                if image is not None:
                    self._deliver(image)
                    wait = FIRST_WAIT
                elif not there or time.perf_counter() - self._seen_at > STALL_SECONDS:
                    capture.release()
                    capture = None
                    self._lose()
                    self._entered_at = np.inf  # not inside OpenCV
                    stop.wait(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
        except Exception as error:  # ends the source
            if not stop.is_set():
                self.error = as_user_error(self.name, error)
        finally:
            if capture is not None:
                capture.release()
            with self._fresh:
                self._fresh.notify()

    def _deliver(self, image: np.ndarray) -> None:
        self._seen_at, self._lost_at = time.perf_counter(), None
        with self._fresh:
            self._newest = make_frame(image, self._number, self._seen_at - self._start)
            self._fresh.notify()
        self._number += 1

    def _lose(self) -> None:
        """Notes that no frame came; ends the source when none has come for too long."""
        now = time.perf_counter()
        self._lost_at = self._lost_at or now
        if now - self._lost_at > RETRY_SECONDS:
            remedy = "check that it is plugged in and that no other program uses it"
            remedy = remedy if self.camera else "check the network and the sender"
            self.error = UserError(
                f"{self.name} delivers no more frames; {remedy}, then run the same command again"
            )
            self._stop.set()

    def read(self, timeout: float) -> Frame | None:
        """Returns the newest unread frame; None if there is none within `timeout` seconds."""
        if self._thread is None:
            self._start = self._seen_at = time.perf_counter()
            self._lost_at = None
            self._start_reader(self._capture)
        with self._fresh:
            if self._newest is None and not self.ended:
                self._fresh.wait(timeout)
            frame, self._newest = self._newest, None
        if frame is None and time.perf_counter() - self._entered_at > STALL_SECONDS:
            self._stop.set()  # the reader leaves whenever OpenCV returns
            self._lose()
            if not self.ended:
                self._start_reader(None)
        return frame

    def close(self) -> None:
        """Stops the thread, or leaves it behind where OpenCV does not return in time."""
        if self._thread is None:
            self._capture.release()
            return
        self._stop.set()
        self._thread.join(LEAVE_SECONDS)
