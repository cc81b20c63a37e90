"""Face boxes: (x, y, w, h) in pixels of the frame; a box may extend beyond the frame."""

import numpy as np

Box = tuple[int, int, int, int]


def scaled(box: np.ndarray, scale: float) -> Box:
    """Returns a box of a resized frame in pixels of the original frame."""
    x, y, w, h = (round(float(number) * scale) for number in box)
    return x, y, w, h


def to_square(box: Box) -> Box:
    """Returns the square with the same centre and the mean of width and height as its side.

    Haar's boxes are square; YuNet's are higher than wide, from the forehead to the chin.
    """
    x, y, w, h = box
    side = round((w + h) / 2)
    return x + (w - side) // 2, y + (h - side) // 2, side, side


def intersection(a: Box, b: Box) -> float:
    """Returns the area that two boxes share, pixels."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def iou(a: Box, b: Box) -> float:
    """Returns the intersection over union of two boxes, in [0, 1]."""
    shared = intersection(a, b)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared) if shared else 0.0


def overlap(a: Box, b: Box) -> float:
    """Returns the intersection of two boxes as a fraction of the smaller one, in [0, 1]."""
    smaller = min(a[2] * a[3], b[2] * b[3])
    return intersection(a, b) / smaller if smaller > 0 else 0.0


def clamp(box: Box, margin: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Returns the part of a box with a margin that lies in the frame.

    Args:
        box: the box.
        margin: is added on every side, pixels.
        shape: the frame's shape, (H, W, ...).

    Returns:
        left, top, right, bottom, for slices: 0 <= left <= right <= W, 0 <= top <= bottom <= H.
    """
    (x, y, w, h), (height, width) = box, shape[:2]
    left, right = (min(max(0, edge), width) for edge in (x - margin, x + w + margin))
    top, bottom = (min(max(0, edge), height) for edge in (y - margin, y + h + margin))
    return left, top, right, bottom
