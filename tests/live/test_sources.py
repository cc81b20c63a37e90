"""Sources of frames: every kind, and cameras that fail."""

import threading
import time

import cv2
import numpy as np
import pytest

from ferlab.files import UserError
from ferlab.live import frames as frames_module
from ferlab.live import sources
from ferlab.live.frames import FileSource, LiveSource, as_bgr
from ferlab.live.sources import open_source


class FakeCamera:
    """A stand-in for `cv2.VideoCapture` that delivers scripted frames.

    Args:
        script: yields images, None for a failed read; ends as an unplugged camera.
        seconds: between frames.
    """

    def __init__(self, script=(), seconds=0.0, opened=True):
        self.script, self.seconds, self.opened = iter(script), seconds, opened
        self.released = False

    def isOpened(self):
        return self.opened and not self.released

    def read(self):
        time.sleep(self.seconds)
        image = next(self.script, None)
        return image is not None, image

    def get(self, prop):
        return 0.0

    def set(self, prop, value):
        return True

    def release(self):
        self.released = True


def picture(level, shape=(48, 64, 3)):
    return np.full(shape, level, np.uint8)


def everything(source, seconds=10):
    """Reads a source to its end; returns the frames."""
    frames, deadline = [], time.monotonic() + seconds
    while not source.ended:
        assert time.monotonic() < deadline
        frame = source.read(0.05)
        frames += [frame] if frame else []
    source.close()
    return frames


def write_video(path, count=25, rate=12.5, size=(64, 48), code="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, size)
    for number in range(count):
        writer.write(picture(10 * number % 256, (*size[::-1], 3)))
    writer.release()
    return path


def test_a_video_loses_no_frame_however_slow_its_reader(tmp_path):
    source = open_source(str(write_video(tmp_path / "v.avi")))
    assert (source.length, source.rate, source.live, source.stills) == (25, 12.5, False, False)
    frames = []
    while not source.ended:
        frame = source.read(0.05)
        frames += [frame] if frame else []
        time.sleep(0.01)
    source.close()
    assert [frame.number for frame in frames] == list(range(25))
    assert [frame.time_s for frame in frames] == pytest.approx([n / 12.5 for n in range(25)])
    assert [frame.image.mean() for frame in frames] == pytest.approx(
        [10 * n for n in range(25)], abs=3
    )
    assert source.error is None


def test_a_video_can_be_left_early(tmp_path):
    before = threading.active_count()
    source = open_source(str(write_video(tmp_path / "v.avi", count=200)))
    assert source.read(5).number == 0
    source.close()
    assert threading.active_count() == before


def test_a_live_source_delivers_the_newest_frame():
    camera = FakeCamera((picture(n) for n in range(1000)), seconds=0.005)
    source = LiveSource("camera", lambda: camera, camera, 30)
    first = source.read(5)
    time.sleep(0.3)
    later = source.read(5)
    source.close()
    assert later.number > first.number + 5, "frames in between are skipped"
    assert time.perf_counter() - later.read_at < 0.25
    assert later.image[0, 0, 0] == later.number % 256
    assert later.time_s > first.time_s


def test_no_frame_is_delivered_twice():
    camera = FakeCamera((picture(n) for n in range(1000)), seconds=0.2)
    source = LiveSource("camera", lambda: camera, camera, 30)
    source.read(5)
    assert source.read(0.01) is None
    source.close()


def test_a_camera_that_fails_for_a_while_is_reconnected(monkeypatch):
    monkeypatch.setattr(frames_module, "RETRY_SECONDS", 5)
    cameras = [
        FakeCamera(opened=False),
        FakeCamera([None]),
        FakeCamera((picture(7) for _ in range(10_000)), 0.002),
    ]
    first = FakeCamera([picture(1)] * 5)
    source = LiveSource("camera 0", lambda: cameras.pop(0), first, 30)
    deadline = time.monotonic() + 5
    while (frame := source.read(0.1)) is None or frame.image[0, 0, 0] != 7:
        assert time.monotonic() < deadline and not source.ended
    source.close()
    assert first.released and frame.number >= 5, "the count goes on"


def test_a_camera_that_stays_away_ends_the_source(monkeypatch):
    monkeypatch.setattr(frames_module, "RETRY_SECONDS", 0.6)
    source = LiveSource("camera 0", FakeCamera, FakeCamera([picture(1)] * 3), 30)
    everything(source)
    assert "camera 0 delivers no more frames" in str(source.error)


def test_odd_frames_of_a_camera():
    odd = [
        np.zeros((0, 0, 3), np.uint8),
        picture(50, (48, 64)),
        picture(60, (48, 64, 4)),
        np.full((48, 64, 3), 70 * 257, np.uint16),
        picture(80, (48, 64, 2)),
        picture(90, (30, 30, 3)),
    ]
    assert [None if (f := as_bgr(image)) is None else f.shape for image in odd] == [
        None, (48, 64, 3), (48, 64, 3), (48, 64, 3), None, (30, 30, 3),
    ]  # fmt: skip
    assert as_bgr(odd[3])[0, 0, 0] == 70
    assert as_bgr(None) is None


def test_an_empty_frame_is_skipped(monkeypatch):
    monkeypatch.setattr(frames_module, "RETRY_SECONDS", 0.5)
    empty = np.zeros((0, 0, 3), np.uint8)
    camera = FakeCamera([empty, picture(5), empty, empty, picture(6)], seconds=0.05)
    source = LiveSource("camera", lambda: FakeCamera(opened=False), camera, 30)
    frames = everything(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [5, 6]


def test_a_camera_gets_the_size_and_rate_asked_for(monkeypatch):
    wanted = {}

    class Camera(FakeCamera):
        def set(self, prop, value):
            wanted[prop] = value

    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda where: Camera([picture(1)] * 9, 0.01))
    source = open_source("2", camera_size=(1280, 720), fps=25)
    source.close()
    assert wanted == {
        cv2.CAP_PROP_FRAME_WIDTH: 1280,
        cv2.CAP_PROP_FRAME_HEIGHT: 720,
        cv2.CAP_PROP_FPS: 25,
    }
    assert source.live and source.rate == 25


@pytest.mark.parametrize(
    ("text", "part"),
    [("7", "camera 7 cannot be opened; connect one"), ("rtsp://nowhere/x", "check the URL")],
)
def test_no_camera_no_stream(monkeypatch, text, part):
    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda where: FakeCamera(opened=False))
    with pytest.raises(UserError, match=part):
        open_source(text)


