"""Decoding: images of any kind, and the fast path that must equal the slow one to the bit."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import striped_face
from ferlab.data import images
from ferlab.data.images import grey_of, plain_grey, read_pixels, reason_of, resized
from ferlab.data.preprocessing import preprocess


def encoded(picture, kind, **options):
    """Returns the bytes of an image file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def face(seed=0, size=48):
    return Image.fromarray(striped_face(seed % 7, np.random.default_rng(seed), size))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 40}),
        ("JPEG", {"quality": 100}),
        ("JPEG", {"quality": 75, "progressive": True, "optimize": True}),
        ("PNG", {}),
        ("PNG", {"optimize": True, "dpi": (96, 96)}),
    ],
)
def test_fast_path_equals_the_definition_to_the_bit(kind, options, seed):
    content = encoded(face(seed), kind, **options)
    fast = plain_grey(content)
    expected = preprocess(read_pixels(io.BytesIO(content)))
    assert fast is not None and fast.dtype == np.uint8
    assert torch.equal(preprocess(torch.from_numpy(fast)[None]), expected)
    assert np.array_equal(grey_of(content), resized(read_pixels(io.BytesIO(content))))


def turned(picture):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    return {"exif": exif}


def test_what_is_not_plain_goes_the_slow_way():
    grey = face(1)
    for picture, kind, options in [
        (face(1, size=49), "JPEG", {}),
        (grey.convert("RGB"), "JPEG", {}),
        (grey, "JPEG", turned(grey)),
        (grey, "PNG", turned(grey)),
        (grey.convert("RGB"), "PNG", {}),
        (grey.convert("LA"), "PNG", {}),
        (grey.convert("1"), "PNG", {}),
        (grey.quantize(16), "PNG", {}),
        (grey, "PNG", {"transparency": 7}),
        (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG", {}),
        (grey, "GIF", {}),
        (grey, "BMP", {}),
    ]:
        content = encoded(picture, kind, **options)
        assert plain_grey(content) is None, (kind, picture.mode, options)
        assert np.array_equal(grey_of(content), resized(read_pixels(io.BytesIO(content))))
    upright = grey_of(encoded(grey, "PNG", **turned(grey)))
    assert np.array_equal(upright, np.asarray(grey)[::-1, ::-1])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_files_go_the_slow_way(kind):
    content = encoded(face(2), kind)
    for damaged in (content[:-2], content[: len(content) // 2], content[:20], b""):
        assert plain_grey(damaged) is None
    with pytest.raises(OSError):
        grey_of(content[: len(content) // 2])


def test_face_box_is_what_is_read():
    picture = np.zeros((100, 120, 3), np.uint8)
    picture[20:68, 30:78] = np.asarray(face(3))[..., None]
    content = encoded(Image.fromarray(picture), "PNG")
    part = torch.from_numpy(picture[20:68, 30:78].copy()).permute(2, 0, 1)
    assert np.array_equal(grey_of(content, np.array([30, 20, 48, 48])), resized(part))
    with pytest.raises(ValueError, match="is outside of the image"):
        grey_of(content, np.array([300, 20, 48, 48]))


def heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    return encoded(face(4, size=64).convert("RGB"), "HEIF", quality=90)


def test_heic_is_read_with_pillow_heif():
    difference = grey_of(heic()).astype(int) - resized(
        torch.from_numpy(np.array(face(4, size=64)))[None]
    )
    assert np.abs(difference).mean() < 8  # lossy


def test_heic_without_pillow_heif_is_named(monkeypatch):
    content = heic()
    assert images.HEIC.match(content)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    error = Image.UnidentifiedImageError()
    assert "HEIC" in reason_of(error, content) and "pip install" in reason_of(error, content)
    assert reason_of(error, b"text") == "not an image"
    assert reason_of(error, b"") == "empty file"
    assert reason_of(FileNotFoundError(), b"") == "the file is not there"
    assert reason_of(ValueError("no"), b"text") == "unreadable: no"
