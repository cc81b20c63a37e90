"""From a frame to its faces and their expressions; the detector works in a thread of its own."""

import os
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ferlab.live.detection import Box, HaarDetector, NearSearch, YuNetDetector, cut_out
from ferlab.live.frames import FileSource, Frame, LiveSource
from ferlab.live.tracking import Face, Tracker

if TYPE_CHECKING:  # a model in ONNX runs without torch
    from ferlab.live.classifier import Classifier
    from ferlab.live.onnx_model import OnnxClassifier

LOOK_AHEAD = 4  # frames of a file that are on their way while the detector works
HOLD = 0.25  # seconds that an unseen face is still shown
MARGIN = 0.0  # FER2013's faces are Haar boxes as they are; see benchmarks/crop.py
STAGES = ("capture", "detection", "classification", "drawing", "output")


def share_cores() -> int:
    """Leaves the detector's thread a core of its own: threads that wait for each other are slow.

    Returns:
        How many threads the classifier may take.
    """
    cv2.setNumThreads(1)
    return max(1, min(4, (os.cpu_count() or 2) - 1))


class Pipeline:
    """Finds, follows and classifies the faces of a stream or of single pictures.

    Args:
        detector: searches whole frames; called in one thread.
        classifier: gives pictures of faces their probabilities.
        smoothing: time constant of the probabilities, seconds; 0 for none.
        margin: of the picture of a face, see `faces.cut_out`.

    Attributes:
        seconds: time spent, by stage.
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
        self.tracker = Tracker(NearSearch())
        self.seconds: dict[str, float] = defaultdict(float)
        self._thread = ThreadPoolExecutor(1)
        self._asked_at = -np.inf
        self._pending: Future | None = None

    def frames(self, source: FileSource | LiveSource) -> Iterator[Frame | None]:
        """Yields the source's frames, and None while there is none to be had for a moment.

        A file's frames wait until the detector has searched those that are to be searched; they
        and their faces are the same on every run. A live frame never waits.
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
                if source.stills or self._due(frame):
                    frame.search = self._ask(frame)
                waiting.append(frame)
                if len(waiting) > LOOK_AHEAD:
                    yield waiting.popleft()
        yield from waiting

    def _due(self, frame: Frame) -> bool:
        """Whether it is time for another search in a whole frame."""
        due = frame.time_s - self._asked_at >= self.detector.every - 1e-3
        if due:
            self._asked_at = frame.time_s
        return due

    def _ask(self, frame: Frame) -> Future:
        return self._thread.submit(self.detector, frame.image, frame.gray)

    def _newest_search(self, frame: Frame) -> list[Box] | None:
        """Returns what a search in a recent live frame found, if one ended; begins the next."""
        found = None
        if self._pending and self._pending.done():
            found, self._pending = self._pending.result(), None
        if self._pending is None and self._due(frame):
            self._pending = self._ask(frame)
        return found

    def find(self, frame: Frame, source: FileSource | LiveSource) -> list[Face]:
        """Returns the faces of a frame, and those lost a moment ago."""
        start = time.perf_counter()
        if source.stills:
            boxes = frame.search.result()
            faces = [
                Face(number, np.array(box, float), frame.time_s, frame.time_s)
                for number, box in enumerate(sorted(boxes), start=1)
            ]
        else:
            if source.live:
                detections = self._newest_search(frame)
            else:
                detections = frame.search.result() if frame.search else None
            faces = self.tracker.update(frame.gray, detections, frame.time_s)
            faces = [face for face in faces if frame.time_s - face.found_at <= HOLD]
        self.seconds["detection"] += time.perf_counter() - start
        return faces

    def classify(self, frame: Frame, faces: list[Face]) -> list[Face]:
        """Gives the faces found in this frame their probabilities, in one pass; returns those."""
        start = time.perf_counter()
        found = [face for face in faces if face.found_at == frame.time_s]
        pictures = [cut_out(frame.image, face.place(), self.margin) for face in found]
        for face, probs in zip(found, self.classifier(pictures), strict=True):
            face.observe(probs, frame.time_s, self.smoothing)
        self.seconds["classification"] += time.perf_counter() - start
        return found

    def close(self) -> None:
        """Ends the detector's thread."""
        self._thread.shutdown(cancel_futures=True)
