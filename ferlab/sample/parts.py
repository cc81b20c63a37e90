"""The parts of a drawn face: anti-aliased shapes, and brows, eyes, cheeks, nose and mouth.

Face units: the origin is between eyes and nose tip, x points to the right of the image, y down; the
chin of a neutral face is near y = 1, the hairline near y = -0.8.

Each `draw_*` function takes the pen, the identity and `au`, the intensity in [0, 1] of every action
unit; `side` is -1 for the left and 1 for the right of the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

SPAN = 1.4  # a drawing shows [-SPAN, SPAN] in both directions
INK = (25, 25, 25)
Colour = tuple[float, float, float]  # BGR in [0, 255]


@dataclass(frozen=True)
class Identity:
    """The appearance of a drawn person; lengths in face units, colours BGR."""

    width: float
    taper: float
    skin: Colour
    hair: Colour
    hairline: float
    long_hair: bool
    eye_gap: float
    eye_width: float
    eye_height: float
    eye_y: float
    iris: float
    brow_gap: float
    brow_thickness: float
    nose_length: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    lip: float
    glasses: bool
    beard: float
    moustache: float


class Pen:
    """Draws anti-aliased shapes, given in face units, on an image.

    Args:
        size: height and width of the image, pixels; it shows [-SPAN, SPAN] face units.
        yaw: turn of the head in [-1, 1].
        channels: channels of the image: 3 for BGR, 1 for a mask.

    Attributes:
        image: uint8 `(size, size, channels)`.
    """

    def __init__(self, size: int, yaw: float, channels: int = 3):
        self.image = np.zeros((size, size, channels), np.uint8)
        self.scale = size / (2 * SPAN)
        self.yaw = yaw

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Maps `(N, 2)` face units to 1/16 pixels, turned by yaw most near the centre."""
        x, y = np.asarray(points, float).T
        x = x + 0.22 * self.yaw * np.clip(1 - x**2 / 0.8, 0, 1)
        return np.int32(np.round((np.stack([x, y], 1) + SPAN) * self.scale * 16))

    def fill(self, points: np.ndarray, colour: Colour | float) -> None:
        """Fills the polygon through `(N, 2)` points."""
        cv2.fillPoly(self.image, [self.pixels(points)], colour, cv2.LINE_AA, shift=4)

    def line(self, points: np.ndarray, colour: Colour, width: float) -> None:
        """Draws a line of `width` face units through `(N, 2)` points."""
        thickness = max(1, round(width * self.scale))
        pixels = [self.pixels(points)]
        cv2.polylines(self.image, pixels, False, colour, thickness, cv2.LINE_AA, shift=4)

    def blend(self, points: np.ndarray, colour: Colour, opacity: float) -> None:
        """Fills a polygon with `opacity` in [0, 1]."""
        before = self.image.copy()
        self.fill(points, colour)
        cv2.addWeighted(self.image, opacity, before, 1 - opacity, 0, self.image)


def curve(start: tuple, middle: tuple, end: tuple, count: int = 12) -> np.ndarray:
    """Returns `(count, 2)` points of the parabola through three points."""
    start, middle, end = (np.array(point, float) for point in (start, middle, end))
    control = 2 * middle - (start + end) / 2
    t = np.linspace(0, 1, count)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def oval(
    x: float, y: float, half_width: float, half_height: float, upper_half: bool = False
) -> np.ndarray:
    """Returns `(28, 2)` points of an ellipse, or of its upper half from left to right."""
    if upper_half:
        angle = np.linspace(np.pi, 2 * np.pi, 28)
    else:
        angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + half_width * np.cos(angle), y + half_height * np.sin(angle)], 1)


def shade(colour: Colour, factor: float) -> Colour:
    """Returns a colour with its channels multiplied by `factor`, clipped to [0, 255]."""
    return tuple(float(np.clip(channel * factor, 0, 255)) for channel in colour)


