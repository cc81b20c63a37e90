"""The overlay is readable: on any image, at any size, at the frame's edge, with many faces."""

import numpy as np
import pytest

from ferlab.data.splits import CLASS_NAMES
from ferlab.live import overlay
from ferlab.live.boxes import iou
from ferlab.live.overlay import GREY, PALETTE, draw, label_of
from ferlab.live.tracking import Face


def face(number, box, best="happy", prob=0.9):
    probs = np.full(7, (1 - prob) / 6)
    probs[CLASS_NAMES.index(best)] = prob
    return Face(number, np.array(box, float), 0.0, 0.0, confirmed=True, probs=probs)


def drawn(image, faces, **options):
    return draw(image, faces, CLASS_NAMES, 0.4, **options)


def placed(monkeypatch):
    """Returns the list to which the areas of all labels drawn from now on are added."""
    areas, label = [], overlay._label

    def note(*args):
        areas.append(label(*args))
        return areas[-1]

    monkeypatch.setattr(overlay, "_label", note)
    return areas


def test_the_frame_itself_is_not_changed():
    image = np.full((240, 320, 3), 90, np.uint8)
    result = drawn(image, [face(1, (100, 80, 90, 90))], status="30 frames/s", help_shown=True)
    assert (image == 90).all() and result.shape == image.shape and (result != image).any()


def luminance(colour):
    """Relative luminance of a BGR colour (W3C, WCAG 2.2)."""
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]


@pytest.mark.parametrize("colour", [*PALETTE, GREY])
def test_text_has_contrast_with_its_background(colour):
    light, dark = sorted((luminance(colour), luminance(overlay._text_colour(colour))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5, "WCAG's contrast for small text"


@pytest.mark.parametrize("size", [(120, 160), (480, 640), (720, 1280), (2160, 3840)])
def test_labels_lie_in_the_frame_and_apart(monkeypatch, size):
    areas, rng = placed(monkeypatch), np.random.default_rng(0)
    height, width = size
    for _ in range(20):
        areas.clear()
        side = height // 5
        boxes = [(*rng.integers(-side // 2, (width, height)), side, side) for _ in range(3)]
        drawn(np.zeros((height, width, 3), np.uint8), [face(n, b) for n, b in enumerate(boxes)])
        for index, (x, y, w, h) in enumerate(areas):
            assert x >= 0 and y >= 0 and y + h <= height
            assert x + w <= max(width, w)
            assert h >= 15, "tall enough to read"
            assert not any(iou(areas[index], other) for other in areas[:index])


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 24, 24),
        (-300, -200, 1200, 1200),
        (600, 440, 80, 80),
        (-70, 200, 80, 80),
        (9, 9, 1, 1),
    ],
    ids=["tiny", "huge", "corner", "left", "dot"],
)
@pytest.mark.parametrize("mirror", [False, True])
def test_faces_of_any_kind_get_a_label(monkeypatch, box, mirror):
    areas = placed(monkeypatch)
    result = drawn(np.full((480, 640, 3), 128, np.uint8), [face(1, box)], mirror=mirror)
    (x, y, w, h) = areas[0]
    colour = PALETTE[CLASS_NAMES.index("happy")]
    ground = (result[y : y + h, x : x + w] == colour).all(2)
    assert ground.mean() > 0.4 and x >= 0 and y >= 0 and x + w <= 640 and y + h <= 480


@pytest.mark.parametrize("size", [(1, 1), (7, 640), (480, 5)])
def test_frames_of_any_size(size):
    image = np.zeros((*size, 3), np.uint8)
    result = drawn(image, [face(1, (0, 0, 30, 30))], status="1 frames/s", help_shown=True)
    assert result.shape == image.shape


def test_a_mirrored_image_has_its_boxes_mirrored():
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, :320] = 60
    result = drawn(image, [face(1, (20, 100, 80, 80))], bars=False, mirror=True)
    assert (result[400, 500] == 60).all() and (result[400, 100] == 0).all()
    changed = np.abs(result.astype(int) - image[:, ::-1]).sum(2).any(0).nonzero()[0]
    assert changed.min() > 500


@pytest.mark.parametrize("mirror", [False, True])
def test_a_map_is_red_where_it_is_high_and_leaves_the_rest(mirror):
    image = np.full((480, 640, 3), 128, np.uint8)
    person = face(1, (100, 150, 96, 96))
    plain = drawn(image, [person], mirror=mirror).astype(int)
    person.cam = np.zeros((48, 48), np.float32)
    person.cam[20:, 40:] = 1  # the lower right of the face
    result = drawn(image, [person], mirror=mirror).astype(int)
    left = 640 - 196 if mirror else 100
    column = left + (8 if mirror else 88)
    blue, green, red = result[150 + 70, column]
    assert red > 1.5 * max(blue, green) and min(blue, green) >= 128 // 2 - 1, "the face is visible"
    changed = (result != plain).any(2)
    inside = np.zeros_like(changed)
    inside[150 + 38 : 150 + 97, left + (0 if mirror else 77) :][:, :20] = True
    assert changed[inside].mean() > 0.6 and not changed[~inside].any()


@pytest.mark.parametrize(
    "box", [(-40, -30, 96, 96), (600, 440, 80, 81), (9, 9, 1, 1), (700, 9, 40, 40)]
)
def test_a_map_at_the_edge_of_the_frame(box):
    person = face(1, box)
    person.cam = np.ones((48, 48), np.float32)
    for mirror in (False, True):
        result = drawn(np.full((480, 640, 3), 128, np.uint8), [person], mirror=mirror)
        assert result.shape == (480, 640, 3)


def test_bars_show_the_probabilities():
    image = np.zeros((480, 640, 3), np.uint8)
    lengths = {}
    for prob in (0.5, 1.0):
        result = drawn(image, [face(1, (100, 100, 160, 160), "sad", prob)])
        beside = result[100:300, 270:]
        colour = PALETTE[CLASS_NAMES.index("sad")]
        lengths[prob] = (beside == colour).all(2).sum(1).max()
    assert lengths[0.5] == pytest.approx(lengths[1.0] / 2, abs=2) and lengths[1.0] > 40
    without = drawn(image, [face(1, (100, 100, 160, 160), "sad")], bars=False)
    assert not without[100:300, 270:].any()


def test_bars_cover_no_face():
    image = np.zeros((480, 640, 3), np.uint8)
    boxes = [(60, 150, 150, 150), (215, 150, 150, 150), (370, 150, 150, 150)]
    faces = [face(n, box) for n, box in enumerate(boxes)]
    result, plain = drawn(image, faces), drawn(image, faces, bars=False)
    for x, y, w, h in boxes:
        assert np.array_equal(result[y : y + h, x : x + w], plain[y : y + h, x : x + w])


def test_unsure():
    assert label_of(face(1, (0, 0, 9, 9), "fear", 0.5), CLASS_NAMES, 0.4) == ("fear", 0.5)
    label, confidence = label_of(face(1, (0, 0, 9, 9), "fear", 0.3), CLASS_NAMES, 0.4)
    assert label == "unsure" and confidence == pytest.approx(0.3)
