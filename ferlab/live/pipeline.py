"""Detects, tracks and classifies the faces of a frame; the detector has a thread of its own."""

import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ferlab.live.detection import Box, HaarDetector, LocalDetector, YuNetDetector, crop_face
from ferlab.live.frames import FileSource, Frame, LiveSource
from ferlab.live.tracking import Face, Tracker

if TYPE_CHECKING:  # importing Classifier needs torch, OnnxClassifier does not
    from ferlab.live.classifier import Classifier
    from ferlab.live.onnx_classifier import OnnxClassifier

Source = FileSource | LiveSource
LOOK_AHEAD = 4  # frames of a file that are read ahead of the frame shown
SHOW_UNSEEN = 0.25  # seconds for which a face is shown after its last detection
MARGIN = 0.0  # of the crop: FER2013's images are Haar boxes without margin (benchmarks/crop.py)
STAGES = ("capture", "detection", "classification", "drawing", "output")


def reserve_detector_core() -> int:
    """Limits OpenCV to one thread, so that detector and classifier do not compete for cores.

    Returns:
        The number of threads for the classifier: one core less than there are, at most 4.
    """
    cv2.setNumThreads(1)
    return max(1, min(4, (os.cpu_count() or 2) - 1))


class Pipeline:
    """Detects, tracks and classifies the faces of a stream or of still images.

    Args:
        detector: detects faces in whole frames; runs in one thread.
        classifier: computes the probabilities of crops of faces.
        smoothing: time constant of the probabilities, seconds; 0 for no smoothing.
        margin: margin of the crops (see `detection.crop_face`).

    Attributes:
        seconds: time spent in each of STAGES, seconds.
    """

    def __init__(
        self,
        detector: HaarDetector | YuNetDetector,
        classifier: "Classifier | OnnxClassifier",
        smoothing: float,
        margin: float = MARGIN,
    ):
        self.detector, self.classifier = detector, classifier
        self.smoothing, self.margin = smoothing, margin
        self.tracker = Tracker(LocalDetector())
        self.seconds: dict[str, float] = defaultdict(float)
        self._thread = ThreadPoolExecutor(1)
        self._detected_at = -np.inf
        self._pending: Future | None = None

    def frames(self, source: "Source") -> Iterator[Frame | None]:
        """Yields the source's frames, and None whenever no frame is available yet.

        Frames of a file wait for their detection, so that every run gives the same faces; frames
        of a live source never wait.
        """
        waiting: deque[Frame] = deque()
        while not source.ended:
            start = time.perf_counter()
            frame = source.read(timeout=0.05)
            self.seconds["capture"] += time.perf_counter() - start
            if frame is None:
                if not source.ended:
                    yield None
            elif source.live:
                yield frame
            else:
                self.start_detection(frame, source)
                waiting.append(frame)
                if len(waiting) > LOOK_AHEAD:
                    yield waiting.popleft()
        yield from waiting

    def _due(self, frame: Frame) -> bool:
        """Whether the detector's interval has passed since the last whole-frame detection."""
        due = frame.time_s - self._detected_at >= self.detector.interval - 1e-3
        if due:
            self._detected_at = frame.time_s
        return due

    def start_detection(self, frame: Frame, source: "Source") -> None:
        """Starts the detection in the whole frame that `find` waits for, if one is due.

        Frames of a live source wait for none.
        """
        if source.stills or (not source.live and self._due(frame)):
            frame.detection = self._submit(frame)

    def _submit(self, frame: Frame) -> Future:
        return self._thread.submit(self.detector, frame.image, frame.gray)

    def _newest_detections(self, frame: Frame) -> list[Box] | None:
        """Returns the boxes of a detection that has ended, if any; starts the next if it is due."""
        found = None
        if self._pending and self._pending.done():
            found, self._pending = self._pending.result(), None
        if self._pending is None and self._due(frame):
            self._pending = self._submit(frame)
        return found

    def find(self, frame: Frame, source: "Source") -> list[Face]:
        """Returns the faces of a frame, including those lost up to SHOW_UNSEEN seconds ago."""
        start = time.perf_counter()
        if source.stills:
            boxes = frame.detection.result()
            faces = [
                Face(number, np.array(box, float), frame.time_s, frame.time_s)
                for number, box in enumerate(sorted(boxes), start=1)
            ]
        else:
            if source.live:
                detections = self._newest_detections(frame)
            else:
                detections = frame.detection.result() if frame.detection else None
            faces = self.tracker.update(frame.gray, detections, frame.time_s)
            faces = [face for face in faces if frame.time_s - face.found_at <= SHOW_UNSEEN]
        self.seconds["detection"] += time.perf_counter() - start
        return faces

    def classify(self, frame: Frame, faces: list[Face]) -> list[Face]:
        """Classifies the faces detected in this frame, in one batch; returns these faces."""
        start = time.perf_counter()
        found = [face for face in faces if face.found_at == frame.time_s]
        crops = [crop_face(frame.image, face.rounded_box(), self.margin) for face in found]
        for face, probs in zip(found, self.classifier(crops), strict=True):
            face.observe(probs, frame.time_s, self.smoothing)
        self.seconds["classification"] += time.perf_counter() - start
        return found

    def close(self) -> None:
        """Stops the detector's thread."""
        self._thread.shutdown(cancel_futures=True)
