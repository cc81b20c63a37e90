"""The logits of a network, batch by batch, without gradients."""

import torch
from torch import nn

from ferlab.training.device import autocast
from ferlab.training.distributed import part_of, whole

BATCH = 128  # at 1024 the layers' outputs exceed the caches: a third slower on a CPU
GPU_BATCH = 1024  # a smaller batch leaves a GPU idle


def batch_of(device: torch.device) -> int:
    """Returns how many faces a network is best asked about at once, where no gradient is needed."""
    return GPU_BATCH if device.type == "cuda" else BATCH


@torch.inference_mode()
def predict_views(
    model: nn.Module, images: torch.Tensor, precision: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the network's logits of the images and of their mirror images.

    Of several processes each computes a part, and all get the whole.

    Args:
        model: the network; is put in eval mode.
        images: float32 `(N, 1, 48, 48)` in [-1, 1], on the network's device.
        precision: of the computation.

    Returns:
        Twice float32 `(N, classes)`; the first is what the live program computes.
    """
    model.eval()
    part = part_of(len(images))
    plain, mirrored = [], []
    for batch in images[part].split(batch_of(images.device)):
        with autocast(batch.device, precision):
            plain.append(model(batch).float())
            mirrored.append(model(batch.flip(-1)).float())
    return whole(torch.cat(plain), len(images)), whole(torch.cat(mirrored), len(images))


def predict_logits(
    model: nn.Module, images: torch.Tensor, precision: torch.dtype = torch.float32
) -> torch.Tensor:
    """Returns `predict_views` averaged: float32 `(N, classes)`; same arguments."""
    plain, mirrored = predict_views(model, images, precision)
    return (plain + mirrored) / 2
