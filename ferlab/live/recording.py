"""Output files of a live run: annotated video, CSV of all faces, images."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ferlab.files import UserError, atomic_path, naming_write_errors, require_writable
from ferlab.live.encoders import AvWriter, choose_codec, nearest_rate, open_writer, say_rate
from ferlab.live.frames import Frame
from ferlab.live.tracking import Face

CATCH_UP_SECONDS = 2.0  # longest gap of a live source that repeated frames fill
LONGEST_HOLD = 60.0  # seconds for which a file's frame may be shown; more is a broken time stamp


class VideoFile:
    """An annotated video, written to a temporary file that is renamed at the end.

    Args:
        path: the suffix selects the format (`encoders.SUFFIXES`).
        rate: frames per second.
        real_time: repeats or drops frames so that the video plays at the speed of a live source,
            whose frames arrive at uneven times. The frames of a file are repeated where its frame
            rate varies, but never dropped.
        codec: a key of `encoders.SUFFIXES`; None for the default of the suffix.

    Raises:
        UserError: the suffix is unknown, the codec is not installed, the path is a folder, or the
            folder cannot be written.
    """

    def __init__(self, path: Path, rate: float, real_time: bool, codec: str | None = None):
        self.codec = choose_codec(path, codec)
        if path.is_dir():
            raise UserError(f"--output {path} is a folder; name a video file")
        require_writable(path.parent)
        self.path, self.real_time = path, real_time
        self.rate = nearest_rate(rate, self.codec)
        say_rate(path, self.rate, rate, self.codec)
        self.temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
        self.writer: cv2.VideoWriter | AvWriter | None = None
        self.size = (0, 0)
        self.written = 0

    def write(self, image: np.ndarray, time_s: float) -> None:
        """Adds a frame, uint8 `(H, W, 3)` BGR, resized to the size of the first.

        Raises:
            UserError: such a video cannot be written.
        """
        if self.writer is None:
            self.size = image.shape[1::-1]
            self.writer = open_writer(
                self.temporary, self.codec, self.rate, self.size, name=self.path
            )
            self.start = time_s
        if image.shape[1::-1] != self.size:
            image = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
        times = round((time_s - self.start) * self.rate) + 1 - self.written
        longest = CATCH_UP_SECONDS if self.real_time else LONGEST_HOLD
        if times > longest * self.rate:  # a pause, or no camera: skip it
            self.start += (times - 1) / self.rate
            times = 1
        for _ in range(times if self.real_time else max(1, times)):
            self.writer.write(image)
            self.written += 1

    def close(self) -> None:
        """Completes the file; without a frame, none is written.

        OpenCV reports no error on a full disk. The number of frames is written last: it is missing
        in an incomplete file.

        Raises:
            UserError: the file cannot be written, or is incomplete; the temporary file is kept.
        """
        if self.writer is not None:
            writer, self.writer = self.writer, None
            writer.release()
            if cv2.VideoCapture(str(self.temporary)).get(cv2.CAP_PROP_FRAME_COUNT) < 1:
                raise UserError(
                    f"{self.path} is incomplete, probably because the disk is full; the data "
                    f"are in {self.temporary}; free some space, or choose another --output"
                )
            with naming_write_errors(self.path):
                os.replace(self.temporary, self.path)


class FaceLog:
    """The CSV of all faces: one row per face and frame, on disk after each row.

    Args:
        path: the CSV file; an existing one is replaced.
        class_names: the classes, one column each.
        stills: the frames are images, whose files are named in a first column.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: Path, class_names: Sequence[str], stills: bool = False):
        self.path, self.stills = path, stills
        columns = ["file"] * stills + ["frame", "time_s", "face_id", "x", "y", "w", "h"]
        columns += ["expression", "confidence"]
        with naming_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"encoding": "utf-8", "errors": "surrogateescape"}  # names may be any bytes
            self.file = path.open("w", newline="", buffering=1, **options)
            self.rows = csv.writer(self.file, lineterminator="\n")
            self.rows.writerow([*columns, *class_names])

    def write(self, frame: Frame, face: Face, expression: str, confidence: float) -> None:
        """Adds one face of a frame; its box is in pixels of the source's frame.

        Raises:
            UserError: the file cannot be written.
        """
        numbers = [f"{prob:.4f}" for prob in (confidence, *face.probs)]
        row = [frame.name] * self.stills + [frame.number, f"{frame.time_s:.3f}", face.id]
        row += [*face.rounded_box(), expression, *numbers]
        with naming_write_errors(self.path):
            self.rows.writerow(row)

    def close(self) -> None:
        """Closes the file.

        Raises:
            UserError: the rest cannot be written.
        """
        with naming_write_errors(self.path):
            self.file.close()


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes an image, uint8 `(H, W, 3)` BGR, in the format of the path's suffix.

    Raises:
        UserError: the suffix is unknown, or the file cannot be written.
    """
    try:
        encoded, content = cv2.imencode(path.suffix, image)
    except cv2.error:
        encoded = False
    if not encoded:
        raise UserError(f"{path}: the name of an image ends in .png, .jpg or .webp")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
