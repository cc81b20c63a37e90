"""Faces over time: who is who from frame to frame, steady boxes, smoothed probabilities."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from ferlab.live.detection import Box, overlap

SAME_FACE = 0.3  # intersection over union from which a detected box is a known face
CLASH = 0.45  # ... and from which two known faces cannot both be there
PATIENCE = 0.6  # seconds that a face may go unseen before it is given up
COAST = 0.3  # seconds over which an unseen face's motion dies down
TRUST = 1.0  # seconds that it may be seen near its old place alone, never in a whole frame
FOLLOW, SPEED_UP, GROW = 0.65, 0.15, 0.4  # shares of the surprise taken over a frame (g-h filter)


@dataclass
class Face:
    """A face that is followed.

    Attributes:
        id: counted from 1 in order of appearance.
        box: x, y, w, h, pixels, steadied.
        found_at: time it was last found, seconds.
        detected_at: time it was last found in a whole frame, seconds.
        velocity: of the box's corner, pixels a second.
        confirmed: found more than once; a detector's slip seldom is.
        probs: float `(classes,)`, smoothed; None before it was classified.
        classified_at: time of the last classification, seconds.
    """

    id: int
    box: np.ndarray
    found_at: float
    detected_at: float
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    confirmed: bool = False
    probs: np.ndarray | None = None
    classified_at: float = 0.0

    def place(self) -> Box:
        """Returns the box in whole pixels."""
        x, y, w, h = (round(float(number)) for number in self.box)
        return x, y, w, h

    def predict(self, seconds: float) -> None:
        """Moves the box on for as long as its motion lasts."""
        self.box[:2] += self.velocity * seconds

    def correct(self, found: Box, seconds: float, time_s: float) -> None:
        """Moves the predicted box towards where the face was found.

        A g-h filter (Brookner 1998, Tracking and Kalman Filtering Made Easy, ch. 1): steadies the
        detector's jitter, yet keeps up with motion.
        """
        surprise = np.array(found, float) - self.box
        if np.abs(surprise[:2]).max() > self.box[2] / 2:  # jumped: what was before is no guide
            self.box, self.velocity = np.array(found, float), np.zeros(2)
        else:
            self.box[:2] += FOLLOW * surprise[:2]
            self.box[2:] += GROW * surprise[2:]
            self.velocity += SPEED_UP * surprise[:2] / max(seconds, 1e-3)
        self.found_at = time_s
        self.confirmed = True

    def observe(self, probs: np.ndarray, time_s: float, smoothing: float) -> None:
        """Takes in new probabilities: an exponential average with time constant `smoothing`."""
        if self.probs is None or smoothing <= 0:
            self.probs = probs
        else:
            share = 1 - math.exp(-(time_s - self.classified_at) / smoothing)
            self.probs = self.probs + share * (probs - self.probs)
        self.classified_at = time_s


class Tracker:
    """Follows faces through a stream.

    Args:
        search: finds a face near a box in a grey frame, or returns None (`faces.NearSearch`).
    """

    def __init__(self, search: Callable[[np.ndarray, Box], Box | None]):
        self.search = search
        self.faces: list[Face] = []
        self.time_s: float | None = None
        self.count = 0

    def update(self, gray: np.ndarray, detections: list[Box] | None, time_s: float) -> list[Face]:
        """Follows all faces into the next frame and takes up new ones.

        Args:
            gray: uint8 `(H, W)`, the frame.
            detections: boxes of a search in a whole frame, this one or a recent one; None if
                there was none.
            time_s: the frame's time, seconds; rising.

        Returns:
            The confirmed faces; those found in this frame have it as their `found_at`.
        """
        seconds = 0.0 if self.time_s is None else max(0.0, time_s - self.time_s)
        self.time_s = time_s
        for face in self.faces:
            face.predict(seconds)
        found = {face.id: self.search(gray, face.place()) for face in self.faces}
        if detections is not None:
            fresh = self.assign(detections, found)
        self.resolve_clashes(found)
        for face in self.faces:
            if found[face.id] is not None:
                face.correct(found[face.id], seconds, time_s)
            else:
                face.velocity *= math.exp(-seconds / COAST)
        self.faces = [
            face
            for face in self.faces
            if time_s - face.found_at <= PATIENCE and time_s - face.detected_at <= TRUST
        ]
        if detections is not None:
            self.take_up(fresh, time_s)
        return [face for face in self.faces if face.confirmed]

    def assign(self, detections: list[Box], found: dict[int, Box | None]) -> list[Box]:
        """Gives detected boxes to the known faces that were not found near their old place.

        Returns:
            The boxes that are of no known face.
        """
        places = [found[face.id] or face.place() for face in self.faces]
        overlaps = np.array([[overlap(box, place) for place in places] for box in detections])
        overlaps = overlaps.reshape(len(detections), len(places))
        for row, column in zip(*linear_sum_assignment(-overlaps), strict=True):
            if overlaps[row, column] >= SAME_FACE:
                face = self.faces[column]
                found[face.id] = found[face.id] or detections[row]
                face.detected_at = self.time_s
        known = (overlaps >= SAME_FACE).any(1)
        return [box for row, box in enumerate(detections) if not known[row]]

    def resolve_clashes(self, found: dict[int, Box | None]) -> None:
        """Where two faces were found at the same place, leaves it to the one expected there."""
        for number, face in enumerate(self.faces):
            for other in self.faces[number + 1 :]:
                one, two = found[face.id], found[other.id]
                if one and two and overlap(one, two) >= CLASH:
                    nearer = overlap(one, face.place()) >= overlap(two, other.place())
                    found[(other if nearer else face).id] = None

    def take_up(self, boxes: list[Box], time_s: float) -> None:
        """Begins to follow new faces."""
        for box in boxes:
            self.count += 1
            self.faces.append(Face(self.count, np.array(box, float), time_s, time_s))
