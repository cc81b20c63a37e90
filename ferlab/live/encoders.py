"""Encoders of annotated videos: H.264 and VP9 through PyAV, MPEG-4 and MJPEG through OpenCV."""

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ferlab.files import UserError

# The formats of each codec; of several codecs for a format, the first that is installed is used.
SUFFIXES = {
    "h264": (".mp4", ".m4v", ".mov", ".mkv"),
    "vp9": (".webm", ".mkv"),
    "mp4v": (".mp4", ".m4v", ".mov", ".mkv", ".avi"),
    "mjpg": (".avi", ".mkv", ".mov"),
}
DEFAULTS = {".avi": "mjpg"}  # plays on every system
FOURCC = {"mp4v": "mp4v", "mjpg": "MJPG"}
LIBRARIES = {"h264": "libx264", "vp9": "libvpx-vp9"}
OPTIONS = {  # fast enough for a live camera
    "h264": {"preset": "ultrafast", "crf": "23"},
    "vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"},
}
RATES = (0.01, 1000.0)  # frames per second
LARGEST_CLOCK = 65535  # of MPEG-4: the numerator of the rate


def choose_codec(path: Path, codec: str | None) -> str:
    """Returns the codec of a video: `codec`, or the default one of the path's suffix.

    Raises:
        UserError: the suffix is unknown, the codec does not go with it, or is not installed.
    """
    suffix = path.suffix.lower()
    endings = dict.fromkeys(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    if suffix not in endings:
        raise UserError(f"--output {path}: the name of a video ends in {', '.join(endings)}")
    if codec and suffix not in SUFFIXES[codec]:
        endings = ", ".join(SUFFIXES[codec])
        raise UserError(f"--output {path}: a video with --codec {codec} ends in {endings}")
    usable = [name for name, suffixes in SUFFIXES.items() if suffix in suffixes and has(name)]
    chosen = codec or DEFAULTS.get(suffix) or next(iter(usable), "vp9")
    if not has(chosen):
        other = "or name an .mp4 file, without --codec"
        raise UserError(f"--output {path}: {chosen} needs PyAV; run: pip install av; {other}")
    return chosen


def has(codec: str) -> bool:
    """Whether the encoder of a codec is installed."""
    if codec in FOURCC:
        return True
    if importlib.util.find_spec("av") is None:
        return False
    import av

    return LIBRARIES[codec] in av.codecs_available


def nearest_rate(rate: float, codec: str) -> float:
    """Returns the frame rate nearest to `rate` that a codec can state, frames per second."""
    rate = min(max(rate, RATES[0]), RATES[1])
    if codec != "mp4v":
        return rate
    digits = next(n for n in (3, 2, 1, 0) if round(rate * 10**n) <= LARGEST_CLOCK)
    return round(rate, digits)


def open_writer(
    path: Path, codec: str, rate: float, size: tuple[int, int], name: Path
) -> "cv2.VideoWriter | AvWriter":
    """Opens a video for writing.

    Args:
        path: the file.
        codec: a key of `SUFFIXES`.
        rate: frames per second.
        size: width and height, pixels.
        name: the file's name in messages.

    Raises:
        UserError: it cannot be opened.
    """
    if codec not in FOURCC:
        return AvWriter(path, codec, rate, size, name)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*FOURCC[codec]), rate, size)
    if not writer.isOpened():
        raise UserError(
            f"cannot write {name}: this OpenCV does not encode {codec} of {size[0]}x{size[1]}"
        )
    return writer


class AvWriter:
    """A video that PyAV encodes; has the methods of `cv2.VideoWriter` that are used.

    Args:
        path: the file.
        codec: "h264" or "vp9".
        rate: frames per second.
        size: width and height, pixels; an odd last column or row is left out.
        name: the file's name in messages.
        container: FFmpeg's name of the format; None for that of the suffix.

    Raises:
        UserError: it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        codec: str,
        rate: float,
        size: tuple[int, int],
        name: Path,
        container: str | None = None,
    ):
        import av

        self.av, self.name, self.failed = av, name, False
        self.width, self.height = (length - length % 2 for length in size)
        try:
            # A browser plays a file whose index stands at its start before it has all of it.
            options = {} if path.suffix in (".webm", ".mkv") else {"movflags": "faststart"}
            self.container = av.open(str(path), "w", container, options=options)
            speed = Fraction(rate).limit_denominator(1001)
            self.stream = self.container.add_stream(LIBRARIES[codec], speed, OPTIONS[codec])
            self.stream.width, self.stream.height = self.width, self.height
            self.stream.pix_fmt = "yuv420p"
            self.stream.codec_context.open()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> UserError:
        reason = getattr(error, "strerror", None) or str(error)
        return UserError(f"cannot write {self.name}: {reason}")

    def write(self, image: np.ndarray) -> None:
        """Adds an image, uint8 `(H, W, 3)` BGR.

        Raises:
            UserError: the file cannot be written.
        """
        image = np.ascontiguousarray(image[: self.height, : self.width])
        self._encode(self.av.VideoFrame.from_ndarray(image, format="bgr24"))

    def _encode(self, frame: object) -> None:
        try:
            self.container.mux(self.stream.encode(frame))
        except (self.av.FFmpegError, OSError) as error:
            self.failed = True
            raise self._error(error) from error

    def release(self) -> None:
        """Completes the file, unless it could not be written so far.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            if not self.failed:  # FFmpeg would crash
                self._encode(None)
        finally:
            try:
                self.container.close()
            except (self.av.FFmpegError, OSError) as error:
                raise self._error(error) from error


def say_rate(path: Path, rate: float, wanted: float, codec: str) -> None:
    """Reports a frame rate that is not the wanted one."""
    if abs(rate - wanted) > 5e-4 * max(1.0, wanted / 60):
        print(
            f"{path}: {rate:g} frames/s instead of {wanted:g}, the nearest rate of {codec}",
            file=sys.stderr,
        )
