"""Still and animated images: their content decides, they are upright, what is unread is counted."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import everything, picture
from PIL import Image

from conftest import drawn_frame
from ferlab import pictures
from ferlab.live import detection
from ferlab.live.detection import HaarDetector, YuNetDetector
from ferlab.live.sources import open_source
from ferlab.live.stills import boxes_in_still


def test_images_of_a_folder(tmp_path, capsys):
    for name in ("b.png", "a.jpg", "c.bmp", "E.JPG"):
        cv2.imwrite(str(tmp_path / name), picture(100))
    shutil.move(tmp_path / "a.jpg", tmp_path / "a")  # no extension
    shutil.copy(tmp_path / "a", tmp_path / "f.jfif")
    shutil.copy(tmp_path / "b.png", tmp_path / "g.dat")
    (tmp_path / "x.png").write_bytes(b"no picture")
    (tmp_path / "y.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not asked for")
    (tmp_path / ".hidden").write_text("not asked for")
    source = open_source(str(tmp_path))
    assert source.stills and source.length == 8
    names = [frame.name.rpartition("/")[2] for frame in everything(source)]
    assert names == ["E.JPG", "a", "b.png", "c.bmp", "f.jfif", "g.dat"]
    said = capsys.readouterr().err
    assert said.count("not an image that Pillow can read") == 2
    assert (
        "files that are not images: 1 (notes.txt)" in said
        and "2 of 8 images could not be read" in said
    )
    assert source.error is None


def test_a_folder_of_which_nothing_can_be_read(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    source = open_source(str(tmp_path))
    assert everything(source) == []
    assert "none of the 2 images in" in str(source.error)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("A.JFIF", "JPEG"),
        ("a", "JPEG"),
        ("a.mp4", "JPEG"),
        ("a.gif", "GIF"),
        ("a.webp", "WEBP"),
        ("a.tiff", "TIFF"),
        ("a.ico", "ICO"),
        ("a.jp2", "JPEG2000"),
    ],
)
def test_one_image_of_any_name(tmp_path, name, kind):
    Image.fromarray(picture(90)).save(tmp_path / name, format=kind)
    source = open_source(str(tmp_path / name))
    (frame,) = everything(source)
    assert source.stills and frame.name.endswith(name)
    assert frame.image.mean() == pytest.approx(90, abs=3)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut short"])
def test_a_damaged_image_is_an_error(tmp_path, content):
    (tmp_path / "d.png").write_bytes(content)
    source = open_source(str(tmp_path / "d.png"))
    assert everything(source) == []
    assert "d.png is not an image that Pillow can read" in str(source.error)


def corner_picture():
    """White in its upper left corner."""
    image = picture(0, (40, 60, 3))
    image[:10, :15] = 255
    return Image.fromarray(image)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_photos_that_exif_turns_are_upright(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    try:
        corner_picture().save(tmp_path / "photo", format=kind, exif=exif)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {kind}")
    (frame,) = everything(open_source(str(tmp_path / "photo")))
    assert frame.image.shape == (60, 40, 3)
    assert frame.image[:12, -8:].mean() > 200, "the corner is at the upper right"


def test_a_heic_photo(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    corner_picture().save(tmp_path / "photo.HEIC", format="HEIF")
    source = open_source(str(tmp_path / "photo.HEIC"))
    (frame,) = everything(source)
    assert source.stills and frame.image.shape == (40, 60, 3)
    assert frame.image[:8, :12].mean() > 200 and frame.image[20:].mean() < 20


def test_a_heic_photo_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "knows_heic", lambda: False)
    monkeypatch.setattr(Image, "open", lambda path: (_ for _ in ()).throw(OSError("unknown")))
    (tmp_path / "p.heic").write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0")
    source = open_source(str(tmp_path / "p.heic"))
    assert everything(source) == []
    assert str(source.error).endswith(f"p.heic is {pictures.NO_HEIC}")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animated_image_is_played(tmp_path, kind):
    pictures = [Image.fromarray(picture(level)) for level in (10, 90, 170, 250)]
    path = tmp_path / "moving"
    pictures[0].save(
        path, format=kind, save_all=True, append_images=pictures[1:], duration=[40, 40, 200, 40]
    )
    source = open_source(str(path))
    assert not source.stills and source.length == 4
    frames = everything(source)
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.28])
    assert [frame.image.mean() for frame in frames] == pytest.approx([10, 90, 170, 250], abs=4)


def test_an_animated_image_cut_short(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)) for _ in range(10)]
    path = tmp_path / "cut.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, lossless=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(str(path))
    everything(source)
    assert "cut.webp" in str(source.error)


def test_small_faces_of_a_large_photo_are_detected(photo_of_faces):
    image, places = photo_of_faces
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    detector = HaarDetector()
    assert len(detector.in_still(image, gray)) < len(places), "resized, they are too small"
    centres = [(x + w / 2, y + h / 2) for x, y, w, h in boxes_in_still(detector, image, gray)]
    assert len(centres) == len(places), "each once"
    for x, y in places:
        assert any(abs(x - a) < 30 and abs(y - b) < 30 for a, b in centres)


@pytest.fixture
def photo_of_faces():
    """A photo of 4000 pixels with one large face and two small ones, and the faces' centres."""

    frame, ((x, y, w, h),) = drawn_frame([(320, 240, 90)])
    face = frame[y - 30 : y + h + 30, x - 30 : x + w + 30]
    image = np.full((1600, 4000, 3), frame[0, 0], np.uint8)
    places = []
    for side, left, top in ((110, 300, 200), (110, 3500, 1200), (700, 1600, 300)):
        small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
        image[top : top + side, left : left + side] = small
        places.append((left + side / 2, top + side / 2))
    return image, places


def test_yunet_searches_a_large_photo_in_tiles(monkeypatch):
    """No model file comes with OpenCV, so its network is a stand-in: it sees white squares."""

    class Network:
        def setInputSize(self, size):
            pass

        def detect(self, image):
            white = (image.min(2) > 250).astype(np.uint8)
            _, _, boxes, _ = cv2.connectedComponentsWithStats(white)
            found = [box[:4] for box in boxes[1:] if 10 <= min(box[2:4]) <= 300]
            return 1, np.array(found, np.float32) if found else None

    detector = YuNetDetector.__new__(YuNetDetector)
    detector.network = Network()
    image = picture(0, (2200, 3200, 3))
    places = [(40, 40, 60, 60), (1900, 1890, 60, 60), (3100, 1900, 60, 60), (300, 900, 400, 400)]
    for x, y, w, h in places:
        image[y : y + h, x : x + w] = 255
    assert len(detector.in_still(image, image[..., 0])) == 1
    assert sorted(boxes_in_still(detector, image, image[..., 0])) == sorted(places)


def test_opencv_is_given_no_path_of_the_cascade(tmp_path, monkeypatch):
    """On Windows it opens none with non-ASCII letters, as of a user's name."""
    folder = tmp_path / "Zoë Ünal"
    folder.mkdir()
    for path in Path(cv2.data.haarcascades).glob("haarcascade_frontalface_*.xml"):
        shutil.copy(path, folder)

    cascade = cv2.CascadeClassifier

    def from_memory(*args):
        assert not args, "a path"
        return cascade()

    monkeypatch.setattr(detection.cv2.data, "haarcascades", str(folder))
    monkeypatch.setattr(detection.cv2, "CascadeClassifier", from_memory)
    frame = drawn_frame([(320, 240, 90)])[0]
    assert len(HaarDetector().in_still(frame, frame[..., 1].copy())) == 1
