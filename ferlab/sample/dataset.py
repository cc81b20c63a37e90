"""The embedded sample: a dataset of drawn faces in Kaggle's layout, and a clip with true labels."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ferlab.constants import CLASS_NAMES, IMAGE_SIZE
from ferlab.files import UserError
from ferlab.sample.faces import ACTION_UNITS, EXPRESSIONS, draw_face, random_identity
from ferlab.sample.pen import SPAN, oval

IMAGES = {"train": 3200, "validation": 1400}
PEOPLE = {"train": 400, "validation": 175}  # nobody stands in both
SHARES = dict(  # uneven, as in the real set; disgust is less rare, or 3,200 faces hold too few
    zip(CLASS_NAMES, (0.14, 0.06, 0.14, 0.25, 0.16, 0.15, 0.1), strict=True)
)
# What a face picture shows, as OpenCV's Haar frontal face boxes do on these drawings: a square of
# HALF_SIDE face units either way of a point CENTRE_Y below the origin.
HALF_SIDE, CENTRE_Y = 1.0, 0.06
CLIP_SIZE = (640, 480)
CLIP_PERSON = sum(PEOPLE.values()) + 6  # somebody who stands in no split
CLIP_RATE = 30.0
HOLD, CHANGE = 36, 16  # frames an expression is held, and frames to the next one


def random_activations(expression: str, rng: np.random.Generator) -> dict[int, float]:
    """Draws intensities of the action units of an expression, as people differ in showing it.

    The whole expression is weak or strong; single units vary around that, are at times missing,
    and units of other expressions twitch.
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
    """Lays a drawing on a picture.

    Args:
        drawing: uint8 `(size, size, 4)` of `draw_face`.
        canvas: uint8 `(H, W, 3)`.
        centre: where the drawing's centre comes to lie, pixels (x, y).
        unit: length of a face unit, pixels.
        roll: turn, degrees.

    Returns:
        uint8 `(H, W, 3)`.
    """
    size = len(drawing)
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), roll, unit * 2 * SPAN / size)
    matrix[:, 2] += np.array(centre) - size / 2
    height, width = canvas.shape[:2]
    moved = cv2.warpAffine(drawing, matrix, (width, height), flags=cv2.INTER_LINEAR)
    opacity = moved[:, :, 3:].astype(np.float32) / 255
    return (moved[:, :, :3] * opacity + canvas * (1 - opacity)).astype(np.uint8)


def random_background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draws blurred patches of colour, uint8 `(height, width, 3)`."""
    patches = rng.normal(rng.uniform(50, 200), 35, (4, 5, 3)).clip(0, 255).astype(np.uint8)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)


def sample_face(expression: str, person: int, rng: np.random.Generator) -> np.ndarray:
    """Draws one face as a camera might have taken it.

    Args:
        expression: one of CLASS_NAMES.
        person: seed of the identity.
        rng: source of expression, pose, light and noise.

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
    picture = place(drawing, background, centre, unit, roll=rng.normal(0, 5))
    if rng.random() < 0.08:  # a hand before the face
        spot, size = rng.uniform(0.2, 0.8, 2) * big, rng.uniform(0.1, 0.2, 2) * big
        skin = tuple(0.8 * channel for channel in identity.skin)
        axes = (int(size[0]), int(size[1]))
        cv2.ellipse(picture, np.int32(spot).tolist(), axes, 30, 0, 360, skin, -1, cv2.LINE_AA)
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
    gray = cv2.resize(gray, (IMAGE_SIZE, IMAGE_SIZE), interpolation=cv2.INTER_AREA)
    ramp = np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32)
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    gray *= 1 + strength * (np.cos(angle) * ramp[None] + np.sin(angle) * ramp[:, None])
    gray = cv2.GaussianBlur(gray, (0, 0), rng.uniform(0.2, 1.0))
    gray = (gray - gray.mean()) * rng.uniform(0.5, 1.2) + gray.mean() + rng.normal(0, 20)
    gray += rng.normal(0, rng.uniform(2, 11), gray.shape)
    return gray.clip(0, 255).astype(np.uint8)


