"""The logits of a network, batch by batch, without gradients."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ferlab.training.device import autocast
from ferlab.training.distributed import all_gathered, shard_of
from ferlab.training.streaming import is_streamed, stream

BATCH = 128  # at 1024 the layers' outputs exceed the caches: a third slower on a CPU
GPU_BATCH = 1024  # a smaller batch leaves a GPU idle


def batch_of(device: torch.device) -> int:
    """Returns the batch size at which prediction, without gradients, is fastest."""
    return GPU_BATCH if device.type == "cuda" else BATCH


def batches_of(images: torch.Tensor, device: torch.device) -> Iterator[torch.Tensor]:
    """Yields images in batches on `device`, in order; a batch is valid until the next one."""
    size = max(1, min(batch_of(device), len(images)))
    if not is_streamed(images, device):
        return iter(images.split(size))
    target = torch.empty(size, *images.shape[1:], dtype=images.dtype, device=device)
    return stream(images, torch.arange(len(images)).split(size), target)


@torch.inference_mode()
def predict_views(
    model: nn.Module,
    images: torch.Tensor,
    precision: torch.dtype = torch.float32,
    device: torch.device | None = None,
    size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the network's logits of the images and of their mirror images.

    Several processes compute a shard each, and all get the result.

    Args:
        model: the network; is put in eval mode.
        images: float32 `(N, 1, 48, 48)` in [-1, 1], on the CPU or on the network's device.
        precision: of the computation.
        device: the network's device; None: that of the images.
        size: height and width to which the images are resized; None: as they are.

    Returns:
        Twice float32 `(N, classes)`; the first is what the live program computes.
    """
    model.eval()
    device = device or images.device
    plain, mirrored = [], []
    for batch in batches_of(images[shard_of(len(images))], device):
        if size:
            batch = F.interpolate(batch, size, mode="bilinear", align_corners=False)
        with autocast(device, precision):
            plain.append(model(batch).float())
            mirrored.append(model(batch.flip(-1)).float())
    return tuple(all_gathered(torch.cat(each), len(images)) for each in (plain, mirrored))


def predict_logits(model: nn.Module, images: torch.Tensor, *args, **options) -> torch.Tensor:
    """Returns `predict_views` averaged: float32 `(N, classes)`; same arguments."""
    plain, mirrored = predict_views(model, images, *args, **options)
    return (plain + mirrored) / 2


def predict_members(
    members: list[tuple[nn.Module, float]],
    images: torch.Tensor,
    device: torch.device | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean probabilities of one network or several.

    Args:
        members: each network with its temperature.
        images: float32 `(N, 1, 48, 48)` in [-1, 1], on the CPU or on the device to compute on.
        device: to compute on; None: that of the images.

    Returns:
        Three times float32 `(N, classes)`: of logits averaged over two views, which is what is
        reported; of the plain view alone, which is what the live program sees; and of that view
        with each network's logits divided by its temperature.
    """
    device, sums = device or images.device, []
    for model, temperature in members:
        model = model.to(device, memory_format=torch.channels_last)
        plain, mirrored = predict_views(model, images, device=device)
        logits = ((plain + mirrored) / 2, plain, plain / temperature)
        probs = [each.softmax(1) for each in logits]
        sums = [a + b for a, b in zip(sums, probs, strict=True)] if sums else probs
    reported, live, calibrated = ((each / len(members)).cpu().numpy() for each in sums)
    return reported, live, calibrated
