"""Converts images of any kind and size to the 48x48 grey levels of the splits."""

import io
import re

import cv2
import numpy as np
import torch
from PIL import UnidentifiedImageError

from ferlab import pictures
from ferlab.constants import IMAGE_SIZE
from ferlab.data.preprocessing import preprocess
from ferlab.data.splits import gray_levels

SIZE = IMAGE_SIZE.to_bytes(4, "big")
JPEG, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
JPEG_GREY = b"\xff\xc0\x00\x0b\x08" + SIZE[2:] * 2 + b"\x01"  # baseline, one channel
PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
PNG_GREY = re.compile(rb".{16}" + SIZE * 2 + rb"\x08\x00\x00\x00\x00", re.DOTALL)
PNG_CHANGES = (b"tRNS", b"eXIf", b"acTL", b"gAMA", b"sBIT")  # chunks that decoders may heed


def read_pixels(file) -> torch.Tensor:
    """Returns an image as uint8 `(1 or 3, H, W)`, turned upright; of several frames the first.

    Args:
        file: a path, or a file that is open for reading.

    Raises:
        pictures.FAULTS: it cannot be read.
    """
    with pictures.opened(file) as image:
        pixels = pictures.pixels_of(image)
    return torch.tensor(pixels).permute(2, 0, 1)


def grey_of(content: bytes, box: np.ndarray | None = None) -> np.ndarray:
    """Returns the grey levels of an image file: what `preprocess` makes of its pixels.

    Args:
        content: of the file.
        box: the face (x, y, w, h), pixels of the upright image; the part that is in the image is
            used. None: the whole image.

    Returns:
        uint8 `(48, 48)`.

    Raises:
        pictures.FAULTS: it cannot be read, or the box is outside of it.
    """
    if box is None and (plain := plain_grey(content)) is not None:
        return plain
    pixels = read_pixels(io.BytesIO(content))
    if box is not None:
        x, y, w, h = box.tolist()
        pixels = pixels[:, max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)]
        if 0 in pixels.shape:
            raise ValueError(f"the face box {box.tolist()} is outside of the image")
    return resized(pixels)


def resized(pixels: torch.Tensor) -> np.ndarray:
    """Returns uint8 `(48, 48)`: the grey levels of uint8 `(1 or 3, H, W)`."""
    return gray_levels(preprocess(pixels))[0].numpy()


def plain_grey(content: bytes) -> np.ndarray | None:
    """Decodes a grey 48x48 baseline JPEG or PNG, in a tenth of the time that `read_pixels` takes.

    Preprocessing does not change such an image. A test compares the result, to the bit, with
    `preprocess` of `read_pixels`.

    Args:
        content: of the file.

    Returns:
        uint8 `(48, 48)`; None for any other image, and for one that may be damaged.
    """
    if content.startswith(JPEG):
        scan = content[content.find(JPEG_SCAN) + 2 : -2].replace(b"\xff\x00", b"")
        whole = (
            content.endswith(JPEG_END)
            and JPEG_GREY in content
            and b"\xff" not in scan  # decoders stop at a marker and leave the rest grey
            and b"Exif" not in content
        )
    else:
        whole = (
            content.startswith(PNG)
            and content.endswith(PNG_END)
            and PNG_GREY.match(content)
            and not any(chunk in content for chunk in PNG_CHANGES)
        )
    if not whole:
        return None
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.shape != (IMAGE_SIZE, IMAGE_SIZE) or image.dtype != np.uint8:
        return None
    return image


def reason_of(error: Exception, content: bytes) -> str:
    """Returns the printed reason why a file could not be read."""
    if pictures.is_heic(content) and not pictures.knows_heic():
        return pictures.NO_HEIC
    if isinstance(error, FileNotFoundError):
        return "the file is not there"
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if not content else "not an image"
    return f"unreadable: {error}"
