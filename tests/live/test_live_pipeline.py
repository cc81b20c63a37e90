"""Which frames are searched, and which faces are classified when."""

import numpy as np
import pytest

from conftest import drawn_frame
from ferlab.constants import REFERENCE_DIR
from ferlab.live.classifier import Classifier
from ferlab.live.detection import HaarDetector, YuNetDetector
from ferlab.live.frames import make_frame
from ferlab.live.pipeline import CLASSIFICATIONS, Pipeline
from ferlab.live.schedule import Schedule
from ferlab.live.tracking import Face
from ferlab.live.weights import FILE, describe


class Detector:
    """A stand-in that detects nothing."""

    every_frame, thread_safe = False, True

    def __call__(self, frame, gray):
        return [], []


class Counter:
    """A stand-in that notes how many faces it gets."""

    def __init__(self):
        self.counts = []

    def __call__(self, crops):
        self.counts.append(len(crops))
        return np.full((len(crops), 7), 1 / 7, np.float32)


def classify(faces, frames, fps, rate=10.0):
    """Runs `Pipeline.classify` over a still scene; returns each face's times and the counts."""
    classifier = Counter()
    pipeline = Pipeline(Detector(), classifier, 0.4, rate)
    image = np.zeros((120, 160, 3), np.uint8)
    people = [Face(n, np.array([5 * n, 5, 40, 40.0]), 0, 0, confirmed=True) for n in range(faces)]
    times = {face.id: [] for face in people}
    for number in range(frames):
        now = number / fps
        for face in people:
            face.found_at = now
        assert pipeline.classify(make_frame(image, number, now), people) == people
        assert all(face.probs is not None for face in people)
        for face in people:
            if face.classified_at == now:
                times[face.id].append(now)
    pipeline.close()
    return times, classifier.counts


@pytest.mark.parametrize("rate", [10.0, 5.0])
def test_a_face_is_classified_at_once_and_then_at_the_rate(rate):
    times, _ = classify(1, 61, 30, rate)
    assert times[0][0] == 0
    assert np.diff(times[0]) == pytest.approx(1 / rate)


@pytest.mark.parametrize(("folder", "targets"), [("votes", "votes"), (".", "labels")])
def test_the_line_about_the_weights_says_what_they_were_trained_on(folder, targets):
    path = REFERENCE_DIR / folder / FILE
    loaded = Classifier(path)
    assert describe(path, loaded.targets) == f"{path}, trained on {targets}"
    assert describe(path, None) == str(path)


def test_many_faces_take_turns():
    times, counts = classify(12, 91, 30)
    assert counts[0] == 12, "new faces at once"
    assert max(counts[1:]) <= CLASSIFICATIONS / 30
    lengths = [len(each) for each in times.values()]
    assert max(lengths) - min(lengths) <= 1 and min(lengths) > 5


def test_at_a_low_frame_rate_more_faces_are_classified_per_frame():
    _, counts = classify(12, 21, 10)
    assert set(counts[1:]) == {3}


class Explainer(Counter):
    """A stand-in that notes which classes are explained."""

    def __init__(self):
        super().__init__()
        self.explained = []

    def explain(self, crops, classes):
        self.explained.append(len(crops))
        return np.full((len(crops), 48, 48), 1, np.float32)


def explained_faces(widths, stills=False):
    """Explains frames 1/30 s apart in which faces have these widths; returns faces and counts."""
    classifier = Explainer()
    pipeline = Pipeline(Detector(), classifier, 0.4, 10)
    image = np.zeros((480, 640, 3), np.uint8)
    people = [Face(n, np.array([5, 5, 0, 0.0]), 0, 0, confirmed=True) for n in range(1, 3)]
    shown = []
    for number, sides in enumerate(widths):
        for face, side in zip(people, sides, strict=True):
            face.found_at, face.box[2:] = number / 30, side
        frame = make_frame(image, number, number / 30)
        pipeline.classify(frame, people)
        pipeline.explain(frame, people, stills)
        shown.append([face.id for face in people if face.cam is not None])
    pipeline.close()
    return shown, classifier.explained


