"""Image files as Pillow reads them, for datasets and for the live program. Needs no torch."""

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FAULTS = (OSError, SyntaxError, ValueError)  # what `opened` raises at files that Pillow cannot read
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc")
AVIF_BRANDS = (b"avif", b"avis")
NO_HEIC = "HEIC, and pillow-heif is not installed (pip install pillow-heif)"


def is_heic(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a HEIC image."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def is_avif(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an AVIF image."""
    return head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS


@functools.cache
def knows_heic() -> bool:
    """Makes Pillow read HEIC, if pillow-heif is installed; returns whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


class TooLarge(OSError):
    """An image with more pixels than Pillow reads."""


@contextlib.contextmanager
def opened(file) -> Iterator["Image"]:
    """Opens an image; HEIC only if pillow-heif is installed.

    Every exception that Pillow raises in the block becomes one of `FAULTS`: at damaged files, some
    decoders raise RuntimeError, EOFError, IndexError or others. Pillow's warnings, a line for each
    damaged tag of a file, are not shown.

    Args:
        file: a path, or a file that is open for reading.

    Raises:
        TooLarge: it has more pixels than Pillow reads, 179 million.
        FAULTS: it cannot be read.
    """
    from PIL import Image

    knows_heic()
    warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")
    try:
        with Image.open(file) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise TooLarge(str(error).partition(",")[0]) from error
    except (*FAULTS, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{error}" or type(error).__name__) from error


def pixels_of(image: "Image") -> np.ndarray:
    """Returns the pixels of an open image, turned upright; of several frames the first.

    Returns:
        uint8 `(H, W, 1 or 3)`, grey or RGB; of 16-bit pixels the upper eight bits.

    Raises:
        FAULTS: it is damaged, or has floating-point pixels, whose range is unknown.
    """
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)
