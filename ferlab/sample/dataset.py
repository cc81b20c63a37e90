"""The sample: a dataset of drawn faces in Kaggle's layout, and a video clip with true labels."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ferlab.constants import CLASS_NAMES, IMAGE_SIZE
from ferlab.files import UserError
from ferlab.sample.faces import ACTION_UNITS, EXPRESSIONS, draw_face, random_identity
from ferlab.sample.parts import SPAN, oval

IMAGES = {"train": 3200, "validation": 1400}
PEOPLE = {"train": 400, "validation": 175}  # no person is in two splits
FRACTIONS = dict(  # of the classes: imbalanced as in the real dataset, but with more disgust
    zip(CLASS_NAMES, (0.14, 0.06, 0.14, 0.25, 0.16, 0.15, 0.1), strict=True)
)
# A face image is a square of 2 * HALF_SIDE face units with its centre CENTRE_Y below the origin, as
# the boxes of OpenCV's Haar cascade on these drawings.
HALF_SIDE, CENTRE_Y = 1.0, 0.06
CLIP_SIZE = (640, 480)
CLIP_PERSON = sum(PEOPLE.values()) + 6  # a person of no split
CLIP_RATE = 30.0
HOLD, CHANGE = 36, 16  # frames an expression is held, and frames of the transition to the next
CLIP_LENGTH = len(CLASS_NAMES) * (HOLD + CHANGE)  # frames


def random_activations(expression: str, rng: np.random.Generator) -> dict[int, float]:
    """Draws random intensities of the action units of an expression.

    The expression has one strength. Its units vary around it and are missing with probability 0.08;
    units of other expressions are slightly active with probability 0.15.
    """
    units = EXPRESSIONS[expression]
    strength = rng.uniform(0.35, 1.0)
    activations = {}
    for unit in ACTION_UNITS:
        if unit in units and rng.random() > 0.08:
            activations[unit] = float(np.clip(strength + rng.normal(0, 0.15), 0.1, 1))
        elif rng.random() < 0.15:
            activations[unit] = rng.uniform(0, 0.35)
    return activations


def place(
    drawing: np.ndarray, canvas: np.ndarray, centre: tuple[float, float], unit: float, roll: float
) -> np.ndarray:
    """Blends a drawing into an image.

    Args:
        drawing: uint8 `(size, size, 4)` of `draw_face`.
        canvas: uint8 `(H, W, 3)`, the image; not changed.
        centre: position of the drawing's centre, pixels (x, y).
        unit: length of a face unit, pixels.
        roll: rotation, degrees.

    Returns:
        uint8 `(H, W, 3)`.
    """
    size = len(drawing)
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), roll, unit * 2 * SPAN / size)
    matrix[:, 2] += np.array(centre) - size / 2
    height, width = canvas.shape[:2]
    moved = cv2.warpAffine(drawing, matrix, (width, height), flags=cv2.INTER_LINEAR)
    x, y, w, h = cv2.boundingRect(moved[:, :, 3])
    result, moved = canvas.copy(), moved[y : y + h, x : x + w]
    below, opacity = result[y : y + h, x : x + w], moved[:, :, 3:].astype(np.float32) / 255
    below[:] = moved[:, :, :3] * opacity + below * (1 - opacity)
    return result


def random_background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Returns blurred patches of colour, uint8 `(height, width, 3)`."""
    patches = rng.normal(rng.uniform(50, 200), 35, (4, 5, 3)).clip(0, 255).astype(np.uint8)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)


