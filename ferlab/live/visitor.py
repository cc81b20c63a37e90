"""One visitor of the demo in a browser: reads their frames, and describes the faces in them."""

import io
import math
import struct
import time
from collections.abc import Callable

import cv2
import numpy as np

from ferlab import pictures
from ferlab.live.frames import Frame, as_bgr, make_frame
from ferlab.live.overlay import label_of
from ferlab.live.pipeline import Pipeline
from ferlab.live.tracking import Face

KINDS = ("camera", "video", "image")
LARGEST_IMAGE = 16_000_000  # pixels


class FrameError(Exception):
    """A message that is not a frame; its text is sent to the visitor."""


class Visitor:
    """The tracks of one visitor's source.

    Args:
        kind: "camera": frames do not wait for a detection in the whole frame; "video": they do;
            "image": each frame is a still image.
        make_pipeline: returns a new pipeline.
        min_confidence: minimum probability for a label.

    Attributes:
        live, stills: as `LiveSource` and `FileSource` have them.
    """

    def __init__(self, kind: str, make_pipeline: Callable[[], Pipeline], min_confidence: float):
        self.live, self.stills = kind == "camera", kind == "image"
        self.min_confidence = min_confidence
        self.pipeline = make_pipeline()
        self.number = 0
        self.time_s = -math.inf

    def answer(self, message: bytes) -> dict:
        """Returns the faces of a frame, in pixels of that frame.

        Args:
            message: the frame's time in seconds, float64 little-endian, and the encoded image.

        Raises:
            FrameError: the message is no frame.
        """
        start = time.perf_counter()
        frame = self.read(message)
        self.pipeline.start_detection(frame, self)
        faces = self.pipeline.find(frame, self)
        self.pipeline.classify(frame, faces)
        return {
            "time_s": frame.time_s,
            "milliseconds": round(1e3 * (time.perf_counter() - start), 1),
            "faces": [self.description(face, frame.time_s) for face in faces],
        }

    def description(self, face: Face, time_s: float) -> dict:
        """Returns what the page shows of a face at a time of the source, seconds."""
        names = self.pipeline.classifier.class_names
        expression, confidence = label_of(face, names, self.min_confidence)
        return {
            "id": face.id,
            "box": face.rounded_box(),
            "expression": expression,
            "confidence": confidence,
            "probs": [round(float(prob), 4) for prob in face.probs],
            "found": face.found_at == time_s,
        }

    def read(self, message: bytes) -> Frame:
        """Decodes a message, whose image is checked for its size first."""
        if len(message) < 8:
            raise FrameError("The message is too short for a frame.")
        (time_s,) = struct.unpack("<d", message[:8])
        if not (math.isfinite(time_s) and time_s > self.time_s):
            raise FrameError("The time of the frame is not after that of the last one.")
        try:
            with pictures.opened(io.BytesIO(message[8:])) as header:
                width, height = header.size
            if width * height > LARGEST_IMAGE:
                raise FrameError("The image has too many pixels.")
            image = as_bgr(cv2.imdecode(np.frombuffer(message, np.uint8, offset=8), 1))
        except pictures.TooLarge as error:
            raise FrameError("The image has too many pixels.") from error
        except (*pictures.FAULTS, cv2.error):
            image = None
        if image is None:
            raise FrameError("The image cannot be read.")
        frame = make_frame(image, self.number, time_s)
        self.number, self.time_s = self.number + 1, time_s
        return frame

    def close(self) -> None:
        """Stops the pipeline's thread."""
        self.pipeline.close()
