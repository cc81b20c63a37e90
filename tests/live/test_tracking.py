"""Tracking: ids, smooth boxes, smooth probabilities."""

import math

import cv2
import numpy as np
import pytest

from conftest import drawn_frame
from ferlab.live.boxes import iou
from ferlab.live.detection import HaarDetector, LocalDetector
from ferlab.live.matching import make_template, match
from ferlab.live.tracking import LOCAL_INTERVAL, MAX_LOCAL, MAX_UNSEEN, Face, Tracker

RATE = 30
GRAY = np.zeros((480, 640), np.uint8)


class Scene:
    """Boxes of faces over time, and a stand-in for local detection."""

    def __init__(self):
        self.boxes = []

    def detect(self, gray, place):
        near = [box for box in self.boxes if iou(box, place) > 0.2]
        return max(near, key=lambda box: iou(box, place), default=None)


def play(scripts, frames, every=3, tracker=None, scene=None):
    """Runs a tracker over scripted faces: functions from the frame's number to a box or None.

    Returns the detected faces of each frame as `{id: box}`.
    """
    scene = scene or Scene()
    tracker = tracker or Tracker(scene.detect)
    seen = []
    for number in range(frames):
        scene.boxes = [box for script in scripts if (box := script(number))]
        detections = (list(scene.boxes), []) if number % every == 0 else None
        faces = tracker.update(GRAY, detections, number / RATE)
        seen.append({f.id: f.rounded_box() for f in faces if f.found_at == number / RATE})
    return seen


def test_a_moving_face_keeps_its_id():
    seen = play([lambda n: (50 + 8 * n, 100 + 2 * n, 80, 80)], 40)
    assert all(set(faces) == {1} for faces in seen[1:])
    assert iou(seen[-1][1], (50 + 8 * 39, 100 + 2 * 39, 80, 80)) > 0.8


def test_a_short_miss_keeps_the_id_and_a_long_one_does_not():
    def away(first, last):
        return lambda n: None if first <= n < last else (200, 100, 80, 80)

    short = play([away(10, 10 + int(0.5 * MAX_UNSEEN * RATE))], 60)
    assert {key for faces in short for key in faces} == {1}
    assert short[12] == {}, "a face that is not detected is not reported"
    long = play([away(10, 10 + int(2 * MAX_UNSEEN * RATE))], 90)
    assert set(long[-1]) == {2}


def test_a_single_false_detection_is_not_shown():
    seen = play([lambda n: (300, 200, 60, 60) if n == 9 else None], 30)
    assert not any(seen)


def test_a_track_without_whole_frame_detections_ends():
    scene = Scene()
    tracker = Tracker(scene.detect)
    play([lambda n: (300, 200, 60, 60)], 10, tracker=tracker, scene=scene)
    for number in range(10, 10 + int(2 * MAX_LOCAL * RATE)):
        detections = ([], []) if number % 3 == 0 else None
        faces = tracker.update(GRAY, detections, number / RATE)
    assert not faces


def test_a_doubtful_detection_starts_no_track_but_keeps_one():
    scene, box = Scene(), (300, 200, 60, 60)
    tracker = Tracker(scene.detect)
    for number in range(30):
        assert not tracker.update(GRAY, ([], [box]), number / RATE)
    scene.boxes = [box]
    for number in range(30, 30 + int(2 * MAX_LOCAL * RATE)):
        detections = ([box], []) if number == 30 else ([], [box])
        faces = tracker.update(GRAY, detections, number / RATE)
    assert [face.id for face in faces] == [1]


@pytest.mark.parametrize(("dx", "dy"), [(-1, 0), (1, 0), (0, -1), (0, 1)])
def test_a_face_that_leaves_does_not_become_another(dx, dy):
    """It leaves on each side, past a second face that stays: with the real detectors."""
    detector, tracker = HaarDetector(), Tracker(LocalDetector())
    stays = (320 + 190 * dy, 240 + 60 * dx, 55)
    ids, last = set(), []
    for number in range(22):
        leaves = (320 + dx * (150 + 15 * number), 230 + dy * (60 + 15 * number), 55)
        frame, boxes = drawn_frame([stays, leaves], people=(3, 8))
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        detections = detector(frame, gray) if number in (0, 3) else None
        last = tracker.update(gray, detections, number / RATE)
        for face in last:
            if face.found_at == number / RATE and iou(face.rounded_box(), boxes[0]) > 0.4:
                ids.add(face.id)
        if number == 3:
            assert len(last) == 2
    assert len(ids) == 1, "the face that stays has one id"
    assert {face.id for face in last if face.found_at == 21 / RATE} == ids


