"""Optimizers, and the moving average of the weights."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ferlab.training.recipe import Recipe

REST_LR = 2.0  # SGD's learning rate beside Muon, as a multiple of Muon's
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of x, x^3, x^5
NEWTON_SCHULZ_STEPS = 5


class FilterMuon(torch.optim.Optimizer):
    """Muon for convolutions: each filter bank is updated as one matrix `(outputs, rest)`.

    Muon makes every update orthogonal, so that all directions of a layer are trained equally fast
    (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). The updates are those of
    `torch.optim.Muon`, which takes matrices alone and computes in bfloat16 on every machine: on a
    CPU without bfloat16 instructions that takes longer than the network itself.

    Args:
        banks: weights `(outputs, inputs, height, width)` in channels_last memory.
        lr: learning rate.
        weight_decay: decoupled, times the learning rate.
        dtype: number format of the Newton-Schulz steps.
        momentum: Nesterov momentum.
    """

    def __init__(
        self,
        banks: list[nn.Parameter],
        lr: float,
        weight_decay: float,
        dtype: torch.dtype,
        momentum: float = 0.95,
    ):
        self.dtype = dtype
        super().__init__(banks, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

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
                update = orthogonal(gradient.lerp(average, group["momentum"]).to(self.dtype))
                scale = math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Brings the singular values of `matrix`, `(M, N)`, near to 1 by Newton-Schulz steps.

    Five steps bring all but the least of them to 0.68 to 1.21 (quintic and coefficients: Jordan et
    al.).
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T  # the products are of the shorter side
    a, b, c = NEWTON_SCHULZ
    matrix = matrix / matrix.norm().clamp(min=1e-7)  # no singular value is above 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = matrix @ matrix.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        matrix = torch.addmm(matrix, polynomial, matrix, beta=a)
    return matrix


def _as_matrix(bank: torch.Tensor) -> torch.Tensor:
    """Views `(O, I, H, W)` in channels_last memory as `(O, H * W * I)`."""
    return bank.permute(0, 2, 3, 1).flatten(1)


def build_optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Returns the optimizers that together train `model`, whose memory is channels_last.

    With SGD or AdamW, parameters of two or more dimensions have weight decay.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if recipe.optimizer == "muon":
        banks = [p for p in parameters if p.ndim == 4 and p.shape[1] > 1]
        taken = {id(bank) for bank in banks}
        rest = [p for p in parameters if id(p) not in taken]
        dtype = getattr(torch, recipe.precision)
        return [
            FilterMuon(banks, lr=recipe.lr, weight_decay=recipe.weight_decay, dtype=dtype),
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


def averaging_decay(horizon: float) -> Callable[[int], float]:
    """Returns the decay of an EMA with a horizon of `horizon` steps, as a function of the update.

    Updates are counted from 0; the first ones decay faster, so that the initial weights are soon
    forgotten.
    """

    def decay(update: int) -> float:
        return min(1 - 1 / max(1.0, horizon), (1 + update) / (10 + update))

    return decay


def moving_average(decay: Callable[[int], float]) -> Callable:
    """Returns the update of an EMA, for `AveragedModel`."""

    def update(averaged: list[torch.Tensor], current: list[torch.Tensor], count) -> None:
        get_ema_multi_avg_fn(decay(int(count)))(averaged, current, count)

    return update
