"""Finding faces: in a whole frame, in the surroundings of a known face, and cutting them out.

A face box is (x, y, w, h) in pixels of the frame; the corner may lie outside of the frame.
"""

import os
from pathlib import Path

import cv2
import numpy as np

from ferlab.files import UserError

Box = tuple[int, int, int, int]
CASCADE = "haarcascade_frontalface_default.xml"
SCALE_STEP, NEIGHBOURS = 1.1, 5  # of a search in a whole frame; larger steps lose faces
SMALLEST = 30  # pixels, in the reduced frame
SEARCH_WIDTH = 960  # a whole frame is searched at no more than this width, pixels
NEAR_SIDE = 64  # a known face is brought to this size before the search near it, pixels
NEAR_REACH = 0.45  # how far around a known face to look, as a share of its size
NEAR_NEIGHBOURS = 2  # there, where a face was a moment ago, less evidence will do


def load_cascade() -> "cv2.CascadeClassifier":
    """Loads OpenCV's frontal-face Haar cascade (Viola & Jones 2001, CVPR).

    One object must not be used by two threads at once.

    Raises:
        UserError: this OpenCV has none, as opencv-python 5.
    """
    remedy = f"OpenCV {cv2.__version__} has no Haar cascades; run: pip install 'opencv-python<5'"
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        raise UserError(remedy)
    path = os.path.join(cv2.data.haarcascades, CASCADE)
    if not os.path.isfile(path):
        raise UserError(f"{path} is missing: {remedy}")
    try:
        cascade = cv2.CascadeClassifier(path)
    except (cv2.error, SystemError):
        cascade = None
    if cascade is None or cascade.empty():
        raise UserError(f"{path} is damaged; run: pip install --force-reinstall 'opencv-python<5'")
    return cascade


class HaarDetector:
    """Finds frontal faces in whole frames with the Haar cascade.

    Args:
        width: frames wider than this are reduced to it first; 0 for never.
        smallest: side of the smallest face, pixels of the reduced frame.
    """

    every = 0.1  # seconds between searches of a stream: one takes 20 to 60 ms

    def __init__(self, width: int = SEARCH_WIDTH, smallest: int = SMALLEST):
        self.cascade = load_cascade()
        self.width, self.smallest = width, smallest

    def __call__(self, frame: np.ndarray, gray: np.ndarray) -> list[Box]:
        """Returns the boxes of the faces in a frame.

        Args:
            frame: uint8 `(H, W, 3)`, BGR; not used.
            gray: uint8 `(H, W)`, the same frame.
        """
        reduced, scale = reduce(gray, self.width)
        found = self.cascade.detectMultiScale(
            reduced, SCALE_STEP, NEIGHBOURS, minSize=(self.smallest, self.smallest)
        )
        return [scaled(box, scale) for box in found]


class YuNetDetector:
    """Finds faces with YuNet (Wu et al. 2023, doi 10.1007/s11633-023-1423-y), turned ones too.

    Args:
        model: the `face_detection_yunet_*.onnx` of OpenCV's model zoo.
        width: frames wider than this are reduced to it first.

    Raises:
        UserError: no such file, or not such a model.
    """

    every = 0.0  # quick enough for every frame, and the search near a known face is Haar's

    def __init__(self, model: Path, width: int = 320):
        if not model.is_file():
            raise UserError(
                f"{model} is missing; get face_detection_yunet_2023mar.onnx from "
                "github.com/opencv/opencv_zoo and name it with --detector-model, "
                "or use --detector haar"
            )
        try:
            self.network = cv2.FaceDetectorYN.create(str(model), "", (width, width), 0.7)
            self.network.detect(np.zeros((width, width, 3), np.uint8))
        except (cv2.error, AttributeError) as error:
            raise UserError(f"{model} is not a YuNet model; use --detector haar") from error
        self.width = width

    def __call__(self, frame: np.ndarray, gray: np.ndarray) -> list[Box]:
        """Returns the boxes of the faces in a frame; arguments as of `HaarDetector`."""
        reduced, scale = reduce(frame, self.width)
        self.network.setInputSize(reduced.shape[1::-1])
        _, found = self.network.detect(reduced)
        boxes = [] if found is None else [scaled(row[:4], scale) for row in found]
        return [squared(box) for box in boxes if min(box[2:]) > 0]


