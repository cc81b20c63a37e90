"""A tiny dataset and the real scripts run on it."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ferlab.data.splits import CLASS_NAMES, Split, save_splits
from ferlab.sample.dataset import CENTRE_Y, HALF_SIDE, place
from ferlab.sample.faces import draw_face, random_identity

ROOT = Path(__file__).resolve().parents[1]
REAL_ARCHIVE = ROOT.parent / "shared" / "data" / "face-expression-recognition-dataset.zip"
LONGEST = ("test_live_inference.py", "test_pipeline.py", "test_model_scripts.py")  # test files
REAL_VOTES = REAL_ARCHIVE.with_name("fer2013new.csv")


def pytest_configure() -> None:
    """Lets the tests' programs hear Ctrl-C even where a shell has put pytest in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets the files that take longest begin first, so that none of them ends alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def real_archive() -> Path:
    """The real dataset's zip; skips where it is not at hand."""
    if not REAL_ARCHIVE.is_file():
        pytest.skip("the real dataset is not on this machine")
    return REAL_ARCHIVE


@pytest.fixture(scope="session")
def real_votes() -> Path:
    """FER+'s table of votes; skips where it is not at hand."""
    if not REAL_VOTES.is_file():
        pytest.skip("FER+'s votes are not on this machine")
    return REAL_VOTES


def striped_face(label: int, rng: np.random.Generator, size: int = 48) -> np.ndarray:
    """Returns a noisy uint8 `(size, size)` picture with a pattern that tells its class."""
    y, x = np.mgrid[:size, :size] / size
    wave = np.sin((label + 1) * 3.0 * (x if label % 2 else y) + rng.uniform(0, 0.5))
    return np.clip(128 + 60 * wave + rng.normal(0, 25, (size, size)), 0, 255).astype(np.uint8)


def write_pictures(folder: Path, per_class: int, seed: int = 0, size: int = 48) -> None:
    """Writes `per_class` pictures of each class below `folder`."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(CLASS_NAMES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            picture = Image.fromarray(striped_face(label, rng, size))
            picture.save(folder / name / f"{number}.png")


def make_split(per_class: int, seed: int) -> Split:
    """Returns a small learnable split."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASS_NAMES)), per_class)
    images = np.stack([striped_face(int(label), rng) for label in labels])[:, None]
    return Split(
        torch.from_numpy(images / np.float32(127.5) - 1).float(),
        torch.from_numpy(labels),
        CLASS_NAMES,
    )


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny train, val and test splits."""
    folder = tmp_path_factory.mktemp("processed_data")
    splits = {"train": make_split(40, 0), "val": make_split(10, 1), "test": make_split(10, 2)}
    save_splits(splits, folder)
    return folder


def run_script(script: str, *args: object, timeout: float = 300) -> subprocess.CompletedProcess:
    """Runs a script of the project as a person would; returns its exit code and output."""
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def assert_one_line_error(result: subprocess.CompletedProcess, *parts: str) -> None:
    """Checks exit code 1 and a single `error: ...` line on stderr that holds all `parts`."""
    assert result.returncode == 1, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    for part in parts:
        assert part in lines[0]


def drawn_frame(
    places: list[tuple[float, float, float]], people: tuple[int, ...] = (3, 8, 12)
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Draws faces at (x, y, size of a face unit) on a calm 640x480 ground, the first in front.

    Returns the picture, uint8 BGR, and the faces' boxes.
    """
    frame = np.full((480, 640, 3), (96, 84, 70), np.uint8)
    boxes = []
    for (x, y, unit), person in reversed(list(zip(places, people, strict=False))):
        identity = replace(random_identity(np.random.default_rng(person)), glasses=False)
        drawing = draw_face(identity, {}, 400)
        frame = place(drawing, frame, (x, y), unit, roll=0)
        side = HALF_SIDE * unit
        corner = (x - side, y + CENTRE_Y * unit - side)
        boxes.insert(0, tuple(round(number) for number in (*corner, 2 * side, 2 * side)))
    return frame, boxes


def refused(capsys, module, *args):
    """Runs a script that must fail; returns its one error line."""
    assert module.main([str(a) for a in args]) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), captured.err
    return lines[0]
