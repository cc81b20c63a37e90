"""What a model sees: weights as images, Grad-CAM, occlusion, activations, shifts, robustness.

Images are float32 `(N, 1, 48, 48)` in [-1, 1].
"""

import numpy as np
import torch
from torch import nn

from ferlab.constants import IMAGE_SIZE
from ferlab.data.splits import Split
from ferlab.evaluation.calibration import bin_of
from ferlab.evaluation.disturbances import DIRECTIONS, DISTURBANCES, shift
from ferlab.evaluation.grad_cam import grad_cam, halves, scaled
from ferlab.evaluation.metrics import accuracy_of
from ferlab.training.prediction import BATCH
from ferlab.training.recipe import expected_class

WINDOW, STRIDE = 8, 4  # of the occlusion, pixels
SHIFTS = range(7)  # pixels
BINS = 10  # of the reliability diagram: equal ranges of confidence


@torch.inference_mode()
def predictions(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Returns the predicted classes of one view, int64 `(N,)`."""
    return torch.cat([model(batch).argmax(1) for batch in images.split(BATCH)])


# -- softmax regression and MLP ----------------------------------------------------------------


def templates(linear: nn.Linear) -> torch.Tensor:
    """Returns the weights of a layer on pixels as images, float32 `(outputs, 48, 48)`."""
    return linear.weight.detach().view(-1, IMAGE_SIZE, IMAGE_SIZE)


def contributions(linear: nn.Linear, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Returns input times weight for a class of each image, float32 `(N, 48, 48)`.

    The sum over the pixels, plus the bias, is the logit of the class.
    """
    return images[:, 0] * templates(linear)[classes]


@torch.inference_mode()
def used_units(layers: nn.Sequential, images: torch.Tensor, count: int) -> tuple:
    """Returns the hidden units of an MLP's first layer that add most to the next layer.

    A unit's use is its mean activation times the norm of its outgoing weights.

    Args:
        layers: flatten, linear, batch norm, ReLU, dropout, linear, ...
        images: the images.
        count: number of units.

    Returns:
        The units' weights as images, float32 `(count, 48, 48)`, and their use as a fraction of the
        use of all, float32 `(count,)`; the most used first.
    """
    activations = torch.cat([layers[:4](batch) for batch in images.split(BATCH)])
    outgoing = next(layer for layer in layers[4:] if isinstance(layer, nn.Linear))
    use = activations.mean(0) * outgoing.weight.norm(dim=0)
    most = use.argsort(descending=True)[:count]
    signs = layers[2].weight[most].sign()[:, None, None]  # of the batch norm: may turn the image
    return templates(layers[1])[most] * signs, use[most] / use.sum()


def changed_by_shift(model: nn.Module, images: torch.Tensor) -> list[float]:
    """Returns, for each of SHIFTS, the fraction of predictions that a shift of the image changes.

    Each image is shifted in four directions; edge pixels are repeated.
    """
    before = predictions(model, images)
    result = []
    for pixels in SHIFTS:
        changed = [
            (predictions(model, shift(images, pixels, rows, columns)) != before).float().mean()
            for rows, columns in (DIRECTIONS if pixels else DIRECTIONS[:1])
        ]
        result.append(float(torch.stack(changed).mean()))
    return result


# -- CNN ---------------------------------------------------------------------------------------


def cams(model: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Returns Grad-CAM (see `grad_cam`) of a class of each image, float32 `(N, 48, 48)`."""
    first, rest = halves(model)
    maps = []
    for batch, targets in zip(images.split(BATCH), classes.split(BATCH), strict=True):
        with torch.no_grad():
            output = first(batch)
        maps.append(grad_cam(output, rest, targets))
    return torch.cat(maps)


def occlusion(model: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Returns how much the logit of a class drops where a grey square covers the image.

    Zeiler & Fergus 2014, arXiv 1311.2901.

    Returns:
        float32 `(N, 48, 48)`, from 0 to 1 in each image; a rise counts as 0.
    """
    from captum.attr import Occlusion

    method = Occlusion(model)
    maps = []
    with torch.inference_mode():
        for batch, targets in zip(images.split(BATCH), classes.split(BATCH), strict=True):
            window = (1, WINDOW, WINDOW)
            maps.append(method.attribute(batch, window, (1, STRIDE, STRIDE), target=targets)[:, 0])
    return scaled(torch.cat(maps).clamp(min=0))


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Returns the mean over the images of the correlation of two maps, `(N, H, W)` each."""
    pairs = torch.stack([one.flatten(1), other.flatten(1)], 1)
    values = [torch.corrcoef(pair)[0, 1] for pair in pairs]
    return float(torch.stack(values).nanmean())


@torch.inference_mode()
def strongest(layer_output, images: torch.Tensor, channels: int, count: int) -> tuple:
    """Returns the images to which channels of a layer respond most.

    Args:
        layer_output: maps images to the layer's output, `(N, C, H, W)`.
        images: the images.
        channels: number of channels: those whose maxima vary most, relative to their mean.
        count: number of images of each.

    Returns:
        int64 `(channels, count)`, rows of `images`, and int64 `(channels, count, 2)`, the row and
        column of the maximum, in pixels of the image.
    """
    highest, places = [], []
    for batch in images.split(BATCH):
        output = layer_output(batch)
        side = output.shape[-1]
        values, indices = output.flatten(2).max(2)
        highest.append(values)
        cell = images.shape[-1] / side
        rows = torch.stack([indices // side, indices % side], -1)
        places.append(((rows + 0.5) * cell).long())
    values, where = torch.cat(highest), torch.cat(places)
    variation = values.std(0) / values.mean(0).clamp(min=1e-6)
    chosen = variation.argsort(descending=True)[:channels]
    top = values[:, chosen].argsort(0, descending=True)[:count].T
    shown = [where[rows, channel] for rows, channel in zip(top, chosen, strict=True)]
    return top, torch.stack(shown)


# -- all models --------------------------------------------------------------------------------


def robustness(model: nn.Module, split: Split, targets: str) -> dict[str, list[dict]]:
    """Returns the accuracy by `targets` for each disturbance and strength.

    Returns:
        For each name of DISTURBANCES the entries of `metrics.accuracy_of`, one for each strength.
    """
    expected = expected_class(split, targets)
    images, expected = split.images[expected >= 0], expected[expected >= 0]
    undisturbed = predictions(model, images)
    result: dict[str, list[dict]] = {}
    for disturbance in DISTURBANCES:
        result[disturbance.name] = []
        for strength in disturbance.strengths:
            disturbed = disturbance.apply(images, strength)
            unchanged = torch.equal(disturbed, images)
            found = undisturbed if unchanged else predictions(model, disturbed)
            result[disturbance.name].append(
                accuracy_of(int((found == expected).sum()), len(expected))
            )
    return result


def reliability(probs: np.ndarray, correct: np.ndarray) -> list[tuple]:
    """Returns mean confidence, accuracy and number of images in each bin that has 10 or more.

    Args:
        probs: float `(N, classes)`, calibrated.
        correct: float `(N,)` in [0, 1]: whether, or to which fraction of the votes, the prediction
            is correct.
    """
    confidence = probs.max(1)
    places = bin_of(confidence, BINS)
    return [
        (float(confidence[chosen].mean()), float(correct[chosen].mean()), int(chosen.sum()))
        for number in range(BINS)
        if (chosen := places == number).sum() >= 10
    ]
