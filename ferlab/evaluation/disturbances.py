"""Disturbances of face images, from none to strong, to measure how robust a model is.

Every function takes images, float32 `(N, 1, 48, 48)` in [-1, 1], and a strength, and returns new
images of the same form. Equal arguments give equal results.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

EYES, MOUTH = 19, 37  # rows of a centred face of 48 pixels
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def shift(images: torch.Tensor, pixels: int, rows: int, columns: int) -> torch.Tensor:
    """Moves images by `pixels` times (rows, columns); edge pixels are repeated."""
    pad = F.pad(images, [pixels] * 4, mode="replicate") if pixels else images
    top, left = pixels - pixels * rows, pixels - pixels * columns
    return pad[..., top : top + images.shape[-2], left : left + images.shape[-1]]


def shifted(images: torch.Tensor, pixels: float) -> torch.Tensor:
    """Moves a quarter of the images each to the right, down, left and up."""
    result = torch.empty_like(images)
    for number, (rows, columns) in enumerate(DIRECTIONS):
        result[number::4] = shift(images[number::4], int(pixels), rows, columns)
    return result


def rotated(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """Rotates half of the images either way; edge pixels are repeated."""
    angle = torch.full((len(images),), math.radians(degrees))
    angle[1::2] *= -1
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def brightened(images: torch.Tensor, amount: float) -> torch.Tensor:
    """Adds `amount` of the grey scale to half of the images, and subtracts it from the others."""
    signs = torch.ones(len(images), 1, 1, 1)
    signs[1::2] = -1
    return (images + 2 * amount * signs).clamp(-1, 1)


def contrasted(images: torch.Tensor, loss: float) -> torch.Tensor:
    """Moves all pixels towards the image's mean: by `loss` of their distance."""
    return torch.lerp(images, images.mean((1, 2, 3), keepdim=True).expand_as(images), loss)


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blurs with a Gaussian of `sigma` pixels."""
    return gaussian_blur(images, 2 * math.ceil(3 * sigma) + 1, sigma) if sigma else images


def noisy(images: torch.Tensor, deviation: float) -> torch.Tensor:
    """Adds Gaussian noise; `deviation` is a fraction of the grey scale."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 2 * deviation * noise).clamp(-1, 1)


def compressed(images: torch.Tensor, quality: float) -> torch.Tensor:
    """Encodes as JPEG of `quality` (1 to 100) and decodes again."""
    levels = ((images + 1) * 127.5).round().to(torch.uint8).numpy()
    options = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    decoded = [cv2.imdecode(cv2.imencode(".jpg", level[0], options)[1], 0) for level in levels]
    return torch.from_numpy(np.stack(decoded))[:, None] / 127.5 - 1


def coarse(images: torch.Tensor, side: float) -> torch.Tensor:
    """Resizes to `side` pixels and back."""
    small = F.interpolate(images, size=int(side), mode="area")
    return F.interpolate(small, size=images.shape[-1], mode="bilinear", align_corners=False)


def covered(images: torch.Tensor, row: int, height: float) -> torch.Tensor:
    """Covers `height` rows around `row` with grey."""
    result = images.clone()
    top = max(0, row - int(height) // 2)
    result[..., top : top + int(height), :] = 0
    return result


@dataclass(frozen=True)
class Disturbance:
    """A kind of disturbance.

    Attributes:
        name: what the plot is called.
        unit: what the strengths are.
        strengths: from none to strong.
        apply: returns disturbed images.
    """

    name: str
    unit: str
    strengths: Sequence[float]
    apply: Callable[[torch.Tensor, float], torch.Tensor]


DISTURBANCES = (
    Disturbance("shift", "pixels", (0, 1, 2, 4, 6), shifted),
    Disturbance("rotation", "degrees", (0, 10, 20, 30, 45), rotated),
    Disturbance("brightness", "of the grey scale", (0, 0.1, 0.2, 0.3, 0.4), brightened),
    Disturbance("contrast", "lost", (0, 0.3, 0.6, 0.8, 0.9), contrasted),
    Disturbance("blur", "pixels, sigma", (0, 0.7, 1.2, 2, 3), blurred),
    Disturbance("noise", "of the grey scale", (0, 0.04, 0.08, 0.15, 0.25), noisy),
    Disturbance("JPEG", "quality", (100, 50, 20, 10, 5), compressed),
    Disturbance("resolution", "pixels", (48, 32, 24, 16, 10), coarse),
    Disturbance("eyes covered", "rows", (0, 4, 8, 12, 16), lambda i, h: covered(i, EYES, h)),
    Disturbance("mouth covered", "rows", (0, 4, 8, 12, 16), lambda i, h: covered(i, MOUTH, h)),
)
