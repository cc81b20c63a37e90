"""What decides a training run, and the parts of the loop that follow from it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ferlab.data.splits import IMAGE_SIZE

REST_LR = 2.0  # SGD's learning rate beside Muon's
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of x, x^3, x^5


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes, next to the model and the data.

    Attributes:
        epochs: passes over the train split.
        batch_size: images a step.
        lr: peak learning rate.
        weight_decay: of matrices and filters; biases and norms have none.
        optimizer: "sgd" (Nesterov momentum 0.9), "adamw", or "muon": Muon for the filters and
            SGD, without weight decay, for the rest.
        muon_steps: Newton-Schulz steps that make an update of Muon's orthogonal; it need not be
            exactly so (https://github.com/KellerJordan/cifar10-airbench takes three).
        warmup: share of the steps in which the learning rate rises to its peak.
        decay: how it then falls to zero: along a "cosine" (arXiv 1608.03983) or "linear"; with
            "none" it stays at its peak.
        label_smoothing: probability spread over all classes.
        ema_epochs: horizon of the moving average of the weights, in epochs; 0 for none.
        clip: largest norm of the gradient; 0 for no limit.
        small_size: height and width of the faces in the first epochs (progressive resizing), where
            a step costs a fraction of a full one; needs augmentation.
        small_share: share of the epochs trained at `small_size`; none of them counts as best.
        augmentation: fields of `Augmentation`, or None for no augmentation.
        still_share: share of the epochs, the last ones, in which faces are mirrored but not moved
            otherwise: moving blurs them, and those asked about later are sharp.
        mixup: how strongly faces are mixed in pairs, their labels with them: the parameter of the
            beta distribution of the shares (arXiv 1710.09412); 0 for no mixing.
        cutmix: the same of faces that get a rectangle of another's (arXiv 1905.04899); where both
            are asked for, chance picks one for each step.
        soft_labels: file of the teachers' probabilities (see `distillation`), or None.
        soft_share: their weight in what is learned; the labels have the rest.
        left_out: part of the train split that is not learned, such as "2/5", or None: of it the
            network can then give soft labels that it has not learned by heart.
        self_share: weight, in what is learned, of what the averaged weights think of the same
            augmented faces (arXiv 1703.01780); all else has the rest.
        self_start: share of the epochs before they are asked.
        class_weights: "none", or "balanced": a class weighs n / (classes * its count).
        oversample: draws images so that every class is seen equally often.
        frozen_epochs: epochs, the first ones, in which only the new layers of a pretrained network
            learn; they have a schedule of their own.
        frozen_lr: peak learning rate in those.
        precision: "float32" or "bfloat16", of the forward and backward pass and of Newton-Schulz.
        seed: of weights, order, augmentation and dropout.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: str
    muon_steps: int = 5
    warmup: float = 0.1
    decay: str = "cosine"
    label_smoothing: float = 0.0
    ema_epochs: float = 0.0
    clip: float = 0.0
    small_size: int = IMAGE_SIZE
    small_share: float = 0.0
    augmentation: dict | None = None
    still_share: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    soft_labels: str | None = None
    soft_share: float = 0.0
    left_out: str | None = None
    self_share: float = 0.0
    self_start: float = 0.0
    class_weights: str = "none"
    oversample: bool = False
    frozen_epochs: int = 0
    frozen_lr: float = 0.0
    precision: str = "float32"
    seed: int = 0


class FilterMuon(torch.optim.Optimizer):
    """Muon for convolutions: each filter bank is updated as one matrix `(outputs, rest)`.

    Muon makes every step orthogonal, so that all directions of a layer learn equally fast
    (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). The updates are those of
    `torch.optim.Muon`, which computes them in bfloat16 on any machine; a CPU without instructions
    for it then spends more time on them than on the network.

    Args:
        banks: weights `(outputs, inputs, height, width)` in channels_last memory.
        lr: learning rate.
        weight_decay: decoupled, times the learning rate.
        ns_steps: of Newton-Schulz.
        dtype: in which these are computed.
        momentum: of Nesterov's kind.
    """

    def __init__(
        self,
        banks: list[nn.Parameter],
        lr: float,
        weight_decay: float,
        ns_steps: int,
        dtype: torch.dtype,
        momentum: float = 0.95,
    ):
        self.dtype = dtype
        options = {"weight_decay": weight_decay, "ns_steps": ns_steps, "momentum": momentum}
        super().__init__(banks, {"lr": lr, **options})

    @torch.no_grad()
    def step(self) -> None:
        """Updates the banks that have a gradient."""
        for group in self.param_groups:
            for bank in group["params"]:
                if bank.grad is None:
                    continue
                matrix, gradient = _as_matrix(bank), _as_matrix(bank.grad)
                if "momentum_buffer" not in self.state[bank]:
                    self.state[bank]["momentum_buffer"] = torch.zeros_like(matrix)
                average = self.state[bank]["momentum_buffer"]
                average.lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(average, group["momentum"]).to(self.dtype)
                update = orthogonal(update, group["ns_steps"])
                scale = math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix: torch.Tensor, steps: int) -> torch.Tensor:
    """Brings the singular values of `matrix`, `(M, N)`, near to 1, by steps of Newton-Schulz.

    Five bring all but the least of them to 0.68 to 1.21 (quintic and coefficients: Jordan et al.).
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T, steps).T  # the products are of the shorter side
    a, b, c = NEWTON_SCHULZ
    matrix = matrix / matrix.norm().clamp(min=1e-7)  # no singular value is above 1
    for _ in range(steps):
        gram = matrix @ matrix.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        matrix = torch.addmm(matrix, polynomial, matrix, beta=a)
    return matrix


