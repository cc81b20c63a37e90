"""Face detection and crops, on drawn faces."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from conftest import drawn_frame
from ferlab.data.images import read_pixels
from ferlab.data.preprocessing import preprocess
from ferlab.files import UserError
from ferlab.live import detection
from ferlab.live.boxes import clamp, iou, overlap, to_square
from ferlab.live.classifier import as_input
from ferlab.live.detection import (
    SECOND_CASCADE,
    HaarDetector,
    LocalDetector,
    YuNetDetector,
    crop_face,
    load_cascade,
)
from ferlab.live.verification import Verifier, one_per_face


def gray_of(frame):
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)


def test_haar_detects_drawn_faces():
    frame, boxes = drawn_frame([(180, 200, 70), (460, 260, 90)])
    found, doubtful = HaarDetector()(frame, gray_of(frame))
    assert len(found) == 2 and not doubtful
    assert len(HaarDetector().in_still(frame, gray_of(frame))) == 2
    for box in boxes:
        assert max(iou(box, other) for other in found) > 0.5


def test_boxes_of_a_resized_frame_are_in_pixels_of_the_original():
    frame, (box,) = drawn_frame([(320, 240, 90)])
    big = cv2.resize(frame, (2560, 1920))
    (found,) = HaarDetector().in_still(big, gray_of(big))
    assert iou(found, tuple(4 * number for number in box)) > 0.5


def test_local_detection_follows_a_face():
    before, (old,) = drawn_frame([(320, 240, 70)])
    (start,) = HaarDetector().in_still(before, gray_of(before))
    after, _ = drawn_frame([(345, 250, 70)])
    found = LocalDetector()(gray_of(after), start)
    assert found[0] - start[0] == pytest.approx(25, abs=8)
    assert found[1] - start[1] == pytest.approx(10, abs=8)
    assert iou(found, old) > 0.4


@pytest.mark.parametrize("box", [(200, 150, 120, 120), (-60, -60, 100, 100), (640, 480, 90, 90)])
def test_local_detection_finds_nothing_where_nothing_is(box):
    assert LocalDetector()(np.full((480, 640), 90, np.uint8), box) is None


@pytest.mark.parametrize(
    ("box", "margin"),
    [
        ((10, 10, 40, 40), 0.0),
        ((10, 10, 40, 40), 0.2),
        ((-15, -20, 60, 60), 0.0),
        ((70, 50, 60, 60), 0.0),
        ((-50, -50, 300, 300), 0.0),
        ((20, 20, 1, 1), -0.4),
    ],
)
def test_a_crop_is_square_wherever_the_box_is(box, margin):
    frame = np.random.default_rng(0).integers(0, 255, (80, 100, 3), np.uint8)
    face = crop_face(frame, box, margin)
    side = max(1, round(box[2] * (1 + 2 * margin)))
    assert face.shape == (side, side, 3)


def test_a_crop_beyond_the_frame_repeats_its_edge():
    frame = np.arange(25, dtype=np.uint8).reshape(5, 5, 1).repeat(3, 2)
    face = crop_face(frame, (-2, 1, 4, 4), 0.0)[:, :, 0]
    assert face.tolist() == [[5, 5, 5, 6], [10, 10, 10, 11], [15, 15, 15, 16], [20, 20, 20, 21]]
    assert np.array_equal(crop_face(frame, (0, 0, 5, 5), 0.0), frame)


@pytest.mark.parametrize("size", [(48, 48), (61, 61), (300, 300)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_live_face_and_a_prepared_image_are_the_same_tensor(tmp_path, size, mode):
    """The splits and the live program share one preprocessing."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (*size, 3), np.uint8)
    path = tmp_path / "face.png"
    Image.fromarray(pixels).convert(mode).save(path)
    prepared = preprocess(read_pixels(path))
    frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
    live = as_input(crop_face(frame, (0, 0, *size), 0.0))
    assert live.dtype == torch.float32 and live.shape == (1, 48, 48)
    if mode == "RGB":
        assert torch.equal(live, prepared)
    else:  # grey read as three equal channels may be rounded the other way
        assert (live - prepared).abs().max() <= 1.01 / 127.5


