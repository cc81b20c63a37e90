"""The overlay of a frame: boxes, labels, probability bars, status line, help.

Sizes scale with the face and the frame, text has a filled background, and everything stays inside
the frame, so that it is readable on any image, at any resolution.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from ferlab.live.boxes import Box, iou
from ferlab.live.tracking import Face

UNSURE = "unsure"
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_HEIGHT = 22  # pixels from baseline to the top of capitals at scale 1
WHITE, BLACK, GREY = (255, 255, 255), (20, 20, 20), (190, 190, 190)
# Okabe & Ito's palette (BGR), safe for colour-blind people; repeats after eight.
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
CAM_OPACITY = 0.5  # of the map where it is highest: the face stays visible
KEYS = (
    ("q Esc", "quit"),
    ("space", "pause"),
    ("p", "probability bars"),
    ("m", "mirror image"),
    ("g", "class activation map"),
    ("s", "screenshot"),
    ("h", "this help"),
)


def label_of(face: Face, class_names: Sequence[str], min_confidence: float) -> tuple[str, float]:
    """Returns the predicted expression, or "unsure", and its probability in [0, 1]."""
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
    """Returns a copy of a frame with the overlay.

    Args:
        image: uint8 `(H, W, 3)`, BGR; not changed.
        faces: classified faces, boxes in pixels of `image`; those with a `cam` show it.
        class_names: the classes, in the order of the probabilities.
        min_confidence: minimum probability for a label; "unsure" below it.
        bars: draws the probabilities of each face.
        mirror: flips the image, but not the text, horizontally.
        status: text in the upper left corner.
        help_shown: lists the keys.
    """
    canvas = cv2.flip(image, 1) if mirror else image.copy()
    height, width = canvas.shape[:2]
    boxes = {face.id: face.rounded_box() for face in faces}
    if mirror:
        boxes = {key: (width - x - w, y, w, h) for key, (x, y, w, h) in boxes.items()}
    scale = np.clip(min(height, width) / 480, 0.5, 4)
    all_boxes = list(boxes.values())
    taken = [_status(canvas, status, scale)] if status else []
    nearest_last = sorted(faces, key=lambda face: face.box[2])
    for face in nearest_last:
        if face.cam is not None:
            _cam(canvas, boxes[face.id], cv2.flip(face.cam, 1) if mirror else face.cam)
    texts, colours = {}, {}
    for face in nearest_last:
        label, confidence = label_of(face, class_names, min_confidence)
        sure = label != UNSURE
        texts[face.id] = (
            f"{face.id} {label} {100 * confidence:.0f}%" if sure else f"{face.id} {label}?"
        )
        colours[face.id] = _colour(class_names.index(label)) if sure else GREY
        _box(canvas, boxes[face.id], colours[face.id], scale)
    for face in reversed(nearest_last):
        box, text, colour = boxes[face.id], texts[face.id], colours[face.id]
        taken.append(_label(canvas, box, text, colour, scale, taken))
    if bars:
        for face in reversed(nearest_last):
            panel = _bars(canvas, boxes[face.id], face.probs, class_names, scale, all_boxes, taken)
            taken += [panel] if panel else []
    if help_shown:
        _help(canvas, scale)
    return canvas


def _colour(index: int) -> tuple[int, int, int]:
    """Returns the colour of a class."""
    return PALETTE[index % len(PALETTE)]


def _darken(area: np.ndarray) -> None:
    """Darkens part of an image, in place, as the background of light text."""
    np.copyto(area, (area * 0.3).astype(np.uint8))


def _cam(canvas: np.ndarray, box: Box, cam: np.ndarray) -> None:
    """Draws a face's Grad-CAM, float32 `(48, 48)`, over it: from 0 (transparent) to 1 (red)."""
    left, top, width, height = box
    x, y = max(0, left), max(0, top)
    area = canvas[y : max(0, top + height), x : max(0, left + width)]
    if not area.size:
        return
    cam = cv2.resize(cam, (width, height), interpolation=cv2.INTER_LINEAR)
    cam = np.ascontiguousarray(cam[y - top :, x - left :][: area.shape[0], : area.shape[1]])
    heat = cv2.applyColorMap((255 * cam).astype(np.uint8), cv2.COLORMAP_TURBO)
    opacity = CAM_OPACITY * np.sqrt(cam)
    area[:] = cv2.blendLinear(np.ascontiguousarray(area), heat, 1 - opacity, opacity)


def _box(canvas: np.ndarray, box: Box, colour: tuple, scale: float) -> None:
    """Draws a box with a dark outline, visible on a background of any colour."""
    x, y, w, h = box
    line = max(1, round(2 * scale))
    cv2.rectangle(canvas, (x, y), (x + w, y + h), BLACK, line + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, (x, y), (x + w, y + h), colour, line, cv2.LINE_AA)


