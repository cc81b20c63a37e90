"""Preprocessing: from the pixels of an image to the input of a network.

Computes the same as torchvision's `v2.Compose([Grayscale, Resize, ToDtype, Normalize])`, which a
test compares. To import torchvision would delay the first frame of the live program by seconds.
"""

import torch
from torch.nn import functional as F

from ferlab.constants import IMAGE_SIZE, MEAN, STD


def preprocess(pixels: torch.Tensor) -> torch.Tensor:
    """Returns the network's input, for prepared splits and for live faces.

    `ferlab.live.onnx_classifier.as_input` is the same for machines without torch; a test compares
    the two.

    Args:
        pixels: uint8 `(..., 1 or 3, H, W)`, RGB if 3, any size.

    Returns:
        float32 `(..., 1, 48, 48)` in [-1, 1].
    """
    if pixels.shape[-3] == 3:  # luma of ITU-R BT.601, rounded down
        red, green, blue = pixels.unbind(-3)
        gray = red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)
        pixels = gray.to(torch.uint8).unsqueeze(-3)
    shape = (*pixels.shape[:-2], IMAGE_SIZE, IMAGE_SIZE)
    if pixels.shape != shape:
        flat = pixels.reshape(-1, *pixels.shape[-3:])
        pixels = F.interpolate(flat, shape[-2:], mode="bilinear", antialias=True).reshape(shape)
    return pixels.to(torch.float32).mul_(1 / 255).sub_(MEAN).div_(STD)
