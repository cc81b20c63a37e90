"""Augmentation of whole batches, on the device that holds them."""

from dataclasses import asdict, dataclass, replace

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """The ranges of the augmentation; random numbers are drawn for each image.

    Attributes:
        flip: flips half of the images.
        rotation: largest rotation either way, degrees.
        translation: largest shift, as a fraction of the image's size.
        scale: largest change of size, as a fraction of it.
        brightness: largest shift of grey levels, on the [-1, 1] scale.
        contrast: largest change of contrast, as a fraction of it.
    """

    flip: bool = True
    rotation: float = 0.0
    translation: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def scaled(self, factor: float) -> "Augmentation":
        """Returns the augmentation with every range multiplied by `factor`; the flip stays."""
        ranges = {k: v * factor for k, v in asdict(self).items() if not isinstance(v, bool)}
        return replace(self, **ranges)

    def __call__(
        self,
        images: torch.Tensor,
        generator: torch.Generator,
        size: int | None = None,
        batch: int | None = None,
        start: int = 0,
    ) -> torch.Tensor:
        """Returns augmented copies of `images`.

        Random numbers are drawn for the whole batch, even if `images` is a shard of it: the shards
        of several processes are augmented as the batch of one process is.

        Args:
            images: float32 `(N, C, H, W)` in [-1, 1].
            generator: source of all random numbers, on the images' device.
            size: height and width of the copies; those of the images if None.
            batch: how many images the batch has; those given if None.
            start: index in the batch of the first of `images`.

        Returns:
            float32 `(N, C, size, size)` in [-1, 1].
        """
        count = batch or len(images)

        def uniform(*size: int) -> torch.Tensor:  # in [-1, 1)
            drawn = torch.rand(count, *size, generator=generator, device=images.device)
            return drawn[start : start + len(images)].mul_(2).sub_(1)

        images = self._move(images, uniform, size or images.shape[-1])
        if self.brightness or self.contrast:
            gain = 1 + self.contrast * uniform(1, 1, 1)
            images = torch.addcmul(self.brightness * uniform(1, 1, 1), images, gain).clamp_(-1, 1)
        return images

    def _move(self, images: torch.Tensor, uniform, size: int) -> torch.Tensor:
        """Flips, rotates, scales and shifts, in one bilinear sampling."""
        angle = torch.deg2rad(self.rotation * uniform())
        zoom = 1 + self.scale * uniform()
        shift = 2 * self.translation * uniform(2)  # the sampling grid spans [-1, 1]
        flip = uniform().sign() if self.flip else torch.ones_like(angle)
        still = not (self.rotation or self.translation or self.scale)
        if size == images.shape[-1] and still:
            return torch.where(flip.view(-1, 1, 1, 1) < 0, images.flip(-1), images)
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        matrix = torch.stack(
            [flip * cos, -sin, shift[:, 0], flip * sin, cos, shift[:, 1]], dim=1
        ).view(-1, 2, 3)
        grid = F.affine_grid(matrix, [*images.shape[:2], size, size], align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