def test_images(tmp_path, capsys):
    for name in ("b.png", "a.jpg", "c.bmp"):
        cv2.imwrite(str(tmp_path / name), picture(100))
    (tmp_path / "d.png").write_bytes(b"no picture")
    (tmp_path / "e.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not asked for")
    source = open_source(str(tmp_path))
    assert source.stills and source.length == 5
    assert [frame.name[-5:] for frame in everything(source)] == ["a.jpg", "b.png", "c.bmp"]
    assert capsys.readouterr().err.count("not an image that OpenCV can read") == 2
    (frame,) = everything(open_source(str(tmp_path / "b.png")))
    assert frame.image.shape == (48, 64, 3)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_damaged_image_is_an_error(tmp_path, content):
    (tmp_path / "d.png").write_bytes(content)
    source = open_source(str(tmp_path / "d.png"))
    assert everything(source) == []
    assert "d.png is not an image that OpenCV can read" in str(source.error)


def test_any_exception_of_the_decoder_is_reported():
    def frames():
        yield picture(5), ""
        raise MemoryError("too large")

    source = FileSource(frames(), 25.0, None, stills=False)
    assert len(everything(source)) == 1
    assert isinstance(source.error, MemoryError)


def test_what_is_no_source(tmp_path):
    with pytest.raises(UserError, match=r"none\.mp4 is missing; --source takes"):
        open_source(str(tmp_path / "none.mp4"))
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.mp4 is not a video that OpenCV can read"):
        open_source(str(tmp_path / "empty.mp4"))
    with pytest.raises(UserError, match="contains no images"):
        open_source(str(tmp_path))


def test_the_drawn_clip(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    source = open_source("sample")
    assert source.rate == 30 and source.length > 300
    assert source.read(10).image.shape == (480, 640, 3)
    source.close()