def _as_matrix(bank: torch.Tensor) -> torch.Tensor:
    """Views `(O, I, H, W)` in channels_last memory as `(O, H * W * I)`."""
    return bank.permute(0, 2, 3, 1).flatten(1)


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Returns the optimizers that together train `model`, whose memory is channels_last.

    Of the parameters that SGD or AdamW trains alone, those of two and more dimensions decay.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "muon":
        banks = [p for p in parameters if p.ndim == 4 and p.shape[1] > 1]
        taken = {id(bank) for bank in banks}
        rest = [p for p in parameters if id(p) not in taken]
        return [
            FilterMuon(
                banks,
                lr=recipe.lr,
                weight_decay=recipe.weight_decay,
                ns_steps=recipe.muon_steps,
                dtype=getattr(torch, recipe.precision),
            ),
            torch.optim.SGD(rest, lr=REST_LR * recipe.lr, momentum=0.9, nesterov=True),
        ]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        on_gpu = parameters[0].device.type == "cuda"
        return [torch.optim.AdamW(groups, lr=recipe.lr, capturable=on_gpu)]
    return [torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)]


def schedule(recipe: Recipe, steps_an_epoch: int) -> Callable[[int], float]:
    """Returns the factor of `recipe.lr` as a function of the step, frozen epochs included."""
    frozen = recipe.frozen_epochs * steps_an_epoch
    steps = recipe.epochs * steps_an_epoch - frozen
    later = learning_rate_factor(steps, recipe.warmup, recipe.decay)
    first = learning_rate_factor(frozen, recipe.warmup, recipe.decay)

    def factor(step: int) -> float:
        if step < frozen:
            return recipe.frozen_lr / recipe.lr * first(step)
        return later(step - frozen)

    return factor


def learning_rate_factor(
    steps: int, warmup: float, decay: str = "cosine"
) -> Callable[[int], float]:
    """Returns the learning rate's factor as a function of the step: linear up, then `decay`."""
    rise = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        fallen = min(1.0, (step - rise) / max(1, steps - rise))
        if decay == "cosine":
            return 0.5 * (1 + math.cos(math.pi * fallen))
        return 1 - fallen if decay == "linear" else 1.0

    return factor


def averaging_decay(horizon: float) -> Callable[[int], float]:
    """Returns how much of a moving average of `horizon` steps stays in an update, by its age.

    The age is counted in updates before; a young average forgets sooner.
    """

    def decay(age: int) -> float:
        return min(1 - 1 / max(1.0, horizon), (1 + age) / (10 + age))

    return decay


def moving_average(decay: Callable[[int], float]) -> Callable:
    """Returns the update of a moving average, for `AveragedModel`."""

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], count) -> None:
        get_ema_multi_avg_fn(decay(int(count)))(averaged, current, count)

    return update