def sample_face(expression: str, person: int, rng: np.random.Generator) -> np.ndarray:
    """Draws one face with random pose, light, blur and noise.

    Args:
        expression: one of CLASS_NAMES.
        person: seed of the identity.
        rng: source of intensities, pose, light and noise.

    Returns:
        uint8 `(48, 48)`, gray levels.
    """
    identity = random_identity(np.random.default_rng(person))
    identity = replace(identity, glasses=identity.glasses and rng.random() < 0.8)
    big = 2 * IMAGE_SIZE
    drawing = draw_face(identity, random_activations(expression, rng), 144, rng.normal(0, 0.35))
    unit = big / (2 * HALF_SIDE) * rng.uniform(0.92, 1.08)
    shift = rng.normal(0, 0.025, 2) * big - (0, CENTRE_Y * unit)
    centre = (big / 2 + shift[0], big / 2 + shift[1])
    background = random_background(big, big, rng)
    image = place(drawing, background, centre, unit, roll=rng.normal(0, 5))
    if rng.random() < 0.08:  # an occlusion, such as a hand
        spot, size = rng.uniform(0.2, 0.8, 2) * big, rng.uniform(0.1, 0.2, 2) * big
        skin = tuple(0.8 * channel for channel in identity.skin)
        axes = (int(size[0]), int(size[1]))
        cv2.ellipse(image, np.int32(spot).tolist(), axes, 30, 0, 360, skin, -1, cv2.LINE_AA)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    gray = cv2.resize(gray, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
    ramp = np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    gray *= 1 + strength * (np.cos(angle) * ramp[None] + np.sin(angle) * ramp[:, None])
    gray = cv2.GaussianBlur(gray, (0, 0), rng.uniform(0.2, 1.0))
    gray = (gray - gray.mean()) * rng.uniform(0.5, 1.2) + gray.mean() + rng.normal(0, 20)
    gray += rng.normal(0, rng.uniform(2, 11), gray.shape)
    return gray.clip(0, 255).astype(np.uint8)


def write_sample_dataset(folder: Path, images: Mapping[str, int] = IMAGES) -> None:
    """Writes `images/<split>/<class>/<number>.png` below `folder`, the same pixels on each run.

    Args:
        folder: where to write; it is created.
        images: number of images of each split.
    """
    rng = np.random.default_rng(0)
    first_person = 0
    with tqdm(total=sum(images.values()), unit="face", desc="drawing") as progress:
        for split, total in images.items():
            for name in CLASS_NAMES:
                target = folder / "images" / split / name
                target.mkdir(parents=True, exist_ok=True)
                for number in range(max(1, round(total * FRACTIONS[name]))):
                    person = first_person + int(rng.integers(PEOPLE.get(split, 100)))
                    face = sample_face(name, person, rng)
                    (target / f"{number}.png").write_bytes(cv2.imencode(".png", face)[1])
                    progress.update()
            first_person += PEOPLE.get(split, 100)


def clip_script() -> list[tuple[str, dict[int, float]]]:
    """Returns the true label and the activations of each frame of the clip.

    Each expression is held and then blended into the next. During the transition, the label is the
    stronger one.
    """
    order = ("neutral", "happy", "surprise", "fear", "sad", "angry", "disgust")
    frames = []
    for index, name in enumerate(order):
        following = order[(index + 1) % len(order)]
        for step in range(HOLD + CHANGE):
            weight = 0.5 - 0.5 * np.cos(np.pi * max(0, step - HOLD + 1) / CHANGE)
            mix = dict.fromkeys(EXPRESSIONS[name], 0.95 * (1 - weight))
            for unit in EXPRESSIONS[following]:
                mix[unit] = mix.get(unit, 0.0) + 0.95 * weight
            frames.append((name if weight < 0.5 else following, mix))
    return frames


def clip_frames() -> Iterator[tuple[np.ndarray, str, tuple[int, int, int, int]]]:
    """Draws the frames of the clip: one person who shows all seven expressions.

    Yields:
        The frame, uint8 `(480, 640, 3)` BGR, its true label, and the true face box (x, y, w, h) in
        pixels, forehead to chin.
    """
    rng = np.random.default_rng(0)
    width, height = CLIP_SIZE
    background = random_background(height, width, rng)
    noise = rng.normal(0, 4, (height, width, 3))
    background = (background * 0.6 + 40 + noise).clip(0, 255).astype(np.uint8)
    identity = replace(random_identity(np.random.default_rng(CLIP_PERSON)), glasses=False)
    unit = 105.0
    for number, (label, mix) in enumerate(clip_script()):
        time = number / CLIP_RATE
        x = width / 2 + 70 * np.sin(0.9 * time)
        y = height / 2 + 15 * np.sin(1.7 * time)
        drawing = draw_face(identity, mix, 400, yaw=0.35 * np.sin(0.6 * time))
        frame = place(drawing, background, (x, y), unit, roll=4 * np.sin(1.1 * time))
        body = (oval(x / unit, y / unit + 2.25, 1.7, 1.05) * unit * 16).astype(np.int32)
        cv2.fillPoly(frame, [body], (70, 60, 50), cv2.LINE_AA, shift=4)
        side = HALF_SIDE * unit
        corner = (x - side, y + CENTRE_Y * unit - side)
        yield frame, label, tuple(round(value) for value in (*corner, 2 * side, 2 * side))


def write_sample_clip(folder: Path) -> None:
    """Writes the clip and its true labels: `clip.mp4` and `clip.csv`.

    The CSV has the columns frame, time_s, expression, and x, y, w, h, the true face box in pixels.

    Raises:
        UserError: OpenCV cannot write the video.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), CLIP_RATE, CLIP_SIZE)
    if not writer.isOpened():
        raise UserError(f"cannot write {path}: this OpenCV has no mp4v encoder")
    frames = tqdm(clip_frames(), "drawing the clip", CLIP_LENGTH)
    with (folder / "clip.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["frame", "time_s", "expression", "x", "y", "w", "h"])
        for number, (frame, label, box) in enumerate(frames):
            writer.write(frame)
            rows.writerow([number, f"{number / CLIP_RATE:.3f}", label, *box])
    writer.release()
