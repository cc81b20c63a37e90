"""Face detection, in a whole frame or around a known face; IoU and crops of face boxes.

A face box is (x, y, w, h) in pixels of the frame; it may extend beyond the frame.
"""

import os
from pathlib import Path

import cv2
import numpy as np

from ferlab.files import UserError

Box = tuple[int, int, int, int]
CASCADE = "haarcascade_frontalface_default.xml"
SCALE_STEP, NEIGHBOURS = 1.1, 5  # of a detection in a whole frame; larger steps miss faces
MIN_SIDE = 30  # of a face, pixels of the resized frame
MAX_WIDTH = 960  # whole frames are resized to at most this width, pixels
LOCAL_SIDE = 64  # local detection resizes the known face to this side, pixels
LOCAL_MARGIN = 0.45  # of the region around the known face, as a fraction of its side
LOCAL_NEIGHBOURS = 2  # fewer than in a whole frame: the prior for a face is high there


def load_cascade() -> "cv2.CascadeClassifier":
    """Loads OpenCV's frontal-face Haar cascade (Viola & Jones 2001, CVPR).

    The object is not thread-safe.

    Raises:
        UserError: this OpenCV has none, like opencv-python 5, or the file is damaged.
    """
    remedy = f"OpenCV {cv2.__version__} has no Haar cascades; run: pip install 'opencv-python<5'"
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        raise UserError(remedy)
    path = os.path.join(cv2.data.haarcascades, CASCADE)
    if not os.path.isfile(path):
        raise UserError(f"{path} is missing: {remedy}")
    cascade = cv2.CascadeClassifier()
    try:  # OpenCV opens no path with non-ASCII letters on Windows
        text = Path(path).read_text(encoding="utf-8")
        memory = cv2.FileStorage(text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        cascade.read(memory.getFirstTopLevelNode())
    except (cv2.error, SystemError, ValueError):
        pass
    if cascade.empty():
        raise UserError(f"{path} is damaged; run: pip install --force-reinstall 'opencv-python<5'")
    return cascade


class HaarDetector:
    """Detects frontal faces in whole frames with the Haar cascade.

    Args:
        width: maximum width of the frame, pixels; wider ones are resized to it; 0: no maximum.
        min_side: side of the smallest face, pixels of the resized frame.
    """

    interval = 0.1  # seconds between detections in a stream: one takes 20 to 60 ms

    def __init__(self, width: int = MAX_WIDTH, min_side: int = MIN_SIDE):
        self.cascade = load_cascade()
        self.width, self.min_side = width, min_side

    def __call__(self, frame: np.ndarray, gray: np.ndarray) -> list[Box]:
        """Returns the boxes of the faces in a frame.

        Args:
            frame: uint8 `(H, W, 3)`, BGR; not used.
            gray: uint8 `(H, W)`, the same frame.
        """
        resized, scale = limit_width(gray, self.width)
        found = self.cascade.detectMultiScale(
            resized, SCALE_STEP, NEIGHBOURS, minSize=(self.min_side, self.min_side)
        )
        return [scaled(box, scale) for box in found]

    def in_still(self, frame: np.ndarray, gray: np.ndarray) -> list[Box]:
        """Returns the boxes of the faces in a still image; same arguments as `__call__`."""
        return self(frame, gray)


class YuNetDetector:
    """Detects faces, also in profile, with YuNet (Wu et al. 2023, 10.1007/s11633-023-1423-y).

    Args:
        model: the `face_detection_yunet_*.onnx` of OpenCV's model zoo.
        width: maximum width of the frame, pixels; wider ones are resized to it.

    Raises:
        UserError: the file is missing or is not such a model.
    """

    interval = 0.0  # seconds: fast enough for every frame

    def __init__(self, model: Path, width: int = 320):
        if not model.is_file():
            raise UserError(
                f"{model} is missing; get face_detection_yunet_2023mar.onnx from "
                "github.com/opencv/opencv_zoo and pass it as --detector-model, "
                "or use --detector haar"
            )
        try:
            self.network = cv2.FaceDetectorYN.create(str(model), "", (width, width), 0.7)
            self.network.detect(np.zeros((width, width, 3), np.uint8))
        except (cv2.error, AttributeError) as error:
            raise UserError(f"{model} is not a YuNet model; use --detector haar") from error
        self.width = width

    def __call__(self, frame: np.ndarray, gray: np.ndarray) -> list[Box]:
        """Returns the boxes of the faces in a frame; same arguments as `HaarDetector`."""
        resized, scale = limit_width(frame, self.width)
        self.network.setInputSize(resized.shape[1::-1])
        _, found = self.network.detect(resized)
        boxes = [] if found is None else [scaled(row[:4], scale) for row in found]
        return [to_square(box) for box in boxes if min(box[2:]) > 0]

    def in_still(self, frame: np.ndarray, gray: np.ndarray) -> list[Box]:
        """Returns the boxes of the faces in a still image; same arguments as `__call__`."""
        return self(frame, gray)


class LocalDetector:
    """Detects a known face in the next frame, in the region around its box.

    About fifteen times faster than a detection in a whole frame: the face is resized to
    `LOCAL_SIDE` pixels, and only faces of about its size are considered.
    """

    def __init__(self) -> None:
        self.cascade = load_cascade()

    def __call__(self, gray: np.ndarray, box: Box) -> Box | None:
        """Returns the new box of the face, or None if it is not detected.

        Args:
            gray: uint8 `(H, W)`.
            box: the last or the predicted box.
        """
        side = max(box[2:])
        margin = round(LOCAL_MARGIN * side)
        left, top = max(0, box[0] - margin), max(0, box[1] - margin)
        region = gray[top : box[1] + box[3] + margin, left : box[0] + box[2] + margin]
        scale = side / LOCAL_SIDE
        size = [round(length / scale) for length in region.shape[1::-1]]
        if min(size) < LOCAL_SIDE // 2:
            return None
        region = cv2.resize(region, size, interpolation=cv2.INTER_AREA if scale > 1 else 1)
        low, high = round(0.75 * LOCAL_SIDE), round(1.35 * LOCAL_SIDE)
        found = self.cascade.detectMultiScale(
            region, SCALE_STEP, LOCAL_NEIGHBOURS, minSize=(low, low), maxSize=(high, high)
        )
        boxes = [scaled(local, scale) for local in found]
        boxes = [(x + left, y + top, w, h) for x, y, w, h in boxes]
        return max(boxes, key=lambda candidate: iou(candidate, box), default=None)


def limit_width(image: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """Returns an image at most `width` pixels wide (0: unchanged), and the factor of reduction."""
    scale = image.shape[1] / width if width else 1.0
    if scale <= 1:
        return image, 1.0
    size = (width, max(1, round(image.shape[0] / scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


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


def iou(a: Box, b: Box) -> float:
    """Returns the intersection over union of two boxes, in [0, 1]."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    intersection = max(0, width) * max(0, height)
    union = a[2] * a[3] + b[2] * b[3] - intersection
    return intersection / union if intersection else 0.0


def crop_face(frame: np.ndarray, box: Box, margin: float) -> np.ndarray:
    """Returns the square crop of a face that the network classifies.

    Args:
        frame: uint8 `(H, W, 3)`.
        box: the face box.
        margin: is added on every side, as a fraction of the box's side; may be negative.

    Returns:
        uint8 `(S, S, 3)`; beyond the frame, its edge pixels are repeated.
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