class NearSearch:
    """Finds a known face again in the next frame, by a search in the surroundings of its box.

    Some fifteen times cheaper than a search in a whole frame: the face is brought to `NEAR_SIDE`
    pixels, and only faces of about its size are looked for.
    """

    def __init__(self) -> None:
        self.cascade = load_cascade()

    def __call__(self, gray: np.ndarray, box: Box) -> Box | None:
        """Returns the face's new box, or None where it is not to be seen.

        Args:
            gray: uint8 `(H, W)`.
            box: where it was, or where it is thought to be.
        """
        side = max(box[2:])
        reach = round(NEAR_REACH * side)
        left, top = max(0, box[0] - reach), max(0, box[1] - reach)
        region = gray[top : box[1] + box[3] + reach, left : box[0] + box[2] + reach]
        scale = side / NEAR_SIDE
        size = [round(length / scale) for length in region.shape[1::-1]]
        if min(size) < NEAR_SIDE // 2:
            return None
        region = cv2.resize(region, size, interpolation=cv2.INTER_AREA if scale > 1 else 1)
        low, high = round(0.75 * NEAR_SIDE), round(1.35 * NEAR_SIDE)
        found = self.cascade.detectMultiScale(
            region, SCALE_STEP, NEAR_NEIGHBOURS, minSize=(low, low), maxSize=(high, high)
        )
        boxes = [scaled(near, scale) for near in found]
        boxes = [(x + left, y + top, w, h) for x, y, w, h in boxes]
        return max(boxes, key=lambda near: overlap(near, box), default=None)


def reduce(picture: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """Returns a picture no wider than `width` (0: as it is), and by how much it was reduced."""
    scale = picture.shape[1] / width if width else 1.0
    if scale <= 1:
        return picture, 1.0
    size = (width, max(1, round(picture.shape[0] / scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), scale


def scaled(box: np.ndarray, scale: float) -> Box:
    """Returns a box of a reduced frame in pixels of the whole one."""
    x, y, w, h = (round(float(number) * scale) for number in box)
    return x, y, w, h


def squared(box: Box) -> Box:
    """Returns a square about the middle of a box, as Haar's boxes are: its side the mean of both.

    YuNet's boxes are higher than wide, from the forehead to the chin.
    """
    x, y, w, h = box
    side = round((w + h) / 2)
    return x + (w - side) // 2, y + (h - side) // 2, side, side


def overlap(a: Box, b: Box) -> float:
    """Returns the intersection over union of two boxes, in [0, 1]."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / (a[2] * a[3] + b[2] * b[3] - both) if both else 0.0


def cut_out(frame: np.ndarray, box: Box, margin: float) -> np.ndarray:
    """Returns the square picture of a face that the network is to see.

    Args:
        frame: uint8 `(H, W, 3)`.
        box: the face.
        margin: what is added on every side, as a share of the box; negative takes away.

    Returns:
        uint8 `(S, S, 3)`; beyond the frame's edge its outermost pixels are repeated.
    """
    x, y, w, h = box
    side = max(1, round(max(w, h) * (1 + 2 * margin)))
    left, top = round(x + (w - side) / 2), round(y + (h - side) / 2)
    rows = np.clip(np.arange(top, top + side), 0, frame.shape[0] - 1)
    columns = np.clip(np.arange(left, left + side), 0, frame.shape[1] - 1)
    inside = top >= 0 and left >= 0 and rows[-1] == top + side - 1
    if inside and columns[-1] == left + side - 1:
        return frame[top : top + side, left : left + side]
    return frame[rows[:, None], columns]
