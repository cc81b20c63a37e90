"""Detects, tracks and classifies the faces of a frame; whole frames are searched in threads."""

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ferlab.cores import available_cores
from ferlab.live.boxes import Box
from ferlab.live.detection import HaarDetector, LocalDetector, YuNetDetector, crop_face
from ferlab.live.frames import FileSource, Frame
from ferlab.live.schedule import Schedule
from ferlab.live.stills import boxes_in_still
from ferlab.live.streams import LiveSource
from ferlab.live.tracking import Face, Tracker

if TYPE_CHECKING:  # importing Classifier needs torch, OnnxClassifier does not
    from ferlab.live.classifier import Classifier
    from ferlab.live.onnx_classifier import OnnxClassifier

Source = FileSource | LiveSource
LOOK_AHEAD, LOOK_AHEAD_STILLS = 12, 3  # frames of a file that are read ahead of the frame shown
MAX_WORKERS = 4  # threads that search whole frames
CLASSIFICATIONS = 30.0  # of known faces per second, all faces together
SHOW_UNSEEN = 0.25  # seconds for which a face is shown after its last detection
MARGIN = 0.0  # of the crop: FER2013's images are Haar boxes without margin (benchmarks/crop.py)
FOCUS = 1.2  # how much wider a face must be than the one in focus, to replace it
STAGES = ("capture", "detection", "classification", "drawing", "output")


def reserve_detector_core() -> int:
    """Limits OpenCV to one thread, so that detector and classifier do not compete for cores.

    Returns:
        The number of threads for the classifier: one core less than there are, at most 4.
    """
    cv2.setNumThreads(1)
    return max(1, min(4, available_cores() - 1))


class Pipeline:
    """Detects, tracks and classifies the faces of a stream or of still images.

    Args:
        detector: detects faces in whole frames.
        classifier: computes the probabilities of crops of faces.
        smoothing: time constant of the probabilities, seconds; 0 for no smoothing.
        classify_rate: maximum number of classifications of a face per second.

    Attributes:
        seconds: time spent in each of STAGES, seconds.
    """

    def __init__(
        self,
        detector: HaarDetector | YuNetDetector,
        classifier: "Classifier | OnnxClassifier",
        smoothing: float,
        classify_rate: float,
    ):
        self.detector, self.classifier = detector, classifier
        self.smoothing = smoothing
        self.classify_interval = 1 / classify_rate
        self.tracker = Tracker(LocalDetector())
        self.seconds: dict[str, float] = defaultdict(float)
        workers = min(MAX_WORKERS, available_cores()) if detector.thread_safe else 1
        self._workers = ThreadPoolExecutor(workers)
        self._schedule = Schedule(detector.every_frame)
        self._classified_at = -np.inf
        self._pending: Future | None = None
        self._focus = 0  # number of the face in focus

    def frames(self, source: "Source") -> Iterator[Frame | None]:
        """Yields the source's frames, and None whenever no frame is available yet.

        Frames of a file wait for their detection, so that every run gives the same faces; frames
        of a live source never wait.
        """
        waiting: deque[Frame] = deque()
        look_ahead = LOOK_AHEAD_STILLS if source.stills else LOOK_AHEAD
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
                if len(waiting) > look_ahead:
                    yield waiting.popleft()
        yield from waiting

    def start_detection(self, frame: Frame, source: "Source") -> None:
        """Starts the detection in the whole frame that `find` waits for, if one is due.

        Frames of a live source wait for none.
        """
        if source.stills:
            detect = partial(boxes_in_still, self.detector)
            frame.detection = self._workers.submit(detect, frame.image, frame.gray)
        elif not source.live and self._schedule.due(frame.gray, frame.time_s):
            frame.detection = self._workers.submit(self.detector, frame.image, frame.gray)

    def _newest_detections(self, frame: Frame) -> tuple[list[Box], list[Box]] | None:
        """Returns the boxes of a detection that has ended, if any; starts the next if it is due."""
        found = None
        if self._pending and self._pending.done():
            found, self._pending = self._pending.result(), None
        if self._pending is None and self._schedule.due(frame.gray, frame.time_s):
            self._pending = self._workers.submit(self.detector, frame.image, frame.gray)
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
        """Classifies those of the faces found in this frame whose turn it is, in one batch.

        Returns:
            All faces found in this frame.
        """
        start = time.perf_counter()
        found = [face for face in faces if face.found_at == frame.time_s]
        chosen = self._choose(found, frame.time_s)
        crops = [crop_face(frame.image, face.rounded_box(), MARGIN) for face in chosen]
        for face, probs in zip(chosen, self.classifier(crops), strict=True):
            face.observe(probs, frame.time_s, self.smoothing)
        self.seconds["classification"] += time.perf_counter() - start
        return found

    def explain(self, frame: Frame, faces: list[Face], stills: bool) -> None:
        """Computes Grad-CAM of faces that were classified in this frame or have no map yet.

        In still images all faces get one; else the face in focus: the widest, which is the nearest.

        Args:
            frame: the frame.
            faces: the faces shown in it, classified.
            stills: whether the source has still images.
        """
        start, now = time.perf_counter(), frame.time_s
        chosen = {face.id for face in faces} if stills else {self._in_focus(faces)}
        due = []
        for face in faces:
            if face.id not in chosen:
                face.cam = None
            elif face.found_at == now and (face.cam is None or face.classified_at == now):
                due.append(face)
        if due:
            crops = [crop_face(frame.image, face.rounded_box(), MARGIN) for face in due]
            cams = self.classifier.explain(crops, [int(face.probs.argmax()) for face in due])
            for face, cam in zip(due, cams, strict=True):
                face.cam = cam
        self.seconds["classification"] += time.perf_counter() - start

    def _in_focus(self, faces: list[Face]) -> int:
        """Returns the number of the widest face; a face in focus counts as FOCUS times as wide."""
        widths = {face.id: face.box[2] for face in faces}
        if self._focus in widths:
            widths[self._focus] *= FOCUS
        self._focus = max(widths, key=widths.get, default=0)
        return self._focus

    def _choose(self, faces: list[Face], time_s: float) -> list[Face]:
        """Returns the faces to classify: new ones, then those classified longest ago."""
        seconds, self._classified_at = time_s - self._classified_at, time_s
        allowed = max(1, round(CLASSIFICATIONS * min(1.0, seconds)))
        rested = [
            face
            for face in faces
            if face.probs is not None
            and time_s - face.classified_at >= self.classify_interval - 1e-3
        ]
        rested.sort(key=lambda face: face.classified_at)
        return [face for face in faces if face.probs is None] + rested[:allowed]

    def close(self) -> None:
        """Stops the detector's threads."""
        self._workers.shutdown(cancel_futures=True)
