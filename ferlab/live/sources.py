"""Opens a source of frames: camera, stream, video file, images, the drawn clip."""

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ferlab.files import UserError
from ferlab.live.frames import FileSource, LiveSource, as_bgr

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
SAMPLE_CLIP = Path("data/sample/clip.mp4")


def open_source(
    text: str, camera_size: tuple[int, int] | None = None, fps: float | None = None
) -> FileSource | LiveSource:
    """Opens a source.

    Args:
        text: the number of a camera, the URL of a stream, "sample", or the path of a video, an
            image or a folder of images.
        camera_size: width and height to request from a camera, pixels.
        fps: frames per second: requested from a camera, assumed for a stream or a file.

    Raises:
        UserError: the source cannot be opened.
    """
    if text.isdecimal() or "://" in text:
        return open_live(text, camera_size, fps)
    if text == "sample":
        return open_sample(fps)
    path = Path(text)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise UserError(f"{path} contains no images ({', '.join(IMAGE_SUFFIXES)})")
        return FileSource(read_images(files), 1.0, len(files), stills=True)
    if not path.is_file():
        raise UserError(
            f"{path} is missing; --source takes the number of a camera, the URL of a stream, a "
            "video, an image, a folder of images, or: sample"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return FileSource(read_images([path]), 1.0, 1, stills=True)
    return open_video(path, fps)


def open_live(text: str, size: tuple[int, int] | None, fps: float | None) -> LiveSource:
    """Opens a camera by its number, or a stream by its URL."""
    camera = text.isdecimal()

    def connect() -> "cv2.VideoCapture":
        capture = cv2.VideoCapture(int(text) if camera else text)
        if camera and size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if camera and fps:
            capture.set(cv2.CAP_PROP_FPS, fps)
        return capture

    capture = connect()
    name = f"camera {text}" if camera else text
    if not capture.isOpened():
        capture.release()
        remedy = "connect one, close other programs that use it, or try: --source 1"
        raise UserError(
            f"{name} cannot be opened; {remedy if camera else 'check the URL'}; without a camera: "
            "python live_inference.py --source sample"
        )
    rate = fps or capture.get(cv2.CAP_PROP_FPS)
    return LiveSource(name, connect, capture, rate if 1 <= rate <= 240 else 30.0, camera)


def open_video(path: Path, fps: float | None = None) -> FileSource:
    """Opens a video file."""
    capture = cv2.VideoCapture(str(path))
    there, first = capture.read()
    first = as_bgr(first) if there else None
    if first is None:
        capture.release()
        raise UserError(f"{path} is not a video that OpenCV can read, or has no frames")
    rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)

    def frames() -> Iterator[tuple[np.ndarray, str]]:
        image = first
        try:
            while image is not None:
                yield image, ""
                image = None
                while image is None:
                    there, image = capture.read()
                    if not there:
                        break
                    image = as_bgr(image)  # an empty frame is skipped
        finally:
            capture.release()

    length = int(count) if count > 0 else None
    return FileSource(frames(), fps or (rate if 1 <= rate <= 1000 else 30.0), length, stills=False)


def read_images(files: list[Path]) -> Iterator[tuple[np.ndarray, str]]:
    """Yields each image as BGR with its path; skips those of several that cannot be read.

    Raises:
        UserError: the only image cannot be read.
    """
    for path in files:
        try:
            image = as_bgr(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR))
        except (cv2.error, OSError):
            image = None
        if image is not None:
            yield image, str(path)
        elif len(files) == 1:
            raise UserError(f"{path} is not an image that OpenCV can read")
        else:
            print(f"skipped {path}: not an image that OpenCV can read", file=sys.stderr)


def open_sample(fps: float | None) -> FileSource:
    """Opens the drawn clip; draws its frames as they are read if the file is missing."""
    if SAMPLE_CLIP.is_file():
        return open_video(SAMPLE_CLIP, fps)
    from ferlab.sample.dataset import CLIP_LENGTH, CLIP_RATE, clip_frames

    frames = ((image, "") for image, _, _ in clip_frames())
    return FileSource(frames, fps or CLIP_RATE, CLIP_LENGTH, stills=False)
