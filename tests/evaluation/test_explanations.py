"""What a model sees: contributions, Grad-CAM, shifts, disturbances, and the script's files."""

import itertools
import sys

import cv2
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import explain_models
from advanced_network import CNN
from conftest import refused
from ferlab import stage
from ferlab.evaluation import explanations as explain
from ferlab.evaluation.disturbances import DISTURBANCES, shift
from ferlab.evaluation.explanations import cams, contributions, correlation, occlusion
from ferlab.evaluation.grad_cam import LEAST_MAP, halves, scaled
from model_runs import run
from softmax import SoftmaxRegression

PATCH = (slice(30, 38), slice(6, 14))  # rows and columns: decides the class of `patched`


def patched(count):
    """Returns noise images with a striped patch, and the class: the direction of the stripes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 1, 48, 48, generator=generator).mul(0.2).clamp(-1, 1)
    labels = torch.arange(count) % 2
    stripes = (torch.arange(8) % 4 < 2).float().mul(1.8).sub(0.9).expand(8, 8)
    images[labels == 0, :, PATCH[0], PATCH[1]] = stripes
    images[labels == 1, :, PATCH[0], PATCH[1]] = stripes.T
    return images, labels


@pytest.fixture(scope="module")
def patch_network():
    """A CNN that has learned the patch."""
    pytest.importorskip("captum", reason="captum is not installed")
    torch.manual_seed(0)
    model = CNN(2, widths=(8, 16), blocks=1)
    images, labels = patched(64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    assert (explain.predictions(model, images) == labels).all()
    return model


def test_contributions_sum_to_the_logit():
    model = SoftmaxRegression(3)
    nn.init.normal_(model.linear.weight)
    images, classes = torch.rand(4, 1, 48, 48), torch.tensor([0, 2, 1, 1])
    sums = contributions(model.linear, images, classes).sum((1, 2)) + model.linear.bias[classes]
    expected = model(images)[torch.arange(4), classes]
    assert torch.allclose(sums, expected, atol=1e-3)


def test_maps_find_the_patch_that_decides(patch_network):
    images, labels = patched(16)
    for maps in (cams(patch_network, images, labels), occlusion(patch_network, images, labels)):
        assert maps.shape == (len(images), 48, 48) and maps.min() >= 0 and maps.max() <= 1
        outside = maps.clone()
        outside[:, 24:44, :20] = 0  # the layer's pixels are 4 of the image wide
        inside = maps[:, PATCH[0], PATCH[1]].mean((1, 2))
        assert (inside > 3 * outside.sum((1, 2)) / (48 * 48 - 400)).all()


@pytest.mark.parametrize("widths", [(8, 16), (8, 16, 16, 16)], ids=["before the head", "inside"])
def test_grad_cam_is_that_of_captum(widths):
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    torch.manual_seed(0)
    model = CNN(3, widths=widths, blocks=1).eval()
    images, classes = torch.rand(5, 1, 48, 48) * 2 - 1, torch.tensor([0, 2, 1, 1, 0])
    block = halves(model)[0][-1]
    found = attr.LayerGradCam(model, block).attribute(images, classes, relu_attributions=True)
    assert found.shape[-1] >= LEAST_MAP
    expected = F.interpolate(found, 48, mode="bilinear", align_corners=False)[:, 0].detach()
    assert torch.allclose(cams(model, images, classes), scaled(expected), atol=1e-5)


def test_grad_cam_depends_on_the_weights(patch_network):
    images, labels = patched(16)
    torch.manual_seed(1)
    random = CNN(2, widths=(8, 16), blocks=1).eval()
    maps = [cams(model, images, labels) for model in (patch_network, random)]
    assert correlation(*maps) < 0.5 and correlation(maps[0], maps[0]) == pytest.approx(1)


class Brightest(nn.Module):
    """A network that is invariant to shifts: whether some pixel is bright."""

    def forward(self, images):
        highest = images.amax((1, 2, 3))
        return torch.stack([highest, 0.5 - highest], 1)


class Centre(nn.Module):
    """A network that sees a single pixel."""

    def forward(self, images):
        pixel = images[:, 0, 24, 24]
        return torch.stack([pixel, -pixel], 1)


def test_shifts_change_nothing_for_a_network_that_is_invariant_to_them():
    images = torch.full((6, 1, 48, 48), -0.5)
    images[:, :, 24, 24] = torch.tensor([1.0, 0.2, 0.9, 0.1, 0.8, 0.7])[:, None]
    assert explain.changed_by_shift(Brightest(), images) == [0] * len(explain.SHIFTS)
    changed = explain.changed_by_shift(Centre(), images)
    assert changed[0] == 0 and changed[1:] == [1] * (len(explain.SHIFTS) - 1)


def test_shift_moves_by_rows_and_columns():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert shift(image, 1, 0, 1)[0, 0, 0].tolist() == [0, 0, 1, 2]
    assert shift(image, 1, 1, 0)[0, 0, :, 0].tolist() == [0, 0, 4, 8]
    assert torch.equal(shift(image, 0, 1, 0), image)


@pytest.mark.parametrize("disturbance", DISTURBANCES, ids=lambda d: d.name)
def test_disturbances_grow_with_their_strength(disturbance):
    rows = torch.linspace(-0.9, 0.9, 48)
    noise = torch.rand(8, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    image = 0.9 * rows[:, None] * torch.cos(2 * rows)[None] + 0.1 * noise - 0.05
    distances = []
    for strength in disturbance.strengths:
        found = disturbance.apply(image, strength)
        assert found.shape == image.shape and found.dtype == torch.float32
        assert found.min() >= -1 and found.max() <= 1
        assert torch.equal(found, disturbance.apply(image, strength))
        distances.append(float((found - image).abs().mean()))
    assert distances[0] < 0.01
    assert all(low < high for low, high in itertools.pairwise(distances))


def test_reliability_counts_bins():
    probs = torch.tensor([[0.95, 0.05]] * 20 + [[0.55, 0.45]] * 12 + [[0.75, 0.25]] * 9).numpy()
    correct = torch.tensor([1.0] * 19 + [0.0] + [0.5] * 12 + [1.0] * 9).numpy()
    points = explain.reliability(probs, correct)
    assert [n for _, _, n in points] == [12, 20]  # nine are too few for a point
    assert points[1][:2] == (pytest.approx(0.95), pytest.approx(0.95))


# -- the script --------------------------------------------------------------------------------

PICTURES = ("softmax", "mlp", "shift", "cnn", "cnn_mean", "cnn_channels", "robustness")


def require_whole_pictures(folder):
    """Checks that no picture is blank, or cut off at the edge."""
    for path in folder.glob("explain_*.png"):
        pixels = cv2.imread(str(path), 0)
        assert (pixels < 200).mean() > 0.01, path
        assert min(pixels[[0, -1]].min(), pixels[:, [0, -1]].min()) == 255, path


def test_the_script_draws_every_picture(votes_dir, tmp_path):
    pytest.importorskip("captum", reason="captum is not installed")
    args = ["--data-dir", votes_dir, "--results-dir", tmp_path, "--targets", "votes"]
    for name in ("softmax", "basic_nn", "advanced"):
        assert run(name, *args) == 0
    assert explain_models.main([*map(str, args), "--quiet"]) == 0
    drawn = {path.name for path in tmp_path.glob("explain_*.png")}
    assert drawn == {f"explain_{name}.png" for name in (*PICTURES, "confidence", "disagreements")}
    require_whole_pictures(tmp_path)
    text = (tmp_path / "explain.txt").read_text()
    for title in ("softmax regression", "MLP", "CNN"):
        assert text.count(title) > 10
    assert "Fraction of predictions that a shift changes" in text
    assert "Accuracy on disturbed test images, by the raters' majority" in text


def test_one_model_and_no_votes(data_dir, tmp_path, monkeypatch, capsys):
    pytest.importorskip("captum", reason="captum is not installed")
    monkeypatch.setattr(stage, "REFERENCE_DIR", tmp_path / "none")
    args = ["--data-dir", data_dir, "--results-dir", tmp_path]
    assert run("softmax", *args) == 0
    assert explain_models.main([*map(str, args), "--quiet"]) == 0
    drawn = {path.name for path in tmp_path.glob("explain_*.png")}
    assert drawn == {f"explain_{n}.png" for n in ("softmax", "shift", "robustness", "confidence")}
    require_whole_pictures(tmp_path)
    assert "by the labels, one view" in (tmp_path / "explain.txt").read_text()

    own = tmp_path / "softmax_model.pth"
    torch.save(torch.load(own) | {"class_names": list("abcdefg")}, own)
    monkeypatch.undo()
    line = refused(capsys, explain_models, *args)
    assert f"advanced_model.pth has other classes than {own}" in line, "the shipped CNN's"
    assert line.endswith(f"with: python advanced_network.py {' '.join(map(str, args))}")


def test_models_that_are_missing(data_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stage, "REFERENCE_DIR", tmp_path / "none")
    args = ["--data-dir", data_dir, "--results-dir", tmp_path / "none"]
    command = f"python softmax.py {' '.join(map(str, args))}"
    assert refused(capsys, explain_models, *args).endswith(f"; train a model with: {command}")
    (tmp_path / "none" / "softmax_model.pth").write_text("damaged")
    assert refused(capsys, explain_models, *args).endswith(f"; train it with: {command}")


def test_missing_captum_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "captum", None)
    assert "pip install captum" in refused(capsys, explain_models, "--results-dir", tmp_path)
