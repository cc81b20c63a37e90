"""Drawn faces; their expressions are combinations of FACS action units.

An action unit (AU) is one visible muscle movement of the Facial Action Coding System (Ekman,
Friesen & Hager 2002, "Facial Action Coding System: The Manual"). `EXPRESSIONS` lists the prototypes
of the basic emotions from the same authors' EMFACS; `draw_face` draws brows, lids, cheeks, nose,
lips and jaw by their intensities.

Lengths and positions are in the face units of `ferlab.sample.parts`.
"""

from collections.abc import Mapping

import cv2
import numpy as np

from ferlab.sample.parts import (
    SPAN,
    Identity,
    Pen,
    curve,
    draw_brow,
    draw_cheek,
    draw_eye,
    draw_glasses,
    draw_mouth,
    draw_nose,
    oval,
    shade,
)

EXPRESSIONS: dict[str, tuple[int, ...]] = {
    "angry": (4, 5, 7, 23),
    "disgust": (9, 15, 16),
    "fear": (1, 2, 4, 5, 20, 26),
    "happy": (6, 12),
    "neutral": (),
    "sad": (1, 4, 15),
    "surprise": (1, 2, 5, 26),
}
ACTION_UNITS = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    12: "lip corner puller",
    15: "lip corner depressor",
    16: "lower lip depressor",
    20: "lip stretcher",
    23: "lip tightener",
    26: "jaw drop",
}


def random_identity(rng: np.random.Generator) -> Identity:
    """Draws a random appearance."""
    tone = rng.uniform(0.3, 1.0)
    skin = tuple(float(c * tone) for c in rng.normal((168, 195, 235), 6))
    hair_tone = rng.choice([rng.uniform(10, 60), rng.uniform(60, 190)], p=[0.7, 0.3])
    bearded = rng.random() < 0.22
    return Identity(
        width=rng.uniform(0.68, 0.88),
        taper=rng.uniform(0.12, 0.38),
        skin=skin,
        hair=(hair_tone * 0.75, hair_tone * 0.88, hair_tone),
        hairline=rng.uniform(-0.95, -0.72),
        long_hair=bool(rng.random() < 0.4),
        eye_gap=rng.uniform(0.31, 0.41),
        eye_width=rng.uniform(0.14, 0.2),
        eye_height=rng.uniform(0.055, 0.095),
        eye_y=rng.uniform(-0.22, -0.1),
        iris=rng.uniform(0.055, 0.075),
        brow_gap=rng.uniform(0.16, 0.25),
        brow_thickness=rng.uniform(0.03, 0.09),
        nose_length=rng.uniform(0.34, 0.5),
        nose_width=rng.uniform(0.1, 0.17),
        mouth_y=rng.uniform(0.5, 0.62),
        mouth_width=rng.uniform(0.22, 0.32),
        lip=rng.uniform(0.03, 0.075),
        glasses=bool(rng.random() < 0.18),
        beard=float(bearded * rng.uniform(0.3, 0.9)),
        moustache=float((rng.random() < 0.15) * rng.uniform(0.4, 1.0)),
    )


def draw_face(
    identity: Identity, activations: Mapping[int, float], size: int, yaw: float = 0.0
) -> np.ndarray:
    """Draws a face.

    Args:
        identity: the person.
        activations: intensity in [0, 1] of each action unit; 0 for units that are absent.
        size: height and width of the drawing, pixels; it shows [-SPAN, SPAN] face units.
        yaw: turn of the head in [-1, 1]; positive looks to the right of the image.

    Returns:
        uint8 `(size, size, 4)`: BGR and opacity.
    """
    au = {unit: float(activations.get(unit, 0.0)) for unit in ACTION_UNITS}
    pen, mask = Pen(size, yaw), Pen(size, yaw, channels=1)
    head = head_outline(identity, au)
    cap = oval(0, -0.3, identity.width + 0.16, 0.98, upper_half=True)
    hair = oval(0, -0.3, identity.width + 0.16, 0.98)
    if identity.long_hair:
        hair = np.concatenate([cap, [(cap[-1, 0], SPAN), (cap[0, 0], SPAN)]])
    neck = np.array([(-0.42, 0.6), (0.42, 0.6), (0.5, SPAN), (-0.5, SPAN)])
    for shape, colour in (
        (hair, identity.hair),
        (neck, shade(identity.skin, 0.7)),
        (oval(-identity.width, 0.0, 0.09, 0.17), shade(identity.skin, 0.85)),
        (oval(identity.width, 0.0, 0.09, 0.17), shade(identity.skin, 0.85)),
        (head, identity.skin),
    ):
        pen.fill(shape, colour)
        mask.fill(shape, 255)
    if identity.beard:
        above = curve((0.5, 0.35), (0, 0.42), (-0.5, 0.35))
        jaw = np.concatenate([head[head[:, 1] > 0.25], above])
        pen.blend(jaw, identity.hair, 0.75 * identity.beard)
    pen.image = light(pen.image, identity, au, yaw)
    draw_nose(pen, identity, au)
    draw_mouth(pen, identity, au)
    for side in (-1, 1):
        draw_cheek(pen, identity, au, side)
        draw_eye(pen, identity, au, side)
        draw_brow(pen, identity, au, side)
    if identity.glasses:
        draw_glasses(pen, identity)
    fringe = curve((-identity.width, -0.35), (0, identity.hairline), (identity.width, -0.35), 20)
    pen.fill(np.concatenate([fringe, cap[::-1]]), identity.hair)
    return cv2.merge([pen.image, mask.image])


def head_outline(identity: Identity, au: Mapping[int, float]) -> np.ndarray:
    """Returns the head's outline `(48, 2)`; a dropped jaw (26) lengthens it."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = identity.width * np.sin(angle), -np.cos(angle)
    below = np.clip(y, 0, 1)
    x = x * (1 - identity.taper * below**2)
    return np.stack([x, np.where(y > 0, y * (1 + 0.14 * au[26]), y * 1.1)], 1)


def light(image: np.ndarray, identity: Identity, au: Mapping[int, float], yaw: float) -> np.ndarray:
    """Shades a face: dark eye sockets, bright nose bridge, cheeks and chin."""
    grid = np.linspace(-SPAN, SPAN, 56, dtype=np.float32)
    x, y = np.meshgrid(grid - 0.2 * yaw, grid)

    def spot(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)

    field = 1.02 - 0.22 * (x / identity.width) ** 2 + 0.1 * spot(0, -0.5, 0.5, 0.25)
    field += 0.16 * spot(0, 0.05, 0.09, 0.3) - 0.16 * spot(0, identity.mouth_y + 0.17, 0.2, 0.06)
    for side in (-1, 1):
        field -= 0.3 * spot(side * identity.eye_gap, identity.eye_y - 0.02, 0.24, 0.14)
        lift = 0.07 * au[6] + 0.05 * au[12]
        field += (0.12 + 0.12 * au[6]) * spot(side * 0.4, 0.24 - lift, 0.2, 0.15)
    field = cv2.resize(field, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(image * field[:, :, None], 0, 255).astype(np.uint8)