def test_the_widest_face_is_explained_as_often_as_it_is_classified():
    shown, counts = explained_faces([(40, 60)] * 31)
    assert shown == [[2]] * 31 and counts in ([1] * 10, [1] * 11)


def test_the_focus_changes_for_a_face_that_is_clearly_wider():
    shown, _ = explained_faces([(60, 50), (60, 70), (60, 75), (70, 70)])
    assert shown == [[1], [1], [2], [2]]


def test_all_faces_of_still_images_are_explained():
    assert explained_faces([(40, 60)], stills=True) == ([[1, 2]], [2])


def test_a_face_that_is_lost_keeps_its_map_and_is_not_explained():
    classifier = Explainer()
    pipeline = Pipeline(Detector(), classifier, 0.4, 10)
    lost = Face(1, np.array([5, 5, 40, 40.0]), 0.9, 0.9, probs=np.ones(7), cam=np.ones((48, 48)))
    pipeline.explain(make_frame(np.zeros((120, 160, 3), np.uint8), 30, 1.0), [lost], False)
    assert lost.cam is not None and classifier.explained == []
    pipeline.close()


def test_a_face_that_is_not_found_is_not_classified():
    classifier = Counter()
    pipeline = Pipeline(Detector(), classifier, 0.4, 10)
    lost = Face(1, np.array([5, 5, 40, 40.0]), 0.9, 0.9, confirmed=True)
    frame = make_frame(np.zeros((120, 160, 3), np.uint8), 30, 1.0)
    assert pipeline.classify(frame, [lost]) == [] and classifier.counts == [0]
    pipeline.close()


def searched(images, fps):
    """Returns the times at which frames are searched."""
    schedule = Schedule(every_frame=False)
    times = [number / fps for number in range(len(images))]
    return [now for image, now in zip(images, times, strict=True) if schedule.due(image, now)]


@pytest.mark.parametrize("fps", [10, 30])
def test_still_frames_are_searched_seldom_and_moving_ones_often(fps):
    still = [np.full((240, 320), 90, np.uint8)] * (3 * fps)
    assert np.diff(searched(still, fps)) == pytest.approx(0.3)
    moving = [image.copy() for image in still]
    for number, image in enumerate(moving):
        image[100:140, (7 * number) % 280 :][:, :40] = 200
    assert np.diff(searched(moving, fps)) == pytest.approx(0.2)
    cuts = [np.full((240, 320), 20 + 50 * (number % 4), np.uint8) for number in range(3 * fps)]
    assert np.diff(searched(cuts, fps)) == pytest.approx(0.1)


def test_a_cut_is_searched_at_once():
    before, after = np.full((240, 320), 90, np.uint8), np.full((240, 320), 150, np.uint8)
    assert searched([before] * 14 + [after] * 6, 30)[2:] == [14 / 30]


def test_a_fast_detector_searches_every_frame():
    assert YuNetDetector.every_frame
    schedule = Schedule(every_frame=True)
    assert all(schedule.due(np.zeros((48, 64), np.uint8), number / 100) for number in range(9))


class Source:
    """A stand-in for a file of drawn frames."""

    live = camera = stills = False
    rate = 10.0

    def __init__(self, images):
        self.images, self.number = images, 0

    @property
    def ended(self):
        return self.number == len(self.images)

    def read(self, timeout):
        self.number += 1
        return make_frame(self.images[self.number - 1], self.number - 1, (self.number - 1) / 10)


def test_a_face_in_a_file_of_few_frames_is_found_within_03_seconds_on_every_run():
    empty, face = np.full((480, 640, 3), 90, np.uint8), drawn_frame([(320, 240, 90)])[0]
    images = [empty] * 12 + [face] * 8 + [empty] * 5
    runs = []
    for _ in range(2):
        pipeline, source = Pipeline(HaarDetector(), Counter(), 0.4, 10), Source(images)
        runs.append(
            [
                [(one.id, *one.rounded_box()) for one in pipeline.find(frame, source)]
                for frame in pipeline.frames(source)
            ]
        )
        pipeline.close()
    assert runs[0] == runs[1] and len(runs[0]) == len(images)
    shown = [number for number, faces in enumerate(runs[0]) if faces]
    assert shown[0] <= 15 and shown[-1] >= 19
