"""The logits of a network, batch by batch, without gradients."""

import numpy as np
import torch
from torch import nn

from ferlab.training.device import autocast
from ferlab.training.distributed import all_gathered, shard_of

BATCH = 128  # at 1024 the layers' outputs exceed the caches: a third slower on a CPU
GPU_BATCH = 1024  # a smaller batch leaves a GPU idle


def batch_of(device: torch.device) -> int:
    """Returns the batch size at which prediction, without gradients, is fastest."""
    return GPU_BATCH if device.type == "cuda" else BATCH


@torch.inference_mode()
def predict_views(
    model: nn.Module, images: torch.Tensor, precision: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the network's logits of the images and of their mirror images.

    Several processes compute a shard each, and all get the result.

    Args:
        model: the network; is put in eval mode.
        images: float32 `(N, 1, 48, 48)` in [-1, 1], on the network's device.
        precision: of the computation.

    Returns:
        Twice float32 `(N, classes)`; the first is what the live program computes.
    """
    model.eval()
    shard = shard_of(len(images))
    plain, mirrored = [], []
    for batch in images[shard].split(batch_of(images.device)):
        with autocast(batch.device, precision):
            plain.append(model(batch).float())
            mirrored.append(model(batch.flip(-1)).float())
    return tuple(all_gathered(torch.cat(each), len(images)) for each in (plain, mirrored))


def predict_logits(
    model: nn.Module, images: torch.Tensor, precision: torch.dtype = torch.float32
) -> torch.Tensor:
    """Returns `predict_views` averaged: float32 `(N, classes)`; same arguments."""
    plain, mirrored = predict_views(model, images, precision)
    return (plain + mirrored) / 2


def predict_members(
    members: list[tuple[nn.Module, float]], images: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean probabilities of one network or several.

    Args:
        members: each network with its temperature.
        images: float32 `(N, 1, 48, 48)` in [-1, 1], on the device to compute on.

    Returns:
        Three times float32 `(N, classes)`: of logits averaged over two views, which is what is
        reported; of the plain view alone, which is what the live program sees; and of that view
        with each network's logits divided by its temperature.
    """
    sums: list[torch.Tensor] = []
    for model, temperature in members:
        model = model.to(images.device, memory_format=torch.channels_last)
        plain, mirrored = predict_views(model, images)
        logits = ((plain + mirrored) / 2, plain, plain / temperature)
        probs = [each.softmax(1) for each in logits]
        sums = [a + b for a, b in zip(sums, probs, strict=True)] if sums else probs
    reported, live, calibrated = ((each / len(members)).cpu().numpy() for each in sums)
    return reported, live, calibrated
