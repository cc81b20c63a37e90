"""Tracking: assigns detections to faces over time, smooths their boxes and probabilities."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ferlab.live.boxes import Box, iou
from ferlab.live.matching import Template, make_template, match

MATCH_IOU = 0.3  # minimum IoU of a detection with the track that it is assigned to
CONFLICT_IOU = 0.45  # minimum IoU of two tracks' new boxes that are taken for one face
MAX_UNSEEN = 0.6  # seconds without a detection before a track ends
LOCAL_INTERVAL = 0.1  # seconds between local detections of a face; in between it is matched
MAX_MATCHED = 0.3  # seconds for which a face is matched after its last local detection
MAX_LOCAL = 1.0  # seconds with local detections only before a track ends
VELOCITY_DECAY = 0.3  # time constant of the velocity of an unseen face, seconds
POSITION_GAIN, VELOCITY_GAIN, SIZE_GAIN = 0.65, 0.15, 0.4  # of the g-h filter, per frame


@dataclass
class Face:
    """A tracked face.

    Attributes:
        id: counted from 1 in order of appearance.
        box: x, y, w, h, pixels, smoothed.
        found_at: time at which it was last found: detected, or matched by its template, seconds.
        located_at: time of the last local detection, seconds.
        template: its image at that time; None before, or if it has no contrast.
        detected_at: time of the last detection in a whole frame, seconds.
        velocity: of the box's corner, pixels per second.
        confirmed: detected at least twice; false detections seldom are.
        probs: float `(classes,)`, smoothed; None before the first classification.
        classified_at: time of the last classification, seconds.
        cam: Grad-CAM of the shown class, float `(48, 48)` from 0 to 1; None if it is not shown.
    """

    id: int
    box: np.ndarray
    found_at: float
    detected_at: float
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    confirmed: bool = False
    located_at: float = -math.inf
    template: Template | None = None
    probs: np.ndarray | None = None
    classified_at: float = 0.0
    cam: np.ndarray | None = None

    def rounded_box(self) -> Box:
        """Returns the box in whole pixels."""
        x, y, w, h = (round(float(number)) for number in self.box)
        return x, y, w, h

    def predict(self, seconds: float) -> None:
        """Moves the box by its velocity, for `seconds`."""
        self.box[:2] += self.velocity * seconds

    def correct(self, found: Box, seconds: float, time_s: float) -> None:
        """Moves the predicted box towards the detected box.

        A g-h filter (Brookner 1998, Tracking and Kalman Filtering Made Easy, ch. 1): it reduces
        the detector's jitter and follows motion.
        """
        residual = np.array(found, float) - self.box
        if np.abs(residual[:2]).max() > self.box[2] / 2:  # a jump: start over
            self.box, self.velocity = np.array(found, float), np.zeros(2)
        else:
            self.box[:2] += POSITION_GAIN * residual[:2]
            self.box[2:] += SIZE_GAIN * residual[2:]
            self.velocity += VELOCITY_GAIN * residual[:2] / max(seconds, 1e-3)
        self.found_at = time_s
        self.confirmed = True

    def observe(self, probs: np.ndarray, time_s: float, smoothing: float) -> None:
        """Updates the exponential moving average of the probabilities.

        Args:
            probs: float `(classes,)`.
            time_s: the frame's time, seconds.
            smoothing: time constant of the average, seconds; 0 for no smoothing.
        """
        if self.probs is None or smoothing <= 0:
            self.probs = probs
        else:
            weight = 1 - math.exp(-(time_s - self.classified_at) / smoothing)
            self.probs = self.probs + weight * (probs - self.probs)
        self.classified_at = time_s


class Tracker:
    """Tracks the faces of a stream.

    Each face is detected locally ten times per second, and in the frames in between matched by its
    image, so that the time that a frame takes hardly depends on the number of faces.

    Args:
        detect_locally: detects a face around a box in a gray frame, or returns None (see
            `detection.LocalDetector`).
    """

    def __init__(self, detect_locally: Callable[[np.ndarray, Box], Box | None]):
        self.detect_locally = detect_locally
        self.faces: list[Face] = []
        self.time_s: float | None = None
        self.count = 0

    def update(
        self, gray: np.ndarray, detections: tuple[list[Box], list[Box]] | None, time_s: float
    ) -> list[Face]:
        """Updates all tracks with the next frame and starts new ones.

        Args:
            gray: uint8 `(H, W)`, the frame.
            detections: faces detected in this or a recent whole frame, and doubtful boxes, which
                start no track but keep one; None if there was no detection.
            time_s: the frame's time, seconds; increasing.

        Returns:
            The confirmed faces; those detected in this frame have `found_at == time_s`.
        """
        seconds = 0.0 if self.time_s is None else max(0.0, time_s - self.time_s)
        self.time_s = time_s
        for face in self.faces:
            face.predict(seconds)
        found = self.locate(gray, seconds)
        if detections is not None:
            unmatched = self.assign(*detections, found)
        self.resolve_conflicts(found)
        for face in self.faces:
            if found[face.id] is not None:
                face.correct(found[face.id], seconds, time_s)
            else:
                face.velocity *= math.exp(-seconds / VELOCITY_DECAY)
        self.faces = [
            face
            for face in self.faces
            if time_s - face.found_at <= MAX_UNSEEN and time_s - face.detected_at <= MAX_LOCAL
        ]
        if detections is not None:
            self.start_tracks(unmatched, time_s)
        return [face for face in self.faces if face.confirmed]

    def locate(self, gray: np.ndarray, seconds: float) -> dict[int, Box | None]:
        """Returns the new box of each face by its id: detected locally or matched; None if lost.

        Args:
            gray: uint8 `(H, W)`, the frame.
            seconds: time since the last frame.
        """
        now = self.time_s
        rested = [face for face in self.faces if now - face.located_at >= LOCAL_INTERVAL - 1e-3]
        allowed = math.ceil(len(self.faces) * seconds / LOCAL_INTERVAL)
        due = {face.id for face in sorted(rested, key=lambda face: face.located_at)[:allowed]}
        found = {}
        for face in self.faces:
            place, box = face.rounded_box(), None
            fresh = face.template is not None and now - face.located_at <= MAX_MATCHED
            if fresh and face.id not in due:
                box = match(gray, face.template, place)
            if box is None:
                box = self.detect_locally(gray, place)
                if box is not None:
                    face.located_at, face.template = now, make_template(gray, box)
                elif fresh:
                    box = match(gray, face.template, place)
            found[face.id] = box
        return found

    def assign(
        self, certain: list[Box], doubtful: list[Box], found: dict[int, Box | None]
    ) -> list[Box]:
        """Assigns detections to tracks by IoU; fills in `found` where local detection failed.

        Returns:
            The certain detections that match no track.
        """
        detections = certain + doubtful
        boxes = [found[face.id] or face.rounded_box() for face in self.faces]
        ious = np.array([[iou(detection, box) for box in boxes] for detection in detections])
        ious = ious.reshape(len(detections), len(boxes))
        for row, column in best_pairs(ious):
            if ious[row, column] >= MATCH_IOU:
                face = self.faces[column]
                found[face.id] = found[face.id] or detections[row]
                face.detected_at = self.time_s
        matched = (ious >= MATCH_IOU).any(1)
        return [box for row, box in enumerate(certain) if not matched[row]]

    def resolve_conflicts(self, found: dict[int, Box | None]) -> None:
        """Where two tracks have about the same new box, keeps it for the better predicted one."""
        for number, face in enumerate(self.faces):
            for other in self.faces[number + 1 :]:
                one, two = found[face.id], found[other.id]
                if one and two and iou(one, two) >= CONFLICT_IOU:
                    first = iou(one, face.rounded_box()) >= iou(two, other.rounded_box())
                    found[(other if first else face).id] = None

    def start_tracks(self, boxes: list[Box], time_s: float) -> None:
        """Starts a track for each box."""
        for box in boxes:
            self.count += 1
            self.faces.append(Face(self.count, np.array(box, float), time_s, time_s))


def best_pairs(ious: np.ndarray) -> list[tuple[int, int]]:
    """Returns the (row, column) pairs, each row and column at most once, with the largest sum.

    Args:
        ious: float `(detections, tracks)`.
    """
    if min(ious.shape) == 0:
        return []
    if min(ious.shape) == 1:  # the usual case: needs no scipy, whose import delays the first frame
        row, column = np.unravel_index(ious.argmax(), ious.shape)
        return [(int(row), int(column))]
    from scipy.optimize import linear_sum_assignment

    return list(zip(*linear_sum_assignment(-ious), strict=True))
