"""Opens a source of frames: camera, stream, video file, images, the drawn clip."""

import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import cv2

from ferlab.files import UserError, require_file
from ferlab.live import images, urls
from ferlab.live.frames import FileSource, interruptible
from ferlab.live.streams import LiveSource
from ferlab.live.videos import open_video

SAMPLE_CLIP = Path("data/sample/clip.mp4")
WINDOWS_DRIVES = Path("/mnt")  # where the Windows Subsystem for Linux shows them
ANY_CAMERA = range(5)  # numbers that -1 tries
OPEN_MS, READ_MS = 8000, 5000  # for which a stream may keep OpenCV waiting


def open_source(
    text: str, camera_size: tuple[int, int] | None = None, fps: float | None = None
) -> FileSource | LiveSource:
    """Opens a source.

    Args:
        text: the number or the device file of a camera, the URL of a stream or a file, "sample", or
            the path of a video, an image or a folder of images.
        camera_size: width and height to request from a camera, pixels.
        fps: frames per second: requested from a camera, assumed for a stream or a file.

    Raises:
        UserError: the source cannot be opened.
    """
    number = camera_number(text)
    if number is not None:
        return open_camera(number, camera_size, fps)
    if text == "sample":
        return open_sample(fps)
    path = local_path(text)
    return open_url(text, fps) if path is None else open_path(path, fps)


def camera_number(text: str) -> int | None:
    """Returns the number of the camera that `text` names, None if it names none; -1 is the first
    camera that opens.
    """
    if re.fullmatch(r"-1|\d{1,9}", text):  # longer numbers do not fit OpenCV's int
        return int(text)
    device = re.fullmatch(r"/dev/video(\d+)", os.path.realpath(text))  # also of /dev/v4l/by-id/...
    return int(device[1]) if device else None


def local_path(text: str) -> Path | None:
    """Returns the path that `text` names; None if it is a URL."""
    drive = re.match(r"([A-Za-z]):[\\/]", text)
    if drive and os.name != "nt":
        mounted = WINDOWS_DRIVES / drive[1].lower()
        return mounted / text[3:].replace("\\", "/").lstrip("/") if mounted.is_dir() else Path(text)
    if text.lower().startswith("file:"):
        return Path(url2pathname(urlsplit(text).path))
    return None if "://" in text else Path(os.path.expanduser(text))


def open_path(path: Path, fps: float | None = None, name: str = "") -> FileSource:
    """Opens a video, an image or a folder of images: the content decides which, not the name."""
    if path.is_dir():
        return images.open_folder(path)
    require_file(
        path,
        "--source takes the number or the device file of a camera, a URL, a video, an image, a "
        "folder of images, or: sample",
    )
    if images.is_image(path):
        return images.open_image(path, fps, name)
    try:
        source = open_video(path, fps, name)
    except UserError:
        if not images.opens(path):
            raise
        source = None
    if source is None or (source.length in (None, 1) and images.opens(path)):
        if source:
            source.close()
        return images.open_image(path, fps, name)
    return source


def open_camera(number: int, size: tuple[int, int] | None, fps: float | None) -> LiveSource:
    """Opens a camera by its number; -1 opens the first of `ANY_CAMERA` that there is."""

    def connect(number: int) -> "cv2.VideoCapture":
        capture = cv2.VideoCapture(number)  # crashes with -1 where there is no camera
        if size or fps:  # many cameras send large frames fast only if compressed
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG"))
        if size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if fps:
            capture.set(cv2.CAP_PROP_FPS, fps)
        return capture

    for candidate in ANY_CAMERA if number < 0 else [number]:
        capture = interruptible(partial(connect, candidate))
        if capture.isOpened():
            break
        capture.release()
    else:
        name = f"none of the cameras 0 to {ANY_CAMERA[-1]}" if number < 0 else f"camera {number}"
        raise UserError(
            f"{name} {'can' if number < 0 else 'cannot'} be opened; connect one, close other "
            f"programs that use it{'' if number < 0 else ', or try: --source -1'}; without a "
            "camera: python live_inference.py --source sample"
        )
    name = f"camera {candidate}"
    if size or fps or number < 0:
        print(f"{name}: {format_of(capture)}", file=sys.stderr)
    return live_source(name, partial(connect, candidate), capture, fps, camera=True)


def format_of(capture: "cv2.VideoCapture") -> str:
    """Returns the size, the rate and the encoding of a camera's frames, as the camera states."""
    width, height, rate, code = (
        int(capture.get(prop))
        for prop in (
            cv2.CAP_PROP_FRAME_WIDTH,
            cv2.CAP_PROP_FRAME_HEIGHT,
            cv2.CAP_PROP_FPS,
            cv2.CAP_PROP_FOURCC,
        )
    )
    text = f"{width}x{height}" + (f" at {rate} frames/s" if rate > 0 else "")
    letters = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24)) if code > 0 else ""
    return text + (f", {letters}" if letters.isprintable() and letters.strip() else "")


def live_source(
    name: str,
    connect: Callable[[], "cv2.VideoCapture"],
    capture: "cv2.VideoCapture",
    fps: float | None,
    camera: bool,
) -> LiveSource:
    """Returns the source of an open capture."""
    rate = fps or capture.get(cv2.CAP_PROP_FPS)
    return LiveSource(name, connect, capture, rate if 1 <= rate <= 240 else 30.0, camera)


def open_url(url: str, fps: float | None) -> FileSource | LiveSource:
    """Opens a stream, or a file on a server, which ends."""
    name, timeouts = urls.shown(url), [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS]
    timeouts += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]

    def connect() -> "cv2.VideoCapture":
        return cv2.VideoCapture(url, cv2.CAP_ANY, timeouts)

    if images.has_image_suffix(re.sub(r"[?#].*", "", url)):
        return open_download(url, fps)
    capture = interruptible(connect)
    if not capture.isOpened():
        capture.release()
        answer = interruptible(lambda: urls.ask(url))
        if answer.is_file:
            return open_download(url, fps)
        raise UserError(
            f"{name} cannot be opened: {answer.reason}; check the URL; without a stream: "
            "python live_inference.py --source sample"
        )
    if is_finished(capture, url):
        capture.release()
        try:
            return interruptible(lambda: open_video(url, fps, name))
        except UserError:  # a server without ranges, and a file whose index stands at its end
            return open_download(url, fps)
    return live_source(name, connect, capture, fps, camera=False)


def is_finished(capture: "cv2.VideoCapture", url: str) -> bool:
    """Whether a URL is that of a file: it states a number of frames, or the server a size."""
    if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        return True
    if int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter_fourcc(*"MJPG"):
        return False  # a network camera, which may serve only one connection
    return interruptible(lambda: urls.ask(url)).is_file


def open_download(url: str, fps: float | None) -> FileSource:
    """Opens a copy of a file that cannot be played from its server; `close` deletes the copy."""
    folder, path = interruptible(lambda: urls.download(url))
    try:
        source = open_path(path, fps, urls.shown(url))
    except UserError:
        folder.cleanup()
        raise
    source.clean_up = folder.cleanup
    return source


def open_sample(fps: float | None) -> FileSource:
    """Opens the drawn clip; draws its frames as they are read if the file is missing."""
    if SAMPLE_CLIP.is_file():
        return open_video(SAMPLE_CLIP, fps)
    from ferlab.sample.dataset import CLIP_LENGTH, CLIP_RATE, clip_frames

    rate = fps or CLIP_RATE
    frames = ((image, "", number / rate) for number, (image, _, _) in enumerate(clip_frames()))
    return FileSource(frames, rate, CLIP_LENGTH, stills=False)
