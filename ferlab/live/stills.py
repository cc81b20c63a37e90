"""Face detection in large still images, in tiles of full resolution."""

import copy

import numpy as np

from ferlab.live.boxes import Box, overlap
from ferlab.live.detection import MIN_SIDE, HaarDetector, YuNetDetector
from ferlab.live.verification import SAME_FACE

TILE = 1920  # width and height, pixels
SMALLEST = 48  # side of a face, pixels: the network's input


def boxes_in_still(
    detector: HaarDetector | YuNetDetector, frame: np.ndarray, gray: np.ndarray
) -> list[Box]:
    """Returns the boxes of the faces in a still image, from `SMALLEST` pixels on.

    A detector resizes a whole frame to its `width` and so misses the small faces of a large image;
    these are detected in tiles that overlap by their side.

    Args:
        detector: detects faces in whole frames.
        frame: uint8 `(H, W, 3)`, BGR.
        gray: uint8 `(H, W)`, the same frame.
    """
    boxes, (height, width) = detector.in_still(frame, gray), gray.shape
    missed = round(1.3 * MIN_SIDE * width / detector.width)
    if missed <= SMALLEST:
        return boxes
    in_tile = copy.copy(detector)
    in_tile.width = TILE
    shared = min(missed, TILE // 2)
    for top in range(0, max(1, height - shared), TILE - shared):
        for left in range(0, max(1, width - shared), TILE - shared):
            rows, columns = slice(top, top + TILE), slice(left, left + TILE)
            tile = np.ascontiguousarray(frame[rows, columns])
            found = in_tile.in_still(tile, np.ascontiguousarray(gray[rows, columns]))
            for x, y, w, h in found:
                box = (x + left, y + top, w, h)
                inside = is_inside(x, w, left, width) and is_inside(y, h, top, height)
                known = any(overlap(box, other) >= SAME_FACE for other in boxes)
                if inside and not known and SMALLEST <= max(w, h) <= missed:
                    boxes.append(box)
    return boxes


def is_inside(start: int, side: int, offset: int, length: int) -> bool:
    """Whether a box touches no edge of its tile that lies within the image."""
    cut = (offset > 0 and start <= 1) or (offset + TILE < length and start + side >= TILE - 1)
    return not cut
