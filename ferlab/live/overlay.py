"""What is drawn on a frame: boxes, labels, probability bars, status line, help.

Sizes follow the face and the frame, text stands on filled ground, and nothing leaves the frame, so
that all of it can be read on any background, at any resolution.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from ferlab.live.detection import Box, overlap
from ferlab.live.tracking import Face

UNSURE = "unsure"
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_HEIGHT = 22  # pixels from baseline to the top of capitals at scale 1
WHITE, BLACK, GREY = (255, 255, 255), (20, 20, 20), (190, 190, 190)
# Okabe & Ito's palette (BGR), which colour-blind people can tell apart; repeats after eight.
PALETTE = (
    (0, 94, 213),
    (115, 158, 0),
    (167, 121, 204),
    (66, 228, 240),
    (233, 180, 86),
    (178, 114, 0),
    (0, 159, 230),
    GREY,
)
KEYS = (
    ("q Esc", "quit"),
    ("space", "pause"),
    ("p", "probability bars"),
    ("m", "mirror"),
    ("s", "screenshot"),
    ("h", "this help"),
)


def label_of(face: Face, class_names: Sequence[str], min_confidence: float) -> tuple[str, float]:
    """Returns a face's expression, or "unsure", and its confidence in [0, 1]."""
    best = int(face.probs.argmax())
    confidence = float(face.probs[best])
    return (class_names[best] if confidence >= min_confidence else UNSURE), confidence


def draw(
    image: np.ndarray,
    faces: Sequence[Face],
    class_names: Sequence[str],
    min_confidence: float,
    *,
    bars: bool = True,
    mirror: bool = False,
    status: str = "",
    help_shown: bool = False,
) -> np.ndarray:
    """Returns a copy of a frame with everything drawn on it.

    Args:
        image: uint8 `(H, W, 3)`, BGR; left as it is.
        faces: classified faces, boxes in pixels of `image`.
        class_names: what the probabilities are of.
        min_confidence: below it a label says "unsure".
        bars: draws the probabilities of each face.
        mirror: shows the picture as a mirror does, text excepted.
        status: one line for the corner.
        help_shown: lists the keys.
    """
    picture = cv2.flip(image, 1) if mirror else image.copy()
    height, width = picture.shape[:2]
    places = {face.id: face.place() for face in faces}
    if mirror:
        places = {key: (width - x - w, y, w, h) for key, (x, y, w, h) in places.items()}
    scale = np.clip(min(height, width) / 480, 0.5, 4)
    taken = [_line(picture, status, scale)] if status else []
    nearest_last = sorted(faces, key=lambda face: face.box[2])
    texts, colours = {}, {}
    for face in nearest_last:
        label, confidence = label_of(face, class_names, min_confidence)
        sure = label != UNSURE
        texts[face.id] = (
            f"{face.id} {label} {100 * confidence:.0f}%" if sure else f"{face.id} {label}?"
        )
        colours[face.id] = _colour(class_names.index(label)) if sure else GREY
        _box(picture, places[face.id], colours[face.id], scale)
    for face in reversed(nearest_last):
        place, text, colour = places[face.id], texts[face.id], colours[face.id]
        taken.append(_label(picture, place, text, colour, scale, taken))
    if bars:
        boxes = list(places.values())
        for face in reversed(nearest_last):
            panel = _bars(picture, places[face.id], face.probs, class_names, scale, boxes, taken)
            taken += [panel] if panel else []
    if help_shown:
        _help(picture, scale)
    return picture


def _colour(index: int) -> tuple[int, int, int]:
    """Returns the colour of a class."""
    return PALETTE[index % len(PALETTE)]


def _darken(ground: np.ndarray) -> None:
    """Darkens part of a picture, in place, so that light text stands out from it."""
    np.copyto(ground, (ground * 0.3).astype(np.uint8))


def _box(picture: np.ndarray, box: Box, colour: tuple, scale: float) -> None:
    """Draws a box with a dark rim, which parts it from a ground of its own colour."""
    x, y, w, h = box
    line = max(1, round(2 * scale))
    cv2.rectangle(picture, (x, y), (x + w, y + h), BLACK, line + 2, cv2.LINE_AA)
    cv2.rectangle(picture, (x, y), (x + w, y + h), colour, line, cv2.LINE_AA)


def _text(picture: np.ndarray, text: str, corner: tuple[int, int], size: float, colour) -> None:
    """Writes `text` with its lower left corner at `corner`; `size` is its height in pixels."""
    thick = max(1, round(size / 9))
    cv2.putText(picture, text, corner, FONT, size / FONT_HEIGHT, colour, thick, cv2.LINE_AA)


def _text_width(text: str, size: float) -> int:
    return cv2.getTextSize(text, FONT, size / FONT_HEIGHT, max(1, round(size / 9)))[0][0]


