"""Video files: time stamps, frame rates, and what is missing from damaged files."""

import itertools
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ferlab.files import UserError
from ferlab.live.frames import FileSource, as_bgr

USUAL_RATES = (5, 70)  # frames per second; others are compared with the time stamps
DEFAULT_RATE = 30.0  # of a video that states none
PROBED_FRAMES = 30  # frames whose time stamps give the frame rate
READ_ATTEMPTS, READ_SECONDS = 300, 2.0  # to find a readable frame behind a damaged part
URL_ATTEMPTS = 5  # of a video on a server, which each attempt may ask again
LONGEST_GAP = 0.4  # seconds between frames that are otherwise evenly spaced
MISSING_END = 0.5  # seconds that a container may last longer than its frames


def open_video(path: Path | str, fps: float | None = None, name: str = "") -> FileSource:
    """Opens a video file.

    Args:
        path: the file, or its URL.
        fps: frames per second, in place of the file's time stamps.
        name: its name in messages; default: the path.

    Raises:
        UserError: it is not a video that OpenCV can read.
    """
    name = name or str(path)
    capture = cv2.VideoCapture(str(path))
    first, _ = next_image(capture, READ_ATTEMPTS)
    if first is None:
        capture.release()
        raise UserError(
            f"{name} is not a video that OpenCV can read, or has no frames; if it plays "
            "elsewhere, convert it to MP4 with H.264; if not, copy or download it again"
        )
    stated, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    rate = fps or true_rate(str(path), stated, name)
    seconds = count / stated if count > 0 and stated > 0 else None
    length = None
    if seconds is not None:
        length = int(count) if fps or rate == stated else math.ceil(seconds * rate - 0.02)
    reader = VideoReader(capture, name, rate, seconds, length, by_rate=fps is not None)
    if "://" in str(path):
        reader.attempts = URL_ATTEMPTS
    return FileSource(reader.frames(first), rate, length, stills=False, name=name)


def next_image(capture: "cv2.VideoCapture", attempts: int) -> tuple[np.ndarray | None, int]:
    """Returns the next image that can be decoded, None at the end, and the number of failures.

    OpenCV's `read` fails at each damaged packet, and at the end of the file.
    """
    deadline = time.monotonic() + READ_SECONDS
    for failures in range(attempts):
        there, image = capture.read()
        image = as_bgr(image) if there else None
        if image is not None:
            return image, failures
        if time.monotonic() > deadline or not capture.isOpened():
            break
    return None, 0


def true_rate(path: str, stated: float, name: str) -> float:
    """Returns the frame rate that a header states, or that of the time stamps if it is unusual.

    Browsers record WebM files whose header states 1000 frames/s: the clock of the time stamps.
    """
    if USUAL_RATES[0] <= stated <= USUAL_RATES[1]:
        return stated
    capture, stamps = cv2.VideoCapture(path), []
    while len(stamps) < PROBED_FRAMES and capture.grab():
        stamps.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)
    capture.release()
    span = stamps[-1] - stamps[0] if stamps else 0.0
    if span > 0:
        rate = (len(stamps) - 1) / span
        if abs(rate - stated) <= 0.1 * rate:
            return stated
        whole = round(rate)  # time stamps of whole milliseconds give 29.99
        rate = float(whole if abs(rate - whole) < 2e-3 * rate else f"{rate:.4g}")
        reason = f"its time stamps give {rate:g}, which is used"
    else:
        rate = stated if 1 <= stated <= 240 else DEFAULT_RATE
        reason = f"it has no time stamps: {rate:g} is used; --fps sets another"
    if rate != stated:
        print(f"{name}: the header states {stated:g} frames/s; {reason}", file=sys.stderr)
    return rate


class VideoReader:
    """Reads the frames of an open video with their times, and checks that none is missing.

    Args:
        capture: the open video, after its first image.
        name: the video's name in messages.
        rate: frames per second.
        seconds: the duration that the container states; None if it states none.
        length: the number of frames that the container states; None if it states none.
        by_rate: the times follow from `rate` instead of the time stamps.
    """

    def __init__(
        self,
        capture: "cv2.VideoCapture",
        name: str,
        rate: float,
        seconds: float | None,
        length: int | None,
        by_rate: bool,
    ):
        self.capture, self.name, self.rate, self.by_rate = capture, name, rate, by_rate
        self.seconds, self.length = seconds, length
        self.failures = 0  # of reads between two frames
        self.attempts = READ_ATTEMPTS

    def frames(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, str, float]]:
        """Yields the frames from the first `image` on, each with its time.

        The time is the container's time stamp since the first frame, seconds; where time stamps do
        not rise it is that of the frame before plus 1 / rate.

        Raises:
            UserError: frames are missing, at the end or within.
        """
        start, stamps = self.capture.get(cv2.CAP_PROP_POS_MSEC), [0.0]
        try:
            for number in itertools.count(1):
                time_s = (number - 1) / self.rate if self.by_rate else stamps[-1]
                yield image, "", time_s
                complete = self.length is not None and number >= self.length
                image, failures = next_image(self.capture, 1 if complete else self.attempts)
                if image is None:
                    break
                self.failures += failures
                stamp = (self.capture.get(cv2.CAP_PROP_POS_MSEC) - start) / 1e3
                stamps.append(stamp if stamp > stamps[-1] else stamps[-1] + 1 / self.rate)
        finally:
            self.capture.release()
        if self.length is not None and is_missing(
            np.array(stamps), self.seconds, self.length, self.failures
        ):
            raise UserError(
                f"{self.name} is damaged or cut short: {number:,} of about {self.length:,} frames "
                "could be read; what was read has been processed; copy or download the file again "
                "for the rest"
            )


def is_missing(times: np.ndarray, seconds: float, length: int, failures: int) -> bool:
    """Whether frames are missing from a video, at its end or within.

    The number of frames in a header alone does not show that: Matroska states none, and some frames
    of a trimmed MP4 are never shown. Within a video, a gap between evenly spaced frames counts, not
    the uneven intervals of variable frame rates.

    Args:
        times: of the frames that were read, seconds.
        seconds: the stated duration.
        length: the stated number of frames.
        failures: number of reads that failed between two frames.
    """
    if len(times) >= length or len(times) < 2 or failures:
        return len(times) < length
    intervals = np.diff(times)
    usual = float(np.median(intervals))
    tolerance = max(min(MISSING_END, 0.1 * seconds), 2 * usual, intervals.max())
    if seconds - (times[-1] + usual) > tolerance:
        return True
    gaps = intervals > max(LONGEST_GAP, 5 * usual)
    even = (intervals[~gaps] < 2 * usual).all()
    lost = intervals[gaps].sum() / usual - gaps.sum() if gaps.any() else 0
    return bool(lost and even and gaps.sum() <= 5 and length - len(times) >= lost / 2)
