"""Decoding: images of any kind, and the fast path that must equal the slow one to the bit."""

import contextlib
import io
import random
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import striped_face
from ferlab import pictures
from ferlab.data.images import grey_of, plain_grey, read_pixels, reason_of, resized
from ferlab.data.preprocessing import preprocess
from ferlab.files import UserError
from ferlab.live.images import decode, open_image, opens, read_animation


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
        ("JPEG", {"quality": 75, "optimize": True}),
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
        (grey, "JPEG", {"progressive": True}),
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


BLACK = Image.new("RGB", (96, 96))
FRAMES = {"save_all": True, "append_images": [BLACK, BLACK]}
KINDS = {
    "grey JPEG": ("L", "JPEG", {}),
    "CMYK JPEG": ("CMYK", "JPEG", {}),
    "YCbCr JPEG": ("YCbCr", "JPEG", {}),
    "JPEG 2000": ("RGB", "JPEG2000", {}),
    "CMYK TIFF": ("CMYK", "TIFF", {}),
    "Lab TIFF": ("LAB", "TIFF", {}),
    "TIFF of two pages": ("RGB", "TIFF", FRAMES),
    "16-bit TIFF": ("I;16", "TIFF", {}),
    "32-bit TIFF": ("I", "TIFF", {}),
    "16-bit PNG": ("I;16", "PNG", {}),
    "PNG with a palette": ("P", "PNG", {}),
    "PNG with a transparent colour": ("P", "PNG", {"transparency": 3}),
    "PNG with alpha": ("RGBA", "PNG", {}),
    "grey PNG with alpha": ("LA", "PNG", {}),
    "animated PNG": ("RGB", "PNG", FRAMES),
    "animated GIF": ("RGB", "GIF", FRAMES),
    "animated WebP": ("RGB", "WEBP", FRAMES),
    "BMP": ("RGB", "BMP", {}),
    "PPM": ("RGB", "PPM", {}),
    "TGA": ("RGB", "TGA", {}),
}


def converted(picture, mode):
    """Returns a grey picture in a mode; 16 bits and 32 hold its levels times 257."""
    if mode[0] == "I":
        deep = np.asarray(picture).astype(np.uint16 if mode == "I;16" else np.int32) * 257
        return Image.fromarray(deep)
    if mode in ("L", "LA"):
        return picture.convert(mode)
    rgb = picture.convert("RGB")
    if mode == "RGBA":
        rgb.putalpha(picture)
        return rgb
    return rgb.quantize(256) if mode == "P" else rgb.convert(mode)


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_kind_have_the_same_pixels(kind, tmp_path):
    """In a dataset and in the live program; of several frames a dataset has the first."""
    mode, form, options = KINDS[kind]
    picture = face(5, size=96)
    content = encoded(converted(picture, mode), form, **options)
    expected = resized(torch.from_numpy(np.array(picture))[None]).astype(int)
    assert np.abs(grey_of(content) - expected).mean() < 1.5
    (tmp_path / "picture").write_bytes(content)
    pixels = read_pixels(io.BytesIO(content)).permute(1, 2, 0).numpy()
    assert np.array_equal(
        decode(tmp_path / "picture"), np.repeat(pixels, 3 // pixels.shape[2], 2)[..., ::-1]
    )


def test_floating_point_pixels_are_refused(tmp_path):
    content = encoded(Image.fromarray(np.asarray(face(5)) / np.float32(255)), "TIFF")
    with pytest.raises(ValueError, match="floating-point pixels, whose range is unknown"):
        grey_of(content)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match="a.tif .* Pillow can read: floating-point pixels"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_files_go_the_slow_way(kind):
    content = encoded(face(2), kind)
    for damaged in (content[:-2], content[: len(content) // 2], content[:20], b""):
        assert plain_grey(damaged) is None
    with pytest.raises(OSError):
        grey_of(content[: len(content) // 2])


def test_jpeg_that_is_damaged_within_goes_the_slow_way():
    """OpenCV gives such an image with a grey rest, which Pillow refuses."""
    content = encoded(face(2), "JPEG")
    middle = len(content) * 2 // 3
    content = content[:middle] + b"\xff\x10" + content[middle + 2 :]
    assert plain_grey(content) is None
    with pytest.raises(OSError, match="broken data stream"):
        grey_of(content)


def test_small_jpeg_that_claims_a_large_size_is_refused_before_it_is_decoded():
    content = encoded(face(2), "JPEG")
    size = content.index(b"\xff\xc0") + 5
    content = content[:size] + b"\xff\xdc" * 2 + content[size + 4 :]
    with pytest.raises(pictures.TooLarge, match="exceeds limit"):
        grey_of(content)


@pytest.mark.parametrize("kind", ["AVIF", "BLP", "HEIF"])
def test_damaged_files_are_one_line_whatever_their_decoder_raises(kind, tmp_path):
    """RuntimeError at AVIF, NotImplementedError at BLP, EOFError at HEIF."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    mode, frames = ("P", {}) if kind == "BLP" else ("RGB", FRAMES if kind == "AVIF" else {})
    content, chance = encoded(converted(face(3, size=96), mode), kind, **frames), random.Random(0)
    path = tmp_path / f"face.{kind.lower()}"
    for _ in range(100):
        damaged = bytearray(content)
        for place in chance.choices(range(12, min(len(content), 600)), k=3):
            damaged[place] = chance.randrange(256)
        with contextlib.suppress(*pictures.FAULTS):
            grey_of(bytes(damaged))
        path.write_bytes(damaged)
        opens(path)
        open_image(path)
        with contextlib.suppress(UserError):
            list(read_animation(path, 3, fps=None))


def test_pillow_warns_of_nothing(tmp_path, recwarn):
    """Damaged tags would fill the screen with lines, one for each."""
    picture = face(3)
    content = bytearray(encoded(picture, "TIFF", description="a face"))
    place = content.index(struct.pack("<HHI", 270, 2, 7))
    content[place + 4 : place + 8] = struct.pack("<I", 1 << 20)
    assert np.array_equal(grey_of(bytes(content)), np.asarray(picture))
    assert not recwarn.list


def test_face_box_is_what_is_read():
    picture = np.zeros((100, 120, 3), np.uint8)
    picture[20:68, 30:78] = np.asarray(face(3))[..., None]
    content = encoded(Image.fromarray(picture), "PNG")
    part = torch.from_numpy(picture[20:68, 30:78].copy()).permute(2, 0, 1)
    assert np.array_equal(grey_of(content, np.array([30, 20, 48, 48])), resized(part))
    assert np.array_equal(
        grey_of(content, np.array([-18, -28, 96, 96])),
        resized(torch.from_numpy(picture[:68, :78].copy()).permute(2, 0, 1)),
    )
    for x in (300, -60):
        with pytest.raises(ValueError, match="is outside of the image"):
            grey_of(content, np.array([x, 20, 48, 48]))


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
    assert pictures.is_heic(content)
    monkeypatch.setattr(pictures, "knows_heic", lambda: False)
    error = Image.UnidentifiedImageError()
    assert "HEIC" in reason_of(error, content) and "pip install" in reason_of(error, content)
    assert reason_of(error, b"text") == "not an image"
    assert reason_of(error, b"") == "empty file"
    assert reason_of(FileNotFoundError(), b"") == "the file is not there"
    assert reason_of(ValueError("no"), b"text") == "unreadable: no"
