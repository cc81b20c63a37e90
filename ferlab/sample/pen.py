"""Anti-aliased shapes in face units, for the drawn faces.

Face units: the origin between eyes and nose tip, x to the picture's right, y down; the chin of a
neutral face is near y = 1, the hairline near y = -0.8.
"""

import cv2
import numpy as np

SPAN = 1.4  # a drawing shows [-SPAN, SPAN] in both directions
Colour = tuple[float, float, float]  # BGR in [0, 255]


class Pen:
    """Draws anti-aliased shapes, given in face units, on a picture.

    Args:
        size: height and width of the picture, pixels; it shows [-SPAN, SPAN] face units.
        yaw: turn of the head in [-1, 1].
        channels: of the picture: 3 for BGR, 1 for a mask.
    """

    def __init__(self, size: int, yaw: float, channels: int = 3):
        self.picture = np.zeros((size, size, channels), np.uint8)
        self.scale = size / (2 * SPAN)
        self.yaw = yaw

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Maps `(N, 2)` face units to 1/16 pixels, turned by yaw: what is in front moves most."""
        x, y = np.asarray(points, float).T
        x = x + 0.22 * self.yaw * np.clip(1 - x**2 / 0.8, 0, 1)
        return np.int32(np.round((np.stack([x, y], 1) + SPAN) * self.scale * 16))

    def fill(self, points: np.ndarray, colour: Colour | float) -> None:
        """Fills the polygon through `(N, 2)` points."""
        cv2.fillPoly(self.picture, [self.pixels(points)], colour, cv2.LINE_AA, shift=4)

    def line(self, points: np.ndarray, colour: Colour, width: float) -> None:
        """Draws a line of `width` face units through `(N, 2)` points."""
        thickness = max(1, round(width * self.scale))
        pixels = [self.pixels(points)]
        cv2.polylines(self.picture, pixels, False, colour, thickness, cv2.LINE_AA, shift=4)

    def blend(self, points: np.ndarray, colour: Colour, opacity: float) -> None:
        """Fills a polygon with `opacity` in [0, 1]."""
        before = self.picture.copy()
        self.fill(points, colour)
        cv2.addWeighted(self.picture, opacity, before, 1 - opacity, 0, self.picture)


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
    """Returns a colour made darker or brighter."""
    return tuple(float(np.clip(channel * factor, 0, 255)) for channel in colour)