@pytest.mark.parametrize(
    "shape", [(3, 48, 48), (1, 48, 48), (3, 61, 77), (3, 300, 300), (1, 20, 30), (5, 3, 97, 97)]
)
def test_preprocessing_is_torchvisions(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pixels = torch.from_numpy(pixels)
    steps = [
        v2.Grayscale(),
        v2.Resize((48, 48), antialias=True),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5], [0.5]),
    ]
    assert torch.equal(preprocess(pixels), v2.Compose(steps)(pixels))


def test_one_box_per_face():
    """A box inside another, and one half beside it, are of the same face."""
    whole, mouth, beside, other = (
        (100, 100, 80, 80), (120, 140, 40, 40), (140, 110, 80, 80), (300, 100, 80, 80),
    )  # fmt: skip
    assert one_per_face([mouth, whole, beside, other], [5, 60, 7, 6]) == [1, 3]
    assert one_per_face([whole, (170, 100, 80, 80)], [9, 9]) == [0, 1], "two people side by side"
    assert one_per_face([], []) == []


def test_boxes_without_a_face_are_doubtful():
    frame, (face,) = drawn_frame([(320, 240, 70)])
    gray, nothing, edge = gray_of(frame), (20, 30, 90, 90), (-40, -40, 90, 90)
    verifier = Verifier(load_cascade(SECOND_CASCADE))
    assert verifier(gray, [face, nothing, edge], [6, 6, 6], 24, 3) == ([face], [nothing, edge])
    assert verifier(gray, [nothing], [24], 24, 3) == ([nothing], [])


def test_the_part_of_a_box_in_the_frame():
    assert clamp((10, 20, 30, 40), 5, (480, 640)) == (5, 15, 45, 65)
    assert clamp((-50, -60, 30, 40), 5, (480, 640)) == (0, 0, 0, 0)
    assert clamp((630, 470, 30, 40), 5, (480, 640)) == (625, 465, 640, 480)
    assert clamp((700, 500, 30, 40), 5, (480, 640)) == (640, 480, 640, 480)


def test_overlap():
    assert overlap((0, 0, 10, 10), (2, 2, 5, 5)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == 0.5
    assert overlap((0, 0, 10, 10), (5, 0, 0, 0)) == 0


def test_iou():
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (10, 0, 10, 10)) == 0
    assert to_square((10, 10, 30, 40)) == (7, 12, 35, 35)


def test_opencv_without_cascades(monkeypatch, tmp_path):
    monkeypatch.setattr(detection.cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(
        UserError, match=r"is missing: OpenCV .* run: pip install 'opencv-python<5'"
    ):
        load_cascade()
    monkeypatch.delattr(detection.cv2, "CascadeClassifier")
    with pytest.raises(UserError, match="has no Haar cascades; run: pip install 'opencv-python<5'"):
        load_cascade()


def test_damaged_cascade(monkeypatch, tmp_path):
    (tmp_path / detection.CASCADE).write_text("<nothing/>")
    monkeypatch.setattr(detection.cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(UserError, match="is damaged"):
        load_cascade()


def test_yunet_without_its_model(tmp_path):
    with pytest.raises(UserError, match="is missing; get face_detection_yunet"):
        YuNetDetector(tmp_path / "none.onnx")
    (tmp_path / "other.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="is not a YuNet model"):
        YuNetDetector(tmp_path / "other.onnx")


def test_yunet_boxes_are_those_of_the_whole_frame(monkeypatch, tmp_path):
    """No model file comes with OpenCV, so its network is a stand-in here."""

    class Network:
        def setInputSize(self, size):
            self.size = size

        def detect(self, image):
            assert image.shape[1::-1] == getattr(self, "size", (320, 320))
            return 1, np.array([[20.0, 30.0, 40.0, 48.0, *[0.0] * 11]], np.float32)

    class Factory:
        create = staticmethod(lambda *args: Network())

    monkeypatch.setattr(detection.cv2, "FaceDetectorYN", Factory)
    (tmp_path / "yunet.onnx").write_bytes(b"stand-in")
    detector = YuNetDetector(tmp_path / "yunet.onnx")
    frame = np.zeros((480, 640, 3), np.uint8)
    assert detector(frame, gray_of(frame)) == ([to_square((40, 60, 80, 96))], [])