def _text(canvas: np.ndarray, text: str, corner: tuple[int, int], size: float, colour) -> None:
    """Draws `text` with its lower left corner at `corner`; `size` is its height in pixels."""
    thick = max(1, round(size / 9))
    cv2.putText(canvas, text, corner, FONT, size / FONT_HEIGHT, colour, thick, cv2.LINE_AA)


def _text_width(text: str, size: float) -> int:
    return cv2.getTextSize(text, FONT, size / FONT_HEIGHT, max(1, round(size / 9)))[0][0]


def _text_colour(background: tuple) -> tuple:
    """Returns black or white, whichever has the higher contrast (WCAG 2.2)."""
    blue, green, red = ((channel / 255) ** 2.2 for channel in background)
    return BLACK if 0.0722 * blue + 0.7152 * green + 0.2126 * red > 0.18 else WHITE


def _label(
    canvas: np.ndarray, box: Box, text: str, colour: tuple, scale: float, taken: list[Box]
) -> Box:
    """Draws a face's label above, below or inside its box, where it covers no other label."""
    x, y, w, h = box
    size = float(np.clip(w / 11, 10 * max(scale, 1), 22 * scale))
    pad = round(size / 2)
    width, height = _text_width(text, size) + 2 * pad, round(size) + 2 * pad
    rim = round(scale)
    spots = [(x - rim, y - height), (x - rim, y + h), (x - rim, y), (x - rim, y + h - height)]
    spots += [(x + w - width + rim, y - height), (x + w - width + rim, y + h)]
    spots += [(x - rim, row) for row in range(0, canvas.shape[0] - height + 1, height)]
    area = _free_spot(canvas, spots, width, height, taken)
    left, top = area[:2]
    cv2.rectangle(canvas, (left, top), (left + width, top + height), colour, -1)
    _text(canvas, text, (left + pad, top + height - pad), size, _text_colour(colour))
    return area


def _free_spot(
    canvas: np.ndarray, spots: list[tuple[int, int]], width: int, height: int, taken: list[Box]
) -> Box:
    """Returns the first spot, moved into the frame, that covers nothing taken; else the first."""
    rows, columns = canvas.shape[:2]
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
        if not any(iou(area, other) for other in taken):
            return area
    return moved[0]


def _bars(
    canvas: np.ndarray,
    box: Box,
    probs: np.ndarray,
    class_names: Sequence[str],
    scale: float,
    boxes: list[Box],
    taken: list[Box],
) -> Box | None:
    """Draws a face's probabilities beside its box; nothing if there is no room."""
    x, y, w, h = box
    row = round(float(np.clip(h / len(class_names), 13 * max(scale, 1), 26 * scale)))
    size = 0.5 * row
    names = max(_text_width(name, size) for name in class_names)
    length = 4 * row
    width, height = names + length + 2 * row, len(class_names) * row + row // 2
    gap = round(4 * scale)
    rows, columns = canvas.shape[:2]
    top = min(max(0, y), max(0, rows - height))
    spots = [(x + w + gap, top), (x - width - gap, top), (x, y + h + 2 * row), (x, y - height)]
    for left, top in spots:
        area = (left, top, width, height)
        within = left >= 0 and top >= 0 and left + width <= columns and top + height <= rows
        if within and not any(iou(area, other) for other in (*boxes, *taken)):
            break
    else:
        return None
    _darken(canvas[top : top + height, left : left + width])
    best = int(probs.argmax())
    for index, (name, prob) in enumerate(zip(class_names, probs, strict=True)):
        base = top + row // 4 + (index + 1) * row
        text_colour = WHITE if index == best else GREY
        _text(canvas, name, (left + row // 2, base - row // 4), size, text_colour)
        start = left + names + row
        end = start + max(1, round(length * float(prob)))
        corners = (start, base - row + row // 5), (end, base - row // 5)
        cv2.rectangle(canvas, *corners, _colour(index), -1)
    return area


def _status(canvas: np.ndarray, text: str, scale: float) -> Box:
    """Draws the status line in the upper left corner; returns its area."""
    size = 10 * max(scale, 1)
    pad = round(size / 2)
    area = (0, 0, _text_width(text, size) + 2 * pad, round(size) + 2 * pad)
    _darken(canvas[: area[3], : area[2]])
    _text(canvas, text, (pad, area[3] - pad), size, WHITE)
    return area


def _help(canvas: np.ndarray, scale: float) -> None:
    """Lists the keys in the lower left corner."""
    size = 10 * max(scale, 1)
    row, column = round(2.1 * size), _text_width("space", size) + round(2 * size)
    width = column + max(_text_width(text, size) for _, text in KEYS) + round(2 * size)
    top = max(0, canvas.shape[0] - row * len(KEYS) - round(size))
    _darken(canvas[top:, :width])
    for number, (key, text) in enumerate(KEYS, start=1):
        _text(canvas, key, (round(size), top + number * row), size, PALETTE[3])
        _text(canvas, text, (column, top + number * row), size, WHITE)