def _ink(ground: tuple) -> tuple:
    """Returns black or white, whichever stands out from `ground` (contrast as in WCAG 2.2)."""
    blue, green, red = ((channel / 255) ** 2.2 for channel in ground)
    return BLACK if 0.0722 * blue + 0.7152 * green + 0.2126 * red > 0.18 else WHITE


def _label(
    picture: np.ndarray, box: Box, text: str, colour: tuple, scale: float, taken: list[Box]
) -> Box:
    """Writes a face's label above it, else below, else within, where it covers no other label."""
    x, y, w, h = box
    size = float(np.clip(w / 11, 10 * max(scale, 1), 22 * scale))
    pad = round(size / 2)
    width, height = _text_width(text, size) + 2 * pad, round(size) + 2 * pad
    rim = round(scale)
    spots = [(x - rim, y - height), (x - rim, y + h), (x - rim, y), (x - rim, y + h - height)]
    spots += [(x + w - width + rim, y - height), (x + w - width + rim, y + h)]
    spots += [(x - rim, row) for row in range(0, picture.shape[0] - height + 1, height)]
    area = _free_spot(picture, spots, width, height, taken)
    left, top = area[:2]
    cv2.rectangle(picture, (left, top), (left + width, top + height), colour, -1)
    _text(picture, text, (left + pad, top + height - pad), size, _ink(colour))
    return area


def _free_spot(
    picture: np.ndarray, spots: list[tuple[int, int]], width: int, height: int, taken: list[Box]
) -> Box:
    """Returns the first spot, moved into the frame, that touches nothing taken; else the first."""
    rows, columns = picture.shape[:2]
    moved = [
        (
            min(max(0, left), max(0, columns - width)),
            min(max(0, top), max(0, rows - height)),
            width,
            height,
        )
        for left, top in spots
    ]
    inside = [area for area, spot in zip(moved, spots, strict=True) if area[1] == spot[1]]
    for area in (*inside, *moved):
        if not any(overlap(area, other) for other in taken):
            return area
    return moved[0]


def _bars(
    picture: np.ndarray,
    box: Box,
    probs: np.ndarray,
    class_names: Sequence[str],
    scale: float,
    boxes: list[Box],
    taken: list[Box],
) -> Box | None:
    """Draws a face's probabilities beside it; nothing where there is no room."""
    x, y, w, h = box
    row = round(float(np.clip(h / len(class_names), 13 * max(scale, 1), 26 * scale)))
    size = 0.5 * row
    names = max(_text_width(name, size) for name in class_names)
    length = 4 * row
    width, height = names + length + 2 * row, len(class_names) * row + row // 2
    gap = round(4 * scale)
    rows, columns = picture.shape[:2]
    top = min(max(0, y), max(0, rows - height))
    spots = [(x + w + gap, top), (x - width - gap, top), (x, y + h + 2 * row), (x, y - height)]
    for left, top in spots:
        area = (left, top, width, height)
        within = left >= 0 and top >= 0 and left + width <= columns and top + height <= rows
        if within and not any(overlap(area, other) for other in (*boxes, *taken)):
            break
    else:
        return None
    _darken(picture[top : top + height, left : left + width])
    best = int(probs.argmax())
    for index, (name, share) in enumerate(zip(class_names, probs, strict=True)):
        base = top + row // 4 + (index + 1) * row
        ink = WHITE if index == best else GREY
        _text(picture, name, (left + row // 2, base - row // 4), size, ink)
        start = left + names + row
        end = start + max(1, round(length * float(share)))
        corners = (start, base - row + row // 5), (end, base - row // 5)
        cv2.rectangle(picture, *corners, _colour(index), -1)
    return area


def _line(picture: np.ndarray, text: str, scale: float) -> Box:
    """Writes the status line in the upper left corner; returns the area it takes."""
    size = 10 * max(scale, 1)
    pad = round(size / 2)
    area = (0, 0, _text_width(text, size) + 2 * pad, round(size) + 2 * pad)
    _darken(picture[: area[3], : area[2]])
    _text(picture, text, (pad, area[3] - pad), size, WHITE)
    return area


def _help(picture: np.ndarray, scale: float) -> None:
    """Lists the keys in the lower left corner."""
    size = 10 * max(scale, 1)
    row, column = round(2.1 * size), _text_width("space", size) + round(2 * size)
    width = column + max(_text_width(text, size) for _, text in KEYS) + round(2 * size)
    top = max(0, picture.shape[0] - row * len(KEYS) - round(size))
    _darken(picture[top:, :width])
    for number, (key, text) in enumerate(KEYS, start=1):
        _text(picture, key, (round(size), top + number * row), size, PALETTE[3])
        _text(picture, text, (column, top + number * row), size, WHITE)
