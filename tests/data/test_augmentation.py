"""Augmentation: each part does what it says, on the whole batch, from one generator."""

import math
from dataclasses import replace

import pytest
import torch

from ferlab.data.augmentation import Augmentation

FACES = torch.rand(64, 1, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
ALL = Augmentation(
    flip=True,
    rotation=10,
    translation=0.1,
    scale=0.1,
    brightness=0.2,
    contrast=0.2,
    warp=0.1,
    light=0.5,
    gamma=0.4,
    sharpness=0.5,
    noise=0.05,
    erasing=0.5,
)


def augment(augmentation, images=FACES, seed=0, **kwargs):
    return augmentation(images, torch.Generator().manual_seed(seed), **kwargs)


def test_seed_decides():
    assert torch.equal(augment(ALL), augment(ALL))
    assert not torch.equal(augment(ALL), augment(ALL, seed=1))


def test_stays_in_range_and_leaves_the_input():
    before = FACES.clone()
    result = augment(ALL)
    assert result.shape == FACES.shape and result.dtype == torch.float32
    assert result.min() >= -1 and result.max() <= 1
    assert torch.equal(FACES, before)


def test_nothing_asked_nothing_done():
    assert torch.equal(augment(Augmentation(flip=False)), FACES)


def test_flip_mirrors_about_half():
    result = augment(Augmentation(flip=True))
    same = torch.tensor([torch.equal(a, b) for a, b in zip(result, FACES, strict=True)])
    mirrored = torch.tensor(
        [torch.equal(a, b.flip(-1)) for a, b in zip(result, FACES, strict=True)]
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


def test_translation_moves_up_to_its_share_both_ways():
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


def test_warp_keeps_the_centre_and_moves_the_corners_each_its_own_way():
    warp = Augmentation(flip=False, warp=0.1)
    assert (centres(augment(warp, dot(24, 24))) - 24).abs().max() < 0.3
    near, far = (centres(augment(warp, dot(at, at))) - 23.5 for at in (11, 36))
    moved = torch.stack([near + 12.5, far - 12.5])
    assert 2 < moved.abs().max() < 12.5 * (0.1 + 0.1 + 0.2) + 0.5
    assert not torch.allclose(near, -far, atol=0.5), "the depth is no linear map"
    assert not torch.allclose(far[:, 0], far[:, 1], atol=0.5), "the two axes differ"


def test_light_is_a_ramp_through_nothing_in_the_middle():
    result = augment(Augmentation(flip=False, light=0.4), torch.zeros(200, 1, 48, 48))[:, 0]
    assert result.mean((1, 2)).abs().max() < 1e-6
    across, down = result[:, 0, -1] - result[:, 0, 0], result[:, -1, 0] - result[:, 0, 0]
    slope = (across**2 + down**2).sqrt() / 2
    assert 0.38 < slope.max() <= 0.4001 and slope.min() < 0.03
    for step in (across, down):
        assert step.min() < -0.5 and step.max() > 0.5
    torch.testing.assert_close(result[:, -1, -1] - result[:, 0, 0], across + down)


def test_gamma_bends_grey_levels_and_keeps_black_and_white():
    levels = torch.tensor([-1.0, 0.0, 1.0]).repeat_interleave(16).view(1, 1, 1, 48)
    result = augment(Augmentation(flip=False, gamma=0.4), levels.expand(200, 1, 48, 48))
    assert torch.all(result[..., :16] == -1) and torch.all(result[..., 32:] == 1)
    power = ((result[:, 0, 0, 20] + 1) / 2).log() / math.log(0.5)
    assert math.exp(-0.4) - 1e-4 < power.min() < 0.7 and 1.4 < power.max() < math.exp(0.4) + 1e-4


def test_sharpness_blurs_and_sharpens():
    edge = torch.full((200, 1, 48, 48), -0.5)
    edge[..., 24:] = 0.5
    result = augment(Augmentation(flip=False, sharpness=0.6), edge)[:, 0, 20]
    step = result[:, 24] - result[:, 23]  # the 3x3 means differ by a third of the plain step
    assert 1 - 0.6 * 2 / 3 - 1e-4 < step.min() < 0.7 and 1.3 < step.max() < 1 + 0.6 * 2 / 3 + 1e-4
    assert torch.allclose(result[:, :22], edge[:, 0, 20, :22])


def test_noise_differs_by_image_and_pixel():
    result = augment(Augmentation(flip=False, noise=0.1), torch.zeros(200, 1, 48, 48))
    spread = result.std((1, 2, 3))
    assert spread.min() < 0.01 and 0.09 < spread.max() < 0.11
    assert result.mean((1, 2, 3)).abs().max() < 0.01


def test_erasing_sets_one_rectangle_to_grey_in_its_share_of_images():
    ones = torch.ones(400, 1, 48, 48)
    erased = augment(Augmentation(flip=False, erasing=0.25), ones)[:, 0] == 0
    area = erased.float().mean((1, 2))
    assert 0.17 < (area > 0).float().mean() < 0.33
    assert area.max() <= 0.23
    for mask in erased[area > 0]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns[None, :])


def test_small_copies_are_sampled_in_the_same_step():
    result = augment(Augmentation(flip=False, translation=0.001), size=32)
    assert result.shape == (64, 1, 32, 32)
    smooth = torch.linspace(-1, 1, 48).view(1, 1, 1, 48).expand(4, 1, 48, 48)
    result = augment(Augmentation(flip=False), smooth, size=32)
    torch.testing.assert_close(result[0, 0, 0], torch.linspace(-1, 1, 32), atol=0.02, rtol=0)


def test_still_faces_are_only_mirrored_and_lit():
    still = replace(ALL, brightness=0, contrast=0, light=0, gamma=0, sharpness=0, noise=0).still()
    result = augment(replace(still, erasing=0.0))
    for face, before in zip(result, FACES, strict=True):
        assert torch.equal(face, before) or torch.equal(face, before.flip(-1))
    assert still.erasing == ALL.erasing and ALL.still().light == ALL.light


def test_strength_scales_every_range_but_the_mirroring():
    half = ALL.scaled(0.5)
    assert half.flip is True and half.rotation == 5 and half.erasing == 0.25
    assert ALL.scaled(1) == ALL
    assert ALL.scaled(0) == Augmentation(flip=True)
