"""Which of a cascade's boxes are faces: one box per face, and a second cascade's agreement.

`benchmarks/faces.py` counts false boxes and lost faces.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from ferlab.live.boxes import Box, clamp, iou, overlap
from ferlab.live.matching import shrink

SAME_FACE = 0.4  # minimum overlap of two boxes that are taken for one face
SIDE = 64  # the second cascade sees the box resized to this side, pixels
MARGIN = 0.3  # of the region around the box, as a fraction of its side
MIN_IOU = 0.4  # of a window of the second cascade with a box that it agrees with


class Verifier:
    """Separates faces from doubtful boxes; can be called by one thread at a time.

    A box with many neighbours is nearly always a face. Each other one is searched by a second
    cascade, after local contrast equalisation: in dim faces both cascades find few windows.

    Args:
        cascade: a cascade of other features than the one that detects.
    """

    def __init__(self, cascade: "cv2.CascadeClassifier"):
        self.cascade = cascade
        self.equaliser = cv2.createCLAHE(2.0, (4, 4))

    def __call__(
        self,
        gray: np.ndarray,
        boxes: Sequence[Box],
        neighbours: Sequence[int],
        certain: int,
        agreeing: int,
    ) -> tuple[list[Box], list[Box]]:
        """Returns the boxes that are faces, one per face, and the doubtful ones.

        Args:
            gray: uint8 `(H, W)`, the image in which they were detected.
            boxes: the boxes of a cascade.
            neighbours: the number of the cascade's windows that each box is the mean of.
            certain: number of neighbours from which a box is a face without a second cascade.
            agreeing: minimum number of the second cascade's windows that agree with a face.
        """
        faces, doubtful = [], []
        for index in one_per_face(boxes, neighbours):
            box = boxes[index]
            sure = neighbours[index] >= certain or self.agreement(gray, box) >= agreeing
            (faces if sure else doubtful).append(box)
        return faces, doubtful

    def agreement(self, gray: np.ndarray, box: Box) -> int:
        """Returns the number of the second cascade's windows of about the same place and size."""
        left, top, right, bottom = clamp(box, round(MARGIN * box[2]), gray.shape)
        scale = box[2] / SIDE
        region = self.equaliser.apply(shrink(gray[top:bottom, left:right], scale))
        low, high = round(0.7 * SIDE), round(1.4 * SIDE)
        found, numbers = self.cascade.detectMultiScale2(
            region, 1.1, minNeighbors=1, minSize=(low, low), maxSize=(high, high)
        )
        there = ((box[0] - left) / scale, (box[1] - top) / scale, SIDE, SIDE)
        agreeing = [
            int(number)
            for window, number in zip(found, numbers, strict=True)
            if iou(window, there) > MIN_IOU
        ]
        return max(agreeing, default=0)


def one_per_face(boxes: Sequence[Box], neighbours: Sequence[int]) -> list[int]:
    """Returns the indices of the boxes to keep: of those of one face the one with most neighbours.

    Args:
        boxes: the boxes.
        neighbours: the support of each.

    Returns:
        The indices, in the order of `boxes`.
    """
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: -neighbours[index]):
        if all(overlap(boxes[index], boxes[other]) < SAME_FACE for other in kept):
            kept.append(index)
    return sorted(kept)