def test_a_local_detection_must_overlap_the_known_face():
    frame, (box,) = drawn_frame([(320, 240, 70)])
    gray, (x, y, w, h) = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), box
    assert LocalDetector()(gray, box) is not None
    for beside in ((x - round(1.1 * w), y, w, h), (x, y + round(1.1 * h), w, h)):
        assert LocalDetector()(gray, beside) is None
    for beyond in ((-w - 20, y, w, h), (x, -h - 20, w, h), (660, y, w, h), (x, 500, w, h)):
        assert LocalDetector()(gray, beyond) is None


def test_between_local_detections_a_face_is_matched_by_its_image():
    """Its box follows every frame, with a third of the local detections."""
    local, calls = LocalDetector(), []

    def detect(gray, box):
        calls.append(box)
        return local(gray, box)

    tracker, detector, errors = Tracker(detect), HaarDetector(), []
    for number in range(19):
        frame, _ = drawn_frame([(200 + 5 * number, 240, 60)])
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        faces = tracker.update(gray, detector(frame, gray) if number == 0 else None, number / RATE)
        if number == 0:
            start = tracker.faces[0].rounded_box()
        else:
            assert faces[0].found_at == number / RATE
            errors.append(faces[0].rounded_box()[0] - start[0] - 5 * number)
    assert np.abs(errors[3:]).max() < 12, errors
    assert len(calls) <= 1.1 * 18 / RATE / LOCAL_INTERVAL + 1


def test_a_template_is_found_where_it_is_and_nowhere_else():
    frame, (box,) = drawn_frame([(320, 240, 70)])
    gray, (x, y, w, h) = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), box
    template = make_template(gray, box)
    shifted = np.roll(gray, (6, -9), (0, 1))
    assert match(shifted, template, box) == pytest.approx((x - 9, y + 6, w, h), abs=1)
    assert (
        match(np.random.default_rng(0).integers(0, 255, gray.shape, np.uint8), template, box)
        is None
    )
    assert match(gray, template, (-3 * w, y, w, h)) is None
    assert make_template(np.full_like(gray, 90), box) is None
    assert make_template(gray, (-round(0.8 * w), y, w, h)) is None


def test_ids_stay_while_two_faces_cross():
    """One passes in front of the other and hides it for a while."""

    def front(n):
        return (40 + 6 * n, 100, 90, 90)

    def behind(n):
        box = (540 - 6 * n, 110, 80, 80)
        return None if iou(box, front(n)) > 0.35 else box

    seen = play([front, behind], 84)
    left, right = (
        next(key for key, box in seen[3].items() if test(box[0]))
        for test in (lambda x: x < 200, lambda x: x > 400)
    )
    assert seen[-1][left][0] > 450 and seen[-1][right][0] < 100
    assert {key for faces in seen for key in faces} == {left, right}


def test_ids_stay_while_two_drawn_faces_cross():
    """The same with the real detectors, on drawn frames."""
    detector, tracker, frames = HaarDetector(), Tracker(LocalDetector()), 70
    last = {}
    for number in range(frames):
        progress = number / (frames - 1)
        frame, boxes = drawn_frame(
            [(110 + 420 * progress, 190, 62), (530 - 420 * progress, 300, 62)], people=(3, 8)
        )
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        detections = detector(frame, gray) if number % 3 == 0 else None
        for face in tracker.update(gray, detections, number / RATE):
            for index, box in enumerate(boxes):
                if face.found_at == number / RATE and iou(face.rounded_box(), box) > 0.4:
                    last.setdefault(index, []).append(face.id)
    assert all(len(set(ids)) == 1 and len(ids) > 0.8 * frames for ids in last.values()), last
    assert last[0][0] != last[1][0]


def test_two_faces_never_become_one():
    seen = play([lambda n: (100, 100, 80, 80), lambda n: (max(150, 400 - 5 * n), 110, 80, 80)], 80)
    assert all(len(faces) == 2 for faces in seen[2:])


def test_boxes_are_smoother_than_the_detections():
    rng = np.random.default_rng(0)
    raw = [
        (200 + int(rng.integers(-6, 7)), 100, 80 + int(rng.integers(-6, 7)), 80) for _ in range(60)
    ]
    seen = play([lambda n: raw[n]], 60)
    steady = np.array([faces[1] for faces in seen[5:]])
    shaky = np.array(raw[5:])
    for column in (0, 2):
        assert (
            np.abs(np.diff(steady[:, column])).mean()
            < 0.6 * np.abs(np.diff(shaky[:, column])).mean()
        )


def test_probabilities_follow_with_the_time_constant():
    face = Face(1, np.zeros(4), 0.0, 0.0)
    face.observe(np.array([1.0, 0.0]), 0.0, smoothing=0.4)
    for number in range(1, 13):
        face.observe(np.array([0.0, 1.0]), number / 30, smoothing=0.4)
    assert face.probs[0] == pytest.approx(math.exp(-12 / 30 / 0.4))
    assert face.probs.sum() == pytest.approx(1)
    face.observe(np.array([0.2, 0.8]), 1.0, smoothing=0)
    assert face.probs.tolist() == [0.2, 0.8]
