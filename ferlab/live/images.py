"""Still and animated images: recognised by their content, and read upright by Pillow."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from ferlab import pictures
from ferlab.files import UserError
from ferlab.live.frames import FileSource

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".apng", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm",
    ".ppm", ".heic", ".heif", ".avif",
)  # fmt: skip
SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6", b"P2", b"P3",
)  # fmt: skip
MJPEG_SUFFIXES = (".mjpg", ".mjpeg")  # videos that begin like a JPEG image
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")  # Pillow's formats; of others the first frame is read
SHORTEST_MS, USUAL_MS = 10, 100  # a frame of up to 10 ms is shown for 100 ms, as in browsers


def has_image_suffix(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its first bytes; where these are unknown, by its name."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        head = b""
    if path.suffix.lower() in MJPEG_SUFFIXES:
        return False
    known = head.startswith(SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    if known or pictures.is_heic(head) or pictures.is_avif(head):
        return True
    is_video = head[4:8] in (b"ftyp", b"moov", b"mdat") or head.startswith((b"RIFF", b"\x1aE\xdf"))
    return has_image_suffix(path.name) and not is_video


def opens(path: Path) -> bool:
    """Whether Pillow can read a file."""
    try:
        with pictures.opened(path) as image:
            image.load()
    except pictures.FAULTS:
        return False
    return True


def open_folder(folder: Path) -> FileSource:
    """Opens all images in a folder.

    Raises:
        UserError: there are none.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    chosen, others = [], []
    for path in files:
        (chosen if is_image(path) else others).append(path)
    if not chosen:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise UserError(f"{folder} has no images ({suffixes}); folders in it are not searched")
    if others:
        shown = ", ".join(path.name for path in others[:3]) + ", ..." * (len(others) > 3)
        print(f"{folder}: files that are not images: {len(others)} ({shown})", file=sys.stderr)
    return FileSource(read_images(chosen), 1.0, len(chosen), stills=True, name=str(folder))


def open_image(path: Path, fps: float | None = None, name: str = "") -> FileSource:
    """Opens an image; an animated one is played like a video."""
    try:
        with pictures.opened(path) as image:
            count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
            rate = 1 / np.mean([seconds for _, seconds in animation(image, min(count, 10))])
    except pictures.FAULTS:  # damaged
        count = 1
    if count == 1:
        return FileSource(read_images([path]), 1.0, 1, stills=True, name=name or str(path))
    frames = read_animation(path, count, fps)
    return FileSource(frames, fps or float(rate), count, stills=False, name=name or str(path))


def animation(image: "Image", count: int) -> Iterator[tuple[np.ndarray, float]]:
    """Yields the first `count` frames of an image as BGR with their durations, seconds."""
    for number in range(count):
        image.seek(number)
        rgb = np.asarray(image.convert("RGB"))
        duration = image.info.get("duration", 0)
        yield rgb[..., ::-1], (duration if duration > SHORTEST_MS else USUAL_MS) / 1e3


def read_animation(
    path: Path, count: int, fps: float | None
) -> Iterator[tuple[np.ndarray, str, float]]:
    """Yields the frames of an animated image as BGR with their times, seconds.

    Raises:
        UserError: not all of them can be read.
    """
    time_s, read = 0.0, 0
    try:
        with pictures.opened(path) as image:
            for frame, duration in animation(image, count):
                yield np.ascontiguousarray(frame), "", read / fps if fps else time_s
                time_s, read = time_s + duration, read + 1
    except pictures.FAULTS as error:
        raise UserError(
            f"{path} is damaged or cut short: {read} of {count} frames could be read; "
            "copy or download the file again"
        ) from error


def read_images(files: list[Path]) -> Iterator[tuple[np.ndarray, str, float]]:
    """Yields each image as BGR, upright, with its path and number; reports those it cannot read.

    Raises:
        UserError: no image can be read.
    """
    unread = 0
    for number, path in enumerate(files):
        try:
            yield decode(path), str(path), float(number)
        except UserError as error:
            if len(files) == 1:
                raise
            unread += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    if unread == len(files):
        raise UserError(f"none of the {unread} images in {files[0].parent} could be read")
    if unread:
        tqdm.write(f"{unread} of {len(files)} images could not be read", file=sys.stderr)


def decode(path: Path) -> np.ndarray:
    """Returns a still image, uint8 `(H, W, 3)` BGR, turned as its EXIF orientation says.

    Raises:
        UserError: Pillow cannot read it.
    """
    try:
        with pictures.opened(path) as image:
            pixels = pictures.pixels_of(image)
    except pictures.TooLarge as error:
        raise UserError(f"{path} is too large: {error}") from error
    except pictures.FAULTS as error:
        with contextlib.suppress(OSError), path.open("rb") as file:
            if pictures.is_heic(file.read(16)) and not pictures.knows_heic():
                raise UserError(f"{path} is {pictures.NO_HEIC}") from error
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        reason = "" if "cannot identify" in str(error) else f": {error}"
        raise UserError(f"{path} is not an image that Pillow can read{reason}") from error
    grey = pixels.shape[2] == 1
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if grey else cv2.COLOR_RGB2BGR)
