"""The settings of a training run, its targets and its learning rate schedule."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ferlab.constants import IMAGE_SIZE
from ferlab.data.splits import Split
from ferlab.files import UserError


@dataclass(frozen=True)
class Recipe:
    """The settings that determine a training run, next to the model and the data.

    Attributes:
        epochs: passes over the train split.
        batch_size: images in a step.
        lr: peak learning rate.
        weight_decay: decay of matrices and filters; biases and norms have none.
        optimizer: "sgd" (Nesterov momentum 0.9), "adamw", or "muon": Muon for the filters and
            SGD, without weight decay, for the rest.
        targets: "labels", or "votes": the distribution of the raters' votes.
        warmup: fraction of the steps in which the learning rate rises to its peak; it then falls
            linearly to zero.
        label_smoothing: probability that the targets spread over all classes (arXiv 1512.00567);
            votes are distributions already and are not smoothed.
        ema_epochs: horizon of the exponential moving average (EMA) of the weights, in epochs; 0
            for none.
        clip: largest norm of the gradient; 0 for no limit.
        low_resolution: height and width of the images in the low-resolution epochs (progressive
            resizing), where a step takes a fraction of the time; needs augmentation.
        low_resolution_fraction: fraction of the epochs, the first ones, at `low_resolution`; none
            of them counts as best.
        augmentation: fields of `Augmentation`, or None for no augmentation.
        class_weights: "none", or "balanced": a class has weight n / (classes * its count).
        oversample: draws images so that every class is seen equally often.
        frozen_epochs: epochs, the first ones, in which only the new layers of a pretrained network
            are trained; they have a schedule of their own.
        frozen_lr: peak learning rate in those.
        precision: "float32" or "bfloat16", of the forward and backward pass and of Muon.
        seed: seed of weights, order, augmentation and dropout.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: str
    targets: str = "labels"
    warmup: float = 0.1
    label_smoothing: float = 0.0
    ema_epochs: float = 0.0
    clip: float = 0.0
    low_resolution: int = IMAGE_SIZE
    low_resolution_fraction: float = 0.0
    augmentation: dict | None = None
    class_weights: str = "none"
    oversample: bool = False
    frozen_epochs: int = 0
    frozen_lr: float = 0.0
    precision: str = "float32"
    seed: int = 0


def target_distribution(split: Split, targets: str) -> torch.Tensor:
    """Returns the distribution that each image has as target: float32 `(N, classes)`.

    Rows sum to 1, or to 0 for images without votes, if `targets` are votes.
    """
    if targets == "labels":
        return F.one_hot(split.labels, len(split.class_names)).float()
    return split.votes


def require_targets(split: Split, targets: str) -> None:
    """Checks that a split can be trained on or judged by `targets`, "labels" or "votes".

    Raises:
        UserError: the targets are votes, and the split has none, or no majority to choose by.
    """
    if targets == "votes" and (split.votes is None or not (split.majority >= 0).any()):
        raise UserError(
            "--targets votes: the splits have no votes; leave it out, or add those of FER2013 "
            "with: python download_dataset.py and: python dataset_preparation.py"
        )


def rows_and_targets(split: Split, targets: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the rows of the images that have a target, and the targets of all images.

    Args:
        split: N images.
        targets: "labels", which all have, or "votes".

    Returns:
        int64 `(n,)`, ascending; and float32 `(N, classes)`, see `target_distribution`.

    Raises:
        UserError: as `require_targets`.
    """
    require_targets(split, targets)
    distribution = target_distribution(split, targets)
    return distribution.sum(1).nonzero().squeeze(1), distribution


def expected_class(split: Split, targets: str) -> torch.Tensor:
    """Returns the class that counts as correct by the targets: int64 `(N,)`, -1 for none."""
    return split.labels if targets == "labels" else split.majority


def schedule(recipe: Recipe, steps_an_epoch: int) -> Callable[[int], float]:
    """Returns the factor of `recipe.lr` as a function of the step, frozen epochs included."""
    frozen = recipe.frozen_epochs * steps_an_epoch
    steps = recipe.epochs * steps_an_epoch - frozen
    later = learning_rate_factor(steps, recipe.warmup)
    first = learning_rate_factor(frozen, recipe.warmup)

    def factor(step: int) -> float:
        if step < frozen:
            return recipe.frozen_lr / recipe.lr * first(step)
        return later(step - frozen)

    return factor


def learning_rate_factor(steps: int, warmup: float) -> Callable[[int], float]:
    """Returns the learning rate's factor as a function of the step: linear up, then down."""
    rise = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return max(0.0, 1 - (step - rise) / max(1, steps - rise))

    return factor