def write_sample_dataset(
    folder: Path, images: Mapping[str, int] = IMAGES, seed: int = 0, quiet: bool = False
) -> None:
    """Draws `images/<split>/<class>/<number>.png` below `folder`; a seed decides every pixel."""
    rng = np.random.default_rng(seed)
    first_person = 0
    with tqdm(total=sum(images.values()), unit="face", desc="drawing", disable=quiet) as progress:
        for split, total in images.items():
            for name in CLASS_NAMES:
                target = folder / "images" / split / name
                target.mkdir(parents=True, exist_ok=True)
                for number in range(max(1, round(total * SHARES[name]))):
                    person = first_person + int(rng.integers(PEOPLE.get(split, 100)))
                    face = sample_face(name, person, rng)
                    (target / f"{number}.png").write_bytes(cv2.imencode(".png", face)[1])
                    progress.update()
            first_person += PEOPLE.get(split, 100)


def clip_script() -> list[tuple[str, dict[int, float]]]:
    """Returns the true label and the activations of each frame of the clip.

    Each expression is held and then glides into the next; in between the label is that of the
    stronger one.
    """
    order = ("neutral", "happy", "surprise", "fear", "sad", "angry", "disgust")
    frames = []
    for index, name in enumerate(order):
        following = order[(index + 1) % len(order)]
        for step in range(HOLD + CHANGE):
            share = 0.5 - 0.5 * np.cos(np.pi * max(0, step - HOLD + 1) / CHANGE)
            mix = dict.fromkeys(EXPRESSIONS[name], 0.95 * (1 - share))
            for unit in EXPRESSIONS[following]:
                mix[unit] = mix.get(unit, 0.0) + 0.95 * share
            frames.append((name if share < 0.5 else following, mix))
    return frames


def write_sample_clip(folder: Path, seed: int = 0, quiet: bool = False) -> None:
    """Films a drawn face going through all seven expressions: `clip.mp4` and `clip.csv`.

    The CSV has the columns frame, time_s, expression, and x, y, w, h, the true face box in
    pixels (forehead to chin).

    Raises:
        UserError: OpenCV cannot write the video.
    """
    rng = np.random.default_rng(seed)
    width, height = CLIP_SIZE
    background = random_background(height, width, rng)
    noise = rng.normal(0, 4, (height, width, 3))
    background = (background * 0.6 + 40 + noise).clip(0, 255).astype(np.uint8)
    identity = replace(random_identity(np.random.default_rng(CLIP_PERSON)), glasses=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), CLIP_RATE, CLIP_SIZE)
    if not writer.isOpened():
        raise UserError(f"cannot write {path}: this OpenCV has no mp4v encoder")
    unit = 105.0
    with (folder / "clip.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["frame", "time_s", "expression", "x", "y", "w", "h"])
        script = clip_script()
        for number, (label, mix) in enumerate(tqdm(script, desc="filming", disable=quiet)):
            time = number / CLIP_RATE
            x = width / 2 + 70 * np.sin(0.9 * time)
            y = height / 2 + 15 * np.sin(1.7 * time)
            drawing = draw_face(identity, mix, 400, yaw=0.35 * np.sin(0.6 * time))
            frame = place(drawing, background, (x, y), unit, roll=4 * np.sin(1.1 * time))
            body = (oval(x / unit, y / unit + 2.25, 1.7, 1.05) * unit * 16).astype(np.int32)
            cv2.fillPoly(frame, [body], (70, 60, 50), cv2.LINE_AA, shift=4)
            writer.write(frame)
            side = HALF_SIDE * unit
            corner = (x - side, y + CENTRE_Y * unit - side)
            box = [round(value) for value in (*corner, 2 * side, 2 * side)]
            rows.writerow([number, f"{time:.3f}", label, *box])
    writer.release()
