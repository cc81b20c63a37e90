"""What a live run leaves on disk: the annotated video, a CSV of all faces, pictures."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ferlab.files import UserError, atomic_path, require_writable, told_of
from ferlab.live.tracking import Face

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
CATCH_UP_SECONDS = 2.0  # longest gap of a live source filled by repeating the last picture


class VideoFile:
    """An annotated video, written beside its place and renamed when it is closed.

    Args:
        path: its ending chooses the format (`CODECS`).
        rate: frames a second.
        steady: a live source, whose frames come unevenly: they are repeated or left out so that
            the video runs at the speed of life.

    Raises:
        UserError: an unknown ending, a folder's name, or a folder that cannot be written.
    """

    def __init__(self, path: Path, rate: float, steady: bool):
        if path.suffix.lower() not in CODECS:
            raise UserError(f"--output {path}: a video's name ends in {', '.join(CODECS)}")
        if path.is_dir():
            raise UserError(f"--output {path} is a folder; name a video file")
        require_writable(path.parent)
        self.path, self.rate, self.steady = path, rate, steady
        self.temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
        self.writer: cv2.VideoWriter | None = None
        self.size = (0, 0)
        self.written = 0

    def write(self, picture: np.ndarray, time_s: float) -> None:
        """Adds a frame, uint8 `(H, W, 3)`; all get the size of the first.

        Raises:
            UserError: OpenCV cannot write such a video.
        """
        if self.writer is None:
            self.size = picture.shape[1::-1]
            code = cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
            self.writer = cv2.VideoWriter(str(self.temporary), code, self.rate, self.size)
            if not self.writer.isOpened():
                raise UserError(f"cannot write {self.path}: this OpenCV has no encoder for it")
            self.start = time_s
        if picture.shape[1::-1] != self.size:
            picture = cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)
        times = 1
        if self.steady:
            due = round((time_s - self.start) * self.rate) + 1
            times = due - self.written
            if times > CATCH_UP_SECONDS * self.rate:  # paused, or the camera was away: cut out
                self.start += (times - 1) / self.rate
                times = 1
        for _ in range(times):
            self.writer.write(picture)
            self.written += 1

    def close(self) -> None:
        """Completes the file; without a frame there is none.

        OpenCV says nothing of a disk that fills up. A video has its number of frames written last:
        one that was cut short has none.

        Raises:
            UserError: it cannot be written, or is not whole; what there is of it stays.
        """
        if self.writer is not None:
            self.writer.release()
            self.writer = None
            if cv2.VideoCapture(str(self.temporary)).get(cv2.CAP_PROP_FRAME_COUNT) < 1:
                raise UserError(
                    f"{self.path} was cut short, as by a full disk; what there is of it is in "
                    f"{self.temporary}: free some space, or name another place with --output"
                )
            with told_of(self.path):
                os.replace(self.temporary, self.path)


class FaceLog:
    """The CSV of all faces, one row a face and frame, on disk after every frame.

    Args:
        path: the CSV file; an older one is replaced.
        class_names: a column each.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, path: Path, class_names: Sequence[str]):
        self.path = path
        columns = ["frame", "time_s", "face_id", "x", "y", "w", "h", "expression", "confidence"]
        with told_of(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("w", newline="", encoding="utf-8", buffering=1)
            self.rows = csv.writer(self.file, lineterminator="\n")
            self.rows.writerow([*columns, *class_names])

    def write(
        self, frame: int, time_s: float, face: Face, expression: str, confidence: float
    ) -> None:
        """Adds a face of a frame; its box is in pixels of the source's frame.

        Raises:
            UserError: it cannot be written.
        """
        numbers = [f"{share:.4f}" for share in (confidence, *face.probs)]
        row = [frame, f"{time_s:.3f}", face.id, *face.place(), expression, *numbers]
        with told_of(self.path):
            self.rows.writerow(row)

    def close(self) -> None:
        """Ends the file.

        Raises:
            UserError: what is left cannot be written.
        """
        with told_of(self.path):
            self.file.close()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture, uint8 `(H, W, 3)` BGR, in the format of the path's ending.

    Raises:
        UserError: an unknown ending, or it cannot be written.
    """
    try:
        there, content = cv2.imencode(path.suffix, picture)
    except cv2.error:
        there = False
    if not there:
        raise UserError(f"{path}: a picture's name ends in .png, .jpg or .webp")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
