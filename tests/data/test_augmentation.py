"""Augmentation: each part does what it says, on the whole batch, from one generator."""

import pytest
import torch

from ferlab.data.augmentation import Augmentation

IMAGES = torch.rand(64, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
ALL = Augmentation(
    flip=True,
    rotation=10,
    translation=0.1,
    scale=0.1,
    brightness=0.2,
    contrast=0.2,
)


def augment(augmentation, images=IMAGES, seed=0, **kwargs):
    return augmentation(images, torch.Generator().manual_seed(seed), **kwargs)


def test_seed_decides():
    assert torch.equal(augment(ALL), augment(ALL))
    assert not torch.equal(augment(ALL), augment(ALL, seed=1))


def test_stays_in_range_and_leaves_the_input():
    before = IMAGES.clone()
    result = augment(ALL)
    assert result.shape == IMAGES.shape and result.dtype == torch.float32
    assert result.min() >= -1 and result.max() <= 1
    assert torch.equal(IMAGES, before)


def test_no_range_no_change():
    assert torch.equal(augment(Augmentation(flip=False)), IMAGES)


def test_flip_mirrors_about_half_of_the_images():
    result = augment(Augmentation(flip=True))
    same = torch.tensor([torch.equal(a, b) for a, b in zip(result, IMAGES, strict=True)])
    mirrored = torch.tensor(
        [torch.equal(a, b.flip(-1)) for a, b in zip(result, IMAGES, strict=True)]
    )
    assert torch.all(same ^ mirrored)
    assert 16 < mirrored.sum() < 48


def dot(x, y):
    image = torch.full((1, 1, 48, 48), -1.0)
    image[..., y - 1 : y + 2, x - 1 : x + 2] = 1.0
    return image.repeat(200, 1, 1, 1)


def centres(images):
    weight = (images[:, 0] + 1).clamp(min=0)
    total = weight.sum((1, 2))
    axis = torch.arange(48.0)
    return torch.stack([(weight.sum(1) @ axis) / total, (weight.sum(2) @ axis) / total], 1)


def test_translation_moves_up_to_its_fraction_both_ways():
    moved = centres(augment(Augmentation(flip=False, translation=0.1), dot(24, 24))) - 24
    assert moved.abs().max() <= 4.8 + 0.1
    assert moved.max() > 3.5 and moved.min() < -3.5


@pytest.mark.parametrize("flip", [False, True])
def test_rotation_turns_about_the_centre_up_to_its_angle(flip):
    moved = centres(augment(Augmentation(flip=flip, rotation=10), dot(40, 24))) - 23.5
    angle = torch.rad2deg(torch.atan2(moved[:, 1], moved[:, 0].abs()))
    assert angle.abs().max() < 10 + 2.5
    assert angle.max() > 6 and angle.min() < -6
    torch.testing.assert_close(moved.norm(dim=1), torch.full((200,), 16.5), atol=0.4, rtol=0)


def test_scale_changes_distance_from_the_centre():
    moved = centres(augment(Augmentation(flip=False, scale=0.1), dot(40, 24)))[:, 0] - 23.5
    assert moved.min() > 16.5 / 1.1 - 0.5 and moved.max() < 16.5 / 0.9 + 0.5
    assert moved.max() - moved.min() > 2


def test_brightness_and_contrast_are_linear_in_grey_level():
    ramp = torch.linspace(-0.5, 0.5, 48 * 48).view(1, 1, 48, 48).repeat(100, 1, 1, 1)
    result = augment(Augmentation(flip=False, brightness=0.2, contrast=0.3), ramp).flatten(1)
    gain = (result[:, -1] - result[:, 0]).clamp(max=2)
    shift = result.mean(1)
    assert 0.7 <= gain.min() < 0.8 and 1.2 < gain.max() <= 1.3001
    assert -0.2001 <= shift.min() < -0.15 and 0.15 < shift.max() <= 0.2001


def test_small_copies_are_sampled_in_the_same_step():
    result = augment(Augmentation(flip=False, translation=0.001), size=32)
    assert result.shape == (64, 1, 32, 32)
    smooth = torch.linspace(-1, 1, 48).view(1, 1, 1, 48).expand(4, 1, 48, 48)
    result = augment(Augmentation(flip=False), smooth, size=32)
    torch.testing.assert_close(result[0, 0, 0], torch.linspace(-1, 1, 32), atol=0.02, rtol=0)


def test_strength_scales_every_range_but_the_flip():
    half = ALL.scaled(0.5)
    assert half.flip is True and half.rotation == 5 and half.contrast == 0.1
    assert ALL.scaled(1) == ALL
    assert ALL.scaled(0) == Augmentation(flip=True)