def draw_brow(pen: Pen, identity: Identity, au: Mapping[int, float], side: int) -> None:
    """Brow: 1 raises the inner, 2 the outer end; 4 lowers and draws in; 9 lowers the inner end."""
    y = identity.eye_y - identity.brow_gap
    lowered = 0.13 * au[4] * (1 - 0.8 * au[1])  # au 1 outweighs au 4: sad and fearful brows slant
    inner = (0.13 - 0.05 * au[4], y - 0.17 * au[1] + lowered + 0.1 * au[9])
    arch = y - 0.045 - 0.06 * au[1] - 0.12 * au[2] + 0.6 * lowered + 0.04 * au[9]
    middle = (identity.eye_gap, arch)
    outer = (identity.eye_gap + 0.22, y + 0.04 - 0.15 * au[2] + 0.02 * au[4])
    colour = shade(identity.hair, 0.8)
    line = curve(inner, middle, outer) * (side, 1)
    pen.line(line, colour, identity.brow_thickness)
    if au[4] > 0.25 and au[1] < 0.5:  # the furrow between the brows
        furrow = [(side * 0.06, y - 0.02), (side * 0.05, y + 0.14)]
        pen.line(np.array(furrow), shade(identity.skin, 0.55), 0.02)
    if max(au[1], au[2]) > 0.4 and au[4] < 0.5:  # the forehead wrinkles
        for step in (0.2, 0.3):
            wrinkle = curve((0, y - step), (side * 0.2, y - step - 0.03), (side * 0.42, y - step))
            pen.line(wrinkle, shade(identity.skin, 0.72), 0.018)


def draw_eye(pen: Pen, identity: Identity, au: Mapping[int, float], side: int) -> None:
    """Eye: 5 raises the upper lid; 7 tightens both; 6 and 9 push the lower lid up."""
    x, y, half = side * identity.eye_gap, identity.eye_y, identity.eye_width
    upper = identity.eye_height * (1 + 0.75 * au[5] - 0.4 * au[7] - 0.25 * au[6] - 0.3 * au[9])
    lower = identity.eye_height * (0.75 + 0.25 * au[5] - 0.5 * au[7] - 0.65 * au[6] - 0.35 * au[9])
    top = curve((x - half, y), (x, y - max(upper, 0.012)), (x + half, y))
    bottom = curve((x + half, y), (x, y + max(lower, 0.008)), (x - half, y))
    pen.fill(np.concatenate([top, bottom]), (225, 228, 230))
    iris = oval(x, y - 0.01, identity.iris, identity.iris)
    iris[:, 1] = np.clip(iris[:, 1], y - max(upper, 0.012) * 0.98, y + max(lower, 0.008) * 0.98)
    pen.fill(iris, (35, 30, 25))
    pen.line(top, INK, 0.03)
    pen.line(bottom, shade(identity.skin, 0.6), 0.015)
    fold = top - (0, 0.045 * (1 - 0.5 * au[5]))
    pen.line(fold, shade(identity.skin, 0.65), 0.015)


def draw_cheek(pen: Pen, identity: Identity, au: Mapping[int, float], side: int) -> None:
    """Cheek: 6 makes crow's feet and bags below the eye; 12 and 9 deepen the nasolabial fold."""
    dark = shade(identity.skin, 0.68)
    eye_x, eye_y = identity.eye_gap, identity.eye_y
    if au[6] > 0.2:
        bag = curve(
            (eye_x - 0.16, eye_y + 0.1), (eye_x, eye_y + 0.15), (eye_x + 0.18, eye_y + 0.08)
        )
        pen.line(bag * (side, 1), dark, 0.02)
        for angle in (-0.07, 0.02, 0.09):
            foot = [(eye_x + 0.2, eye_y + angle / 3), (eye_x + 0.3, eye_y + angle)]
            pen.line(np.array(foot) * (side, 1), dark, 0.015)
    depth = max(au[12], 0.9 * au[9], 0.4 * au[20])
    if depth > 0.2:
        top, bottom = identity.nose_length - 0.12 - 0.05 * au[9], identity.mouth_y - 0.05 * au[12]
        out = identity.mouth_width + 0.1 + 0.06 * au[12]
        fold = curve((0.17, top), (0.26 + 0.06 * depth, (top + bottom) / 2 - 0.03), (out, bottom))
        pen.line(fold * (side, 1), shade(identity.skin, 0.85 - 0.22 * depth), 0.025)


