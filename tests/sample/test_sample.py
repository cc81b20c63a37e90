"""Drawn faces: labelled by their action units, repeatable, and found by the Haar cascade."""

import csv

import cv2
import numpy as np
import pytest

from ferlab.data.splits import CLASS_NAMES
from ferlab.files import UserError
from ferlab.live.detection import iou, load_cascade
from ferlab.sample import dataset as sample_dataset
from ferlab.sample.dataset import (
    CLIP_PERSON,
    CLIP_SIZE,
    clip_script,
    random_activations,
    write_sample_clip,
    write_sample_dataset,
)
from ferlab.sample.faces import (
    ACTION_UNITS,
    EXPRESSIONS,
    draw_face,
    random_identity,
)
from ferlab.sample.parts import SPAN

SIZE = 280
PIXELS = SIZE / (2 * SPAN)  # a face unit


PERSON = random_identity(np.random.default_rng(1))


def gray(activations, identity=PERSON):
    image = draw_face(identity, activations, SIZE)
    return cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2GRAY).astype(int)


def change(unit):
    """Returns how much an action unit changes each part of the face."""
    difference = np.abs(gray({unit: 1.0}) - gray({}))

    def row(y):
        return round((y + SPAN) * PIXELS)

    bands = {
        "brows": (-0.7, -0.23),
        "eyes": (-0.22, 0.05),
        "nose": (0.05, 0.42),
        "mouth": (0.45, 1),
    }
    return {name: difference[row(a) : row(b)].mean() for name, (a, b) in bands.items()}


def test_each_class_has_action_units_and_each_unit_a_class():
    assert sorted(EXPRESSIONS) == list(CLASS_NAMES)
    assert {unit for units in EXPRESSIONS.values() for unit in units} == set(ACTION_UNITS)


@pytest.mark.parametrize(
    ("unit", "where", "not_where"),
    [
        (1, "brows", "mouth"),
        (2, "brows", "mouth"),
        (4, "brows", "mouth"),
        (5, "eyes", "mouth"),
        (6, "eyes", "mouth"),
        (7, "eyes", "mouth"),
        (9, "nose", None),
        (12, "mouth", "brows"),
        (15, "mouth", "brows"),
        (16, "mouth", "eyes"),
        (20, "mouth", "eyes"),
        (23, "mouth", "eyes"),
        (26, "mouth", "eyes"),
    ],
)
def test_an_action_unit_moves_its_part_of_the_face(unit, where, not_where):
    changed = change(unit)
    assert changed[where] > 0.3
    if not_where:
        assert changed[not_where] < 0.05


def test_a_drawing_is_a_face_with_opacity():
    image = draw_face(PERSON, {}, SIZE)
    assert image.shape == (SIZE, SIZE, 4) and image.dtype == np.uint8
    assert image[SIZE // 2, SIZE // 2, 3] == 255 and image[0, 0, 3] == 0


def test_people_differ_and_repeat():
    other = random_identity(np.random.default_rng(2))
    assert other != PERSON == random_identity(np.random.default_rng(1))
    assert np.abs(gray({}) - gray({}, other)).mean() > 3


def test_activations_favour_the_expression():
    rng = np.random.default_rng(0)
    drawn = [random_activations("surprise", rng) for _ in range(300)]
    mean = {unit: np.mean([d.get(unit, 0) for d in drawn]) for unit in ACTION_UNITS}
    assert min(mean[unit] for unit in EXPRESSIONS["surprise"]) > 0.4
    assert max(mean[u] for u in ACTION_UNITS if u not in EXPRESSIONS["surprise"]) < 0.1
    assert all(0 <= value <= 1 for d in drawn for value in d.values())


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def test_dataset_is_kaggles_layout_and_repeatable(tmp_path):
    small = {"train": 60, "validation": 30}
    for name in "ab":
        write_sample_dataset(tmp_path / name, small)
    a, b = (files(tmp_path / name) for name in "ab")
    assert a == b
    for split in small:
        classes = {name.split("/")[2] for name in a if name.startswith(f"images/{split}/")}
        assert classes == set(CLASS_NAMES)
    assert sum(name.startswith("images/train/") for name in a) == pytest.approx(60, abs=3)
    assert not any("/test/" in name for name in a)
    assert len(set(a.values())) == len(a)
    face = cv2.imdecode(np.frombuffer(next(iter(a.values())), np.uint8), cv2.IMREAD_UNCHANGED)
    assert face.shape == (48, 48) and face.dtype == np.uint8 and face.std() > 5


def test_splits_and_clip_share_no_person(tmp_path, monkeypatch):
    people = []

    def note(expression, person, rng):
        people.append(person)
        return np.zeros((48, 48), np.uint8)

    monkeypatch.setattr(sample_dataset, "sample_face", note)
    write_sample_dataset(tmp_path)
    train = len(list((tmp_path / "images" / "train").rglob("*.png")))
    assert len(set(people[:train])) > 300 and len(set(people[train:])) > 150
    assert not set(people[:train]) & set(people[train:])
    assert CLIP_PERSON not in people


def test_a_video_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoWriter_fourcc", lambda *letters: 0x7A7A7A7A)  # no such codec
    with pytest.raises(UserError, match="mp4v"):
        write_sample_clip(tmp_path)


def test_clip_script_shows_every_expression_fully():
    script = clip_script()
    for name in CLASS_NAMES:
        mixes = [mix for label, mix in script if label == name]
        assert len(mixes) > 30
        held = {unit for unit, value in mixes[len(mixes) // 2].items() if value > 0.5}
        assert held == set(EXPRESSIONS[name])


def test_haar_finds_the_clips_face(tmp_path):
    write_sample_clip(tmp_path)
    truth = list(csv.DictReader((tmp_path / "clip.csv").open()))
    assert {row["expression"] for row in truth} == set(CLASS_NAMES)
    cascade = load_cascade()
    video, frames, looked, hits = cv2.VideoCapture(str(tmp_path / "clip.mp4")), 0, 0, 0
    assert video.get(cv2.CAP_PROP_FPS) == 30
    while True:
        there, frame = video.read()
        if not there:
            break
        assert frame.shape[1::-1] == CLIP_SIZE
        row = truth[frames]
        frames += 1
        if frames % 4:  # the detector is slow; every fourth frame is enough
            continue
        looked += 1
        found = cascade.detectMultiScale(
            cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), 1.1, 5, minSize=(90, 90)
        )
        hits += any(iou(box, [int(row[key]) for key in "xywh"]) > 0.5 for box in found)
    assert frames == len(truth)
    assert looked > 80 and hits / looked >= 0.95
