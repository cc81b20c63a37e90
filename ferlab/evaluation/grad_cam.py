"""Grad-CAM: which part of an image raises the logit of a class.

Selvaraju et al. 2017, arXiv 1610.02391. In torch alone, so that the live program needs no further
package; a test compares it with Captum's.
"""

import torch
from torch import nn
from torch.nn import functional as F

from ferlab.constants import IMAGE_SIZE

LEAST_MAP = 6  # side of the maps that are weighted, pixels: smaller ones show no place in the face


@torch.inference_mode()
def halves(model: nn.Module) -> tuple[nn.Sequential, nn.Sequential]:
    """Divides a CNN behind the last of its blocks whose maps have LEAST_MAP pixels a side.

    Args:
        model: `advanced_network.CNN`, float32, in eval mode.

    Returns:
        What maps images to the block's maps, and what maps those to logits; they share the layers
        of `model`.
    """
    maps, count = model.stem(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE)), 0
    for number, block in enumerate(model.stages, start=1):
        maps = block(maps)
        count = number if maps.shape[-1] >= LEAST_MAP else count
    blocks = list(model.stages)
    return (
        nn.Sequential(model.stem, *blocks[:count]),
        nn.Sequential(*blocks[count:], model.head),
    )


def grad_cam(maps: torch.Tensor, rest: nn.Module, classes: torch.Tensor) -> torch.Tensor:
    """Returns Grad-CAM of a class of each image.

    Args:
        maps: float32 `(N, C, H, W)`, what the first of `halves` returns.
        rest: the second of `halves`.
        classes: int64 `(N,)`.

    Returns:
        float32 `(N, 48, 48)`, from 0 to 1 in each image: where the maps raise the class's logit.
    """
    maps = maps.detach().requires_grad_()
    with torch.enable_grad():
        logits = rest(maps).gather(1, classes[:, None]).sum()
        (gradients,) = torch.autograd.grad(logits, maps)
    weights = gradients.mean((2, 3), keepdim=True)
    cams = F.relu((weights * maps.detach()).sum(1, keepdim=True))
    cams = F.interpolate(cams, IMAGE_SIZE, mode="bilinear", align_corners=False)
    return scaled(cams[:, 0])


def scaled(maps: torch.Tensor) -> torch.Tensor:
    """Divides each map, `(N, H, W)`, by its maximum."""
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)
