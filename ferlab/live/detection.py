"""Face detection in a whole frame or around a known face; crops of faces."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np

from ferlab.files import UserError, require_file
from ferlab.live.boxes import Box, clamp, iou, scaled, to_square
from ferlab.live.matching import shrink
from ferlab.live.verification import Verifier

CASCADE = "haarcascade_frontalface_default.xml"
SECOND_CASCADE = "haarcascade_frontalface_alt.xml"  # of other features, for `Verifier`
# Of detections in whole frames: the scale step; the minimum number of neighbours of a box; the
# number of neighbours from which a box is a face; and the number of agreeing windows of the second
# cascade that other boxes need. In a stream a missed face is there again in the next frames, but a
# false face stays for a while. benchmarks/faces.py counts both.
STREAM, STILL = (1.2, 2, 14, 6), (1.1, 5, 24, 2)
MIN_SIDE = 30  # of a face, pixels of the resized frame
MAX_WIDTH = 960  # whole frames are resized to at most this width, pixels
LOCAL_SIDE = 52  # local detection resizes the known face to this side, pixels
LOCAL_MARGIN = 0.45  # of the region around the known face, as a fraction of its side
MIN_IOU = 0.2  # of a local detection with the known face; below, it is another face
LOCAL_STEP = 1.1
LOCAL_NEIGHBOURS = 2  # few: the prior for a face is high there


def load_cascade(name: str = CASCADE) -> "cv2.CascadeClassifier":
    """Loads one of OpenCV's Haar cascades (Viola & Jones 2001, CVPR).

    The object is not thread-safe.

    Args:
        name: file name of the cascade; by default that of frontal faces.

    Raises:
        UserError: this OpenCV has none, like opencv-python 5, or the file is damaged.
    """
    remedy = f"OpenCV {cv2.__version__} has no Haar cascades; run: pip install 'opencv-python<5'"
    if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
        raise UserError(remedy)
    path = os.path.join(cv2.data.haarcascades, name)
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
    """Detects frontal faces in whole frames with the Haar cascade; can be called by many threads.

    Attributes:
        width: maximum width of the frame, pixels; wider ones are resized to it.
    """

    every_frame, thread_safe = False, True  # a detection takes 20 to 60 ms
    width = MAX_WIDTH

    def __init__(self) -> None:
        self._of_thread = threading.local()
        self._cascades()  # a missing cascade is reported here

    def _cascades(self) -> "tuple[cv2.CascadeClassifier, Verifier]":
        """Returns the calling thread's own cascades, which are not thread-safe."""
        if not hasattr(self._of_thread, "cascades"):
            self._of_thread.cascades = load_cascade(), Verifier(load_cascade(SECOND_CASCADE))
        return self._of_thread.cascades

    def __call__(self, frame: np.ndarray, gray: np.ndarray) -> tuple[list[Box], list[Box]]:
        """Returns the boxes of the faces in a frame of a stream, and the doubtful boxes.

        Args:
            frame: uint8 `(H, W, 3)`, BGR; not used.
            gray: uint8 `(H, W)`, the same frame.
        """
        return self._search(*limit_width(gray, self.width), *STREAM)

    def in_still(self, frame: np.ndarray, gray: np.ndarray) -> list[Box]:
        """Returns the boxes of the faces in a still image; same arguments as `__call__`."""
        return self._search(*limit_width(gray, self.width), *STILL)[0]

    def _search(
        self,
        resized: np.ndarray,
        scale: float,
        step: float,
        neighbours: int,
        certain: int,
        agreeing: int,
    ) -> tuple[list[Box], list[Box]]:
        """Returns faces and doubtful boxes of a gray image, in pixels of the frame."""
        cascade, verifier = self._cascades()
        boxes, numbers = cascade.detectMultiScale2(
            resized, step, minNeighbors=neighbours, minSize=(MIN_SIDE, MIN_SIDE)
        )
        boxes = [tuple(map(int, box)) for box in boxes]
        found = verifier(resized, boxes, [int(number) for number in numbers], certain, agreeing)
        faces, doubtful = ([scaled(box, scale) for box in part] for part in found)
        return faces, doubtful


class YuNetDetector:
    """Detects faces, also in profile, with YuNet (Wu et al. 2023, 10.1007/s11633-023-1423-y).

    Args:
        model: the `face_detection_yunet_*.onnx` of OpenCV's model zoo.

    Attributes:
        width: as that of `HaarDetector`.

    Raises:
        UserError: the file is missing or is not such a model.
    """

    every_frame, thread_safe = True, False
    width = 320

    def __init__(self, model: Path):
        require_file(
            model,
            "get face_detection_yunet_2023mar.onnx from github.com/opencv/opencv_zoo and pass it "
            "as --detector-model, or use --detector haar",
        )
        try:
            self.network = cv2.FaceDetectorYN.create(str(model), "", (self.width, self.width), 0.7)
            self.network.detect(np.zeros((self.width, self.width, 3), np.uint8))
        except (cv2.error, AttributeError) as error:
            raise UserError(f"{model} is not a YuNet model; use --detector haar") from error

    def __call__(self, frame: np.ndarray, gray: np.ndarray) -> tuple[list[Box], list[Box]]:
        """Returns the boxes of the faces, and none in doubt; same arguments as `HaarDetector`."""
        return self.in_still(frame, gray), []

    def in_still(self, frame: np.ndarray, gray: np.ndarray) -> list[Box]:
        """Returns the boxes of the faces in a still image; same arguments as `HaarDetector`."""
        resized, scale = limit_width(frame, self.width)
        self.network.setInputSize(resized.shape[1::-1])
        _, found = self.network.detect(resized)
        boxes = [] if found is None else [scaled(row[:4], scale) for row in found]
        return [to_square(box) for box in boxes if min(box[2:]) > 0]


class LocalDetector:
    """Detects a known face in the next frame, in the region around its box.

    About twenty times faster than a detection in a whole frame: the face is resized to
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
        left, top, right, bottom = clamp(box, round(LOCAL_MARGIN * side), gray.shape)
        region = gray[top:bottom, left:right]
        scale = side / LOCAL_SIDE
        if round(min(region.shape) / scale) < LOCAL_SIDE // 2:
            return None
        region = shrink(region, scale)
        low, high = round(0.75 * LOCAL_SIDE), round(1.35 * LOCAL_SIDE)
        found = self.cascade.detectMultiScale(
            region, LOCAL_STEP, LOCAL_NEIGHBOURS, minSize=(low, low), maxSize=(high, high)
        )
        boxes = [scaled(local, scale) for local in found]
        boxes = [(x + left, y + top, w, h) for x, y, w, h in boxes]
        best = max(boxes, key=lambda candidate: iou(candidate, box), default=None)
        return best if best and iou(best, box) >= MIN_IOU else None


def limit_width(image: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """Returns an image at most `width` pixels wide, and the factor of reduction."""
    scale = image.shape[1] / width
    if scale <= 1:
        return image, 1.0
    size = (width, max(1, round(image.shape[0] / scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


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