def draw_nose(pen: Pen, identity: Identity, au: Mapping[int, float]) -> None:
    """Nose: 9 pulls the wings up and wrinkles the bridge."""
    tip = identity.nose_length - 0.05 - 0.06 * au[9]
    wing = identity.nose_width * (1 + 0.25 * au[9])
    dark = shade(identity.skin, 0.6)
    pen.line(curve((-wing, tip - 0.03), (0, tip + 0.05), (wing, tip - 0.03)), dark, 0.03)
    for side in (-1, 1):
        pen.fill(oval(side * wing * 0.5, tip + 0.005, 0.035, 0.02), shade(identity.skin, 0.35))
        pen.line(
            curve(
                (side * wing, tip - 0.03),
                (side * (wing + 0.02), tip - 0.09),
                (side * wing * 0.8, tip - 0.13),
            ),
            shade(identity.skin, 0.72),
            0.02,
        )
    if au[9] > 0.2:
        for y in (-0.14, -0.06, 0.02):
            wrinkle = curve((-0.1, y + 0.03), (0, y), (0.1, y + 0.03))
            pen.line(wrinkle, shade(identity.skin, 0.85 - 0.3 * au[9]), 0.02)


def draw_mouth(pen: Pen, identity: Identity, au: Mapping[int, float]) -> None:
    """Mouth: 12 pulls the corners up and out, 15 down, 20 straight out; 23 narrows and thins the
    lips, 16 bares the lower teeth, 9 raises the upper lip, 26 opens."""
    half = identity.mouth_width * (
        1 + 0.32 * au[12] + 0.3 * au[20] - 0.22 * au[23] - 0.15 * au[26] * (1 - au[20])
    )
    y = identity.mouth_y + 0.03 * au[26]
    corner = y - 0.14 * au[12] + 0.12 * au[15] + 0.03 * au[20]
    thin = 1 - 0.65 * au[23] - 0.25 * au[12] - 0.3 * au[20]
    gap_up = 0.015 * au[12] + 0.05 * au[9] + 0.03 * au[26]
    gap_down = 0.085 * au[12] + 0.07 * au[16] + (0.2 - 0.06 * au[20]) * au[26]
    upper = y - gap_up + 0.02 * au[12] - 0.05 * au[15]
    lower = y + gap_down + 0.02 * au[12] - 0.03 * au[15]
    left, right = (-half, corner), (half, corner)
    lip = (identity.skin[0] * 0.55, identity.skin[1] * 0.52, identity.skin[2] * 0.78)
    inner_top = curve(left, (0, upper), right, 16)
    inner_bottom = curve(right, (0, lower), left, 16)
    outer_top = curve(left, (0, upper - identity.lip * thin), right, 16)
    outer_bottom = curve(right, (0, lower + 1.3 * identity.lip * thin), left, 16)
    if identity.moustache:
        hair = curve((-half, y - 0.04), (0, y - 0.2), (half, y - 0.04))
        pen.blend(np.concatenate([hair, outer_top[::-1]]), identity.hair, identity.moustache)
    pen.fill(np.concatenate([outer_top, outer_bottom]), lip)
    if lower - upper > 0.02:
        pen.fill(np.concatenate([inner_top, inner_bottom]), (25, 20, 45))
        if au[12] > 0.3 or au[9] > 0.3:
            teeth = curve(left, (0, upper + 0.6 * (lower - upper)), right, 16)
            pen.fill(np.concatenate([inner_top, teeth[::-1]]), (215, 225, 228))
        if au[16] > 0.3 or au[20] > 0.3:
            teeth = curve(left, (0, lower - 0.4 * (lower - upper)), right, 16)
            pen.fill(np.concatenate([teeth, inner_bottom]), (200, 210, 215))
    else:
        pen.line(curve(left, (0, (upper + lower) / 2), right), shade(lip, 0.45), 0.025)


def draw_glasses(pen: Pen, identity: Identity) -> None:
    """Glasses: two rims and a bridge."""
    for side in (-1, 1):
        rim = oval(side * identity.eye_gap, identity.eye_y + 0.02, 0.24, 0.19)
        pen.line(np.concatenate([rim, rim[:1]]), INK, 0.03)
    pen.line(curve((-0.13, -0.15), (0, -0.19), (0.13, -0.15)), INK, 0.03)
