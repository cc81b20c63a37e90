"""Augmentation of whole batches, on the device that holds them."""

import math
from dataclasses import asdict, dataclass, replace

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """How strongly faces are varied; every number is drawn anew for each image.

    Attributes:
        flip: mirrors half of the images.
        rotation: largest turn, degrees either way.
        translation: largest shift, as a share of the image's size.
        scale: largest change of size, as a share of it.
        brightness: largest shift of grey levels, on the [-1, 1] scale.
        contrast: largest change of contrast, as a share of it.
        warp: largest shear, change of aspect, and slant in depth: each moves points at the edge by
            up to this share of their distance from the centre.
        light: largest change of grey levels at the edge, on the same scale, by a light from the
            side: a ramp in any direction.
        gamma: largest exponent of e in the power that grey levels from 0 to 1 are raised to.
        sharpness: largest share of the difference to a 3x3 mean that is taken away, which blurs,
            or added, which sharpens.
        noise: largest deviation of normally distributed noise, on the same scale.
        erasing: share of the images that lose a rectangle of 2-20 % of their area to mid-grey
            (random erasing, arXiv 1708.04896).
    """

    flip: bool = True
    rotation: float = 0.0
    translation: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    warp: float = 0.0
    light: float = 0.0
    gamma: float = 0.0
    sharpness: float = 0.0
    noise: float = 0.0
    erasing: float = 0.0

    def scaled(self, factor: float) -> "Augmentation":
        """Returns the same with every range `factor` times as wide; mirroring stays as it is."""
        ranges = {k: v * factor for k, v in asdict(self).items() if not isinstance(v, bool)}
        return replace(self, **ranges)

    def still(self) -> "Augmentation":
        """Returns the same without what moves faces, other than mirroring: they stay sharp."""
        return replace(self, rotation=0.0, translation=0.0, scale=0.0, warp=0.0)

    def __call__(
        self,
        images: torch.Tensor,
        generator: torch.Generator,
        size: int | None = None,
        batch: int | None = None,
        start: int = 0,
    ) -> torch.Tensor:
        """Returns varied copies of `images`.

        Random numbers are drawn for a whole batch, of which `images` may be a part: the parts that
        several processes augment are those that one process makes of the batch.

        Args:
            images: float32 `(N, C, H, W)` in [-1, 1].
            generator: source of all random numbers, on the images' device.
            size: height and width of the copies; those of the images if None.
            batch: how many images the batch has; those given if None.
            start: where in the batch the first of `images` stands.

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
        if self.light or self.gamma or self.sharpness or self.noise:
            noise = torch.randn(
                count, *images.shape[1:], generator=generator, device=images.device
            )[start : start + len(images)]
            images = self._take(images, uniform, noise)
        if self.erasing:
            images = images.masked_fill(self._boxes(images, uniform), 0.0)
        return images

    def _move(self, images: torch.Tensor, uniform, size: int) -> torch.Tensor:
        """Mirrors, turns, scales, shifts and warps, in one bilinear sampling."""
        angle = torch.deg2rad(self.rotation * uniform())
        zoom = 1 + self.scale * uniform()
        shift = 2 * self.translation * uniform(2)  # the sampling grid spans [-1, 1]
        mirror = uniform().sign() if self.flip else torch.ones_like(angle)
        still = not (self.rotation or self.translation or self.scale or self.warp)
        if size == images.shape[-1] and still:
            return torch.where(mirror.view(-1, 1, 1, 1) < 0, images.flip(-1), images)
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        aspect, shear = (self.warp * uniform() for _ in range(2)) if self.warp else (0.0, 0.0)
        across = mirror * (1 + aspect)
        matrix = torch.stack(
            [across * cos, shear - sin, shift[:, 0], across * sin, cos, shift[:, 1]], dim=1
        ).view(-1, 2, 3)
        grid = F.affine_grid(matrix, [*images.shape[:2], size, size], align_corners=False)
        if self.warp:
            depth = 1 + self.warp * _ramps(uniform(2), size)
            grid = grid / depth[..., None]
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _take(self, images: torch.Tensor, uniform, noise: torch.Tensor) -> torch.Tensor:
        """Takes the pictures anew: under another light, with another camera."""
        angle, slope = math.pi * uniform(), self.light * uniform()
        ramps = _ramps(torch.stack([angle.cos() * slope, angle.sin() * slope], 1), images.shape[-1])
        images = (images + ramps[:, None]).clamp_(-1, 1)
        power = (self.gamma * uniform(1, 1, 1)).exp()
        images = images.add(1).div_(2).pow(power).mul_(2).sub_(1)
        mean = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
        images = torch.addcmul(images, mean - images, self.sharpness * uniform(1, 1, 1))
        return torch.addcmul(images, noise, self.noise * uniform(1, 1, 1)).clamp_(-1, 1)

    def _boxes(self, images: torch.Tensor, uniform) -> torch.Tensor:
        """Returns bool `(N, 1, H, W)`: the pixels to erase."""
        height, width = images.shape[-2:]
        area = 0.11 + 0.09 * uniform()  # 2 to 20 %
        aspect = (0.7 * uniform()).exp()  # about 1:2 to 2:1
        chosen = uniform() < 2 * self.erasing - 1
        half_height = (area * aspect).sqrt() * height / 2 * chosen
        half_width = (area / aspect).sqrt() * width / 2
        centre_y, centre_x = (uniform() + 1) * height / 2, (uniform() + 1) * width / 2
        y = torch.arange(height, device=images.device) + 0.5
        x = torch.arange(width, device=images.device) + 0.5
        rows = (y - centre_y[:, None]).abs() < half_height[:, None]
        columns = (x - centre_x[:, None]).abs() < half_width[:, None]
        return (rows[:, :, None] & columns[:, None, :])[:, None]


def _ramps(slopes: torch.Tensor, size: int) -> torch.Tensor:
    """Returns planes `(N, size, size)` through 0 in the middle; `slopes` `(N, 2)`: in x and y."""
    line = torch.linspace(-1, 1, size, device=slopes.device)
    return slopes[:, 0, None, None] * line + slopes[:, 1, None, None] * line[:, None]
