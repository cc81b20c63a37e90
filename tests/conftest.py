"""A tiny dataset and the real scripts run on it."""

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from ferlab.constants import ROOT
from ferlab.data.splits import CLASS_NAMES, Split, save_splits
from ferlab.data.votes import COLUMNS, HEADER, ROWS
from ferlab.sample.dataset import CENTRE_Y, HALF_SIDE, place
from ferlab.sample.faces import draw_face, random_identity

REAL_ARCHIVE = ROOT.parent / "shared" / "data" / "face-expression-recognition-dataset.zip"
LONGEST = ("test_live_inference.py", "test_pipeline.py", "test_model_scripts.py")  # test files
REAL_VOTES = REAL_ARCHIVE.with_name("fer2013new.csv")


def pytest_configure() -> None:
    """Lets Ctrl-C reach the programs of the tests, also where a shell runs pytest in background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets the files that take longest begin first, so that none of them runs alone at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Lets the garbage collector run less often, and not over what the imports have made."""
    gc.freeze()
    gc.set_threshold(50_000)


@pytest.fixture(scope="session")
def real_archive() -> Path:
    """The real dataset's zip; skips where it is not at hand."""
    if not REAL_ARCHIVE.is_file():
        pytest.skip("the real dataset is not on this machine")
    return REAL_ARCHIVE


@pytest.fixture(scope="session")
def own_model(tmp_path_factory) -> Path:
    """A folder with `lenet.py`, the script of docs/own_model.md, as a reader saves it."""
    page = (ROOT / "docs" / "own_model.md").read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("own_model")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    (folder / "lenet.py").write_text(code, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def real_votes() -> Path:
    """FER+'s table of votes; skips where it is not at hand."""
    if not REAL_VOTES.is_file():
        pytest.skip("FER+'s votes are not on this machine")
    return REAL_VOTES


def striped_face(label: int, rng: np.random.Generator, size: int = 48) -> np.ndarray:
    """Returns a noisy uint8 `(size, size)` picture with a pattern of its class."""
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


def make_split(per_class: int, seed: int, votes: bool = False) -> Split:
    """Returns a small learnable split, with the votes of `with_votes` if they are asked for."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASS_NAMES)), per_class)
    images = np.stack([striped_face(int(label), rng) for label in labels])[:, None]
    split = Split(
        torch.from_numpy(images / np.float32(127.5) - 1).float(),
        torch.from_numpy(labels),
        CLASS_NAMES,
    )
    return with_votes(split) if votes else split


def with_votes(split: Split) -> Split:
    """Returns `split` with votes that contradict a part of its labels.

    Of each ten neighbouring images the raters agree on the label of four and on the next class of
    three, six to ten of them, and the others vote for the class after it. The last three have no
    votes, a majority for contempt, and votes without a majority.
    """
    index = torch.arange(len(split))
    place, classes = index % 10, len(split.class_names)
    agreement = (6 + index % 5) * (place < 7) + 6 * (place == 8)
    raters = (split.labels + (place >= 4).long()) % classes
    fraction = torch.where(place < 7, agreement / 10, 0.5)[:, None]
    votes = fraction * F.one_hot(raters, classes)
    votes += (1 - fraction) * F.one_hot((raters + 1) % classes, classes)
    votes[place == 7] = 0
    majority = torch.where(place < 7, raters, -1)
    return replace(split, votes=votes, majority=majority, agreement=agreement)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny train, val and test splits."""
    folder = tmp_path_factory.mktemp("processed_data")
    splits = {"train": make_split(40, 0), "val": make_split(10, 1), "test": make_split(10, 2)}
    save_splits(splits, folder)
    return folder


@pytest.fixture(scope="session")
def votes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny splits with votes."""
    folder = tmp_path_factory.mktemp("votes_data")
    splits = {"train": (20, 0), "val": (10, 1), "test": (10, 2)}
    save_splits({name: make_split(*each, votes=True) for name, each in splits.items()}, folder)
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of class folders, with its zip beside it."""
    folder = tmp_path_factory.mktemp("images") / "images"
    for split, count in (("train", 12), ("validation", 4)):
        write_pictures(folder / split, count, seed=count)
    shutil.make_archive(str(folder), "zip", folder)
    return folder


@pytest.fixture(scope="session")
def votes_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table as FER+'s: on row r seven raters vote for class r % 7, two for the next."""
    columns = ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]
    kinds = []
    for label in range(7):
        counts = {columns[label]: 7, columns[(label + 1) % 7]: 2, "unknown": 1}
        kinds.append(",".join(str(counts.get(name, 0)) for name in COLUMNS))
    lines = [HEADER, *(f"Training,fer{row:07}.png,{kinds[row % 7]}" for row in range(ROWS))]
    path = tmp_path_factory.mktemp("fer_plus") / "fer2013new.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def run_script(
    script: str, *args: object, timeout: float = 300, **environment: str
) -> subprocess.CompletedProcess:
    """Runs a script of the project as a person would; returns its exit code and output."""
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
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
