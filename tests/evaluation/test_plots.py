"""The plots are whole PNG files that depend on the numbers and on nothing else."""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from ferlab.evaluation.plots import (
    plot_comparison,
    plot_confusion_matrices,
    plot_curves,
    plot_errors,
)
from ferlab.files import UserError

NAMES = ["angry", "disgust", "happy"]
MATRIX = np.array([[5, 1, 2], [0, 0, 0], [1, 0, 1234]])


def make_history(epochs, **last):
    history = [
        {
            "epoch": number,
            "train_loss": 2 / number,
            "val_loss": 1.8 / number,
            "train_accuracy": 1 - 0.7 / number,
            "val_accuracy": 1 - 0.6 / number,
        }
        for number in range(1, epochs + 1)
    ]
    history[-1].update(last)
    return history


def make_row(**changes):
    row = {"title": "MLP", "note": "5 parameters\ntrained in 3 s", "n": 1000, "accuracy": 0.5}
    row |= {"accuracy_interval": [0.47, 0.53], "majority_accuracy": 0.25}
    return row | changes


RATERS = {"n": 800, "accuracy": 0.6, "accuracy_interval": [0.57, 0.63], "majority_accuracy": 0.4}
NO_MAJORITY = np.full(40, -1)


def curves(path, epochs=3, best_epoch=3, title="MLP", **last):
    plot_curves(path, title, make_history(epochs, **last), best_epoch)


def confusion(path, matrix=MATRIX, title="MLP", judges=("by the labels",)):
    plot_confusion_matrices(path, title, dict.fromkeys(judges, matrix), NAMES)


def comparison(path, rows=None, split="test"):
    plot_comparison(path, split, rows or [make_row(), make_row(title="CNN")])


def errors(path, count=40, wrong=30, majority=None):
    rng = np.random.default_rng(0)
    labels = np.zeros(count, dtype=int)
    probs = np.full((count, 3), 0.1)
    probs[:, 0] = 0.8
    probs[:wrong] = probs[:wrong][:, [1, 0, 2]] * np.linspace(1, 0.7, wrong)[:, None]
    images = rng.uniform(-1, 1, (count, 48, 48))
    plot_errors(path, "CNN: the most confident errors", images, labels, probs, NAMES, majority)


@pytest.mark.parametrize("draw", [curves, confusion, comparison, errors])
def test_equal_numbers_give_equal_bytes_of_a_whole_image(tmp_path, draw):
    draw(tmp_path / "new" / "one.png")
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30}):
        draw(tmp_path / "new" / "two.png")
    one, two = (tmp_path / "new" / name for name in ("one.png", "two.png"))
    assert one.read_bytes() == two.read_bytes()
    assert sorted(one.parent.iterdir()) == [one, two]
    with Image.open(one) as image:
        assert image.format == "PNG"
        assert "Software" not in image.info  # would change with every version of matplotlib
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) > 200
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border == 255).all(), "something is cut off at the edge"


@functools.cache
def drawn(draw):
    """Returns the bytes of the plot of the usual numbers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "usual.png"
        draw(path)
        return path.read_bytes()


@pytest.mark.parametrize(
    ("draw", "changes"),
    [
        (curves, {"val_loss": 0.9}),
        (curves, {"train_accuracy": 0.5}),
        (curves, {"best_epoch": 2}),
        (curves, {"title": "CNN"}),
        (confusion, {"matrix": MATRIX + np.eye(3, dtype=int)}),
        (confusion, {"title": "CNN"}),
        (confusion, {"judges": ("by the labels", "by the raters")}),
        (errors, {"majority": NO_MAJORITY}),
        (comparison, {"rows": [make_row(raters=RATERS), make_row(title="CNN", raters=RATERS)]}),
        (comparison, {"rows": [make_row(majority_accuracy=0.3), make_row(title="CNN")]}),
        (comparison, {"split": "val"}),
        *(
            (comparison, {"rows": [make_row(), make_row(title="CNN", **change)]})
            for change in (
                {"accuracy": 0.52},
                {"accuracy_interval": [0.47, 0.55]},
                {"note": "6 parameters\ntrained in 3 s"},
            )
        ),
    ],
)
def test_a_changed_number_changes_the_plot(tmp_path, draw, changes):
    draw(tmp_path / "changed.png", **changes)
    assert (tmp_path / "changed.png").read_bytes() != drawn(draw)


def test_single_epoch_shows_a_point_for_train_and_val(tmp_path):
    curves(tmp_path / "curves.png", epochs=1, best_epoch=1, train_loss=2.5)
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)
    panels = pixels[pixels.shape[0] // 4 :]  # below the legend
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        near = np.abs(panels - colour).sum(2) < 10
        half = near.shape[1] // 2
        assert near[:, :half].any() and near[:, half:].any()


def test_a_class_without_images_is_drawn_without_warning(tmp_path):
    with np.errstate(all="raise"):
        confusion(tmp_path / "matrix.png", np.zeros((3, 3), int))
    assert (tmp_path / "matrix.png").stat().st_size > 0


@pytest.mark.parametrize(
    "row",
    [
        make_row(accuracy=1.0, accuracy_interval=[0.99, 1.0]),
        make_row(accuracy=0.0, accuracy_interval=[0.0, 0.01]),
    ],
)
def test_one_model_alone(tmp_path, row):
    comparison(tmp_path / "one.png", [row])
    comparison(tmp_path / "two.png", [row, row])
    heights = [Image.open(tmp_path / name).height for name in ("one.png", "two.png")]
    assert heights[0] < heights[1]


def test_settings_of_the_importing_program_stay_and_any_backend_may_be_named(tmp_path):
    program = """
import sys
from ferlab.evaluation.plots import plot_confusion_matrices
import matplotlib, numpy
settings = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != "backend"}
before = settings()
plot_confusion_matrices(sys.argv[1], "title", {"": numpy.eye(2, dtype=int)}, ["a", "b"])
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""
    command = [sys.executable, "-c", program, tmp_path / "plot.png"]
    environment = os.environ | {"MPLBACKEND": "module://not_installed"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "plot.png").exists()


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*plot\.png"):
        confusion(tmp_path / "file" / "plot.png")
