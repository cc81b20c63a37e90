"""Sources of frames: every kind, and cameras that fail."""

import threading
import time

import cv2
import numpy as np
import pytest
from media import everything, picture, write_video

from ferlab.files import UserError
from ferlab.live import sources, streams
from ferlab.live.frames import FileSource, as_bgr, interruptible
from ferlab.live.sources import camera_number, local_path, open_source
from ferlab.live.streams import LiveSource


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
    monkeypatch.setattr(streams, "RETRY_SECONDS", 5)
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
    monkeypatch.setattr(streams, "RETRY_SECONDS", 0.6)
    source = LiveSource("camera 0", FakeCamera, FakeCamera([picture(1)] * 3), 30)
    everything(source)
    assert "camera 0 delivers no more frames" in str(source.error)


@pytest.mark.parametrize("where", ["read", "connect"])
def test_any_exception_of_a_camera_is_reported(where):
    class Broken(FakeCamera):
        def read(self):
            if where == "read":
                raise cv2.error("assertion\nfailed")
            return super().read()

    def connect():
        raise RuntimeError("driver")

    source = LiveSource("camera 3", connect, Broken([picture(1)]), 30)
    everything(source)
    reason = "assertion failed" if where == "read" else "driver"
    assert str(source.error) == f"camera 3 cannot be read any further: {reason}"


class Stalled(FakeCamera):
    """A camera whose `read` does not return."""

    def __init__(self):
        super().__init__()
        self.wait = threading.Event()

    def read(self):
        self.wait.wait(20)
        return False, None


def test_a_camera_that_stalls_is_reconnected_and_does_not_delay_the_end(monkeypatch):
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.3)
    stalled = [Stalled(), Stalled()]
    cameras = [stalled[1], FakeCamera([picture(7)] * 200, 0.01)]
    source = LiveSource("camera 0", lambda: cameras.pop(0), stalled[0], 30)
    said, deadline = set(), time.monotonic() + 5
    while source.read(0.05) is None:
        said.add(source.status)
        assert time.monotonic() < deadline and not source.ended
    assert "no frames for 0 s, reconnecting" in said and source.status == ""
    start = time.monotonic()
    source.close()
    hung = LiveSource("camera 0", Stalled, last := Stalled(), 30)
    hung.read(0.05)
    hung.close()
    assert time.monotonic() - start < 1, "q and Ctrl-C do not wait for OpenCV"
    for camera in (*stalled, last):
        camera.wait.set()


def test_a_camera_that_stalls_for_ever_ends_the_source(monkeypatch):
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(streams, "RETRY_SECONDS", 0.3)
    cameras = []

    def connect():
        cameras.append(Stalled())
        return cameras[-1]

    source = LiveSource("camera 0", connect, connect(), 30)
    everything(source)
    assert "camera 0 delivers no more frames" in str(source.error) and len(cameras) > 2
    for camera in cameras:
        camera.wait.set()


def test_waiting_times_between_attempts_grow(monkeypatch):
    monkeypatch.setattr(streams, "RETRY_SECONDS", 1.2)
    attempts = []

    def connect():
        attempts.append(time.monotonic())
        return FakeCamera(opened=False)

    source = LiveSource("camera 0", connect, FakeCamera(), 30)
    everything(source)
    waits = np.diff(attempts)
    assert len(waits) >= 1 and (waits[1:] > 1.5 * waits[:-1]).all() and waits[0] > 0.4


def test_waiting_for_a_connection_can_be_interrupted():
    assert interruptible(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0)


def test_the_first_camera_that_opens(monkeypatch):
    """OpenCV itself crashes with -1 where there is no camera."""
    tried = []

    def capture(where):
        tried.append(where)
        return FakeCamera([picture(1)], opened=where == 2)

    monkeypatch.setattr(sources.cv2, "VideoCapture", capture)
    source = open_source("-1")
    source.close()
    assert tried == [0, 1, 2] and source.name == "camera 2"
    source.connect()
    assert tried[-1] == 2, "and it is this one that is reconnected"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("12", 12),
        ("-1", -1),
        ("/dev/video3", 3),
        ("3.mp4", None),
        ("-2", None),
        ("99999999999", None),
    ],
)
def test_names_of_cameras(text, number):
    assert camera_number(text) == number


def test_a_camera_by_its_id(tmp_path):
    """/dev/v4l/by-id/... is a link."""
    (tmp_path / "usb-Webcam-index0").symlink_to("/dev/video7")
    assert camera_number(str(tmp_path / "usb-Webcam-index0")) == 7


def test_names_of_files(tmp_path, monkeypatch):
    clip = write_video(tmp_path / "my clip.avi", count=3)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sources, "WINDOWS_DRIVES", tmp_path / "mnt")
    (tmp_path / "mnt" / "c").mkdir(parents=True)
    inside = write_video(tmp_path / "mnt" / "c" / "clip.avi", count=3)
    for text in (str(clip), clip.as_uri(), f"file:{clip}", "~/my clip.avi"):
        assert local_path(text) == clip
        assert len(everything(open_source(text))) == 3
    for text in (r"C:\clip.avi", "c:/clip.avi", "C://clip.avi"):
        assert local_path(text) == inside
        assert len(everything(open_source(text))) == 3
    assert local_path("http://host/x.mp4") is None
    for text in (r"D:\none.avi", "~nosuchuser/clip.avi", "99999999999"):
        with pytest.raises(UserError, match="missing; --source takes"):
            open_source(text)


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
    monkeypatch.setattr(streams, "RETRY_SECONDS", 0.5)
    empty = np.zeros((0, 0, 3), np.uint8)
    camera = FakeCamera([empty, picture(5), empty, empty, picture(6)], seconds=0.05)
    source = LiveSource("camera", lambda: FakeCamera(opened=False), camera, 30)
    frames = everything(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [5, 6]


def test_a_camera_gets_the_size_and_rate_asked_for(monkeypatch, capsys):
    wanted = {}
    given = {
        cv2.CAP_PROP_FRAME_WIDTH: 640.0,
        cv2.CAP_PROP_FRAME_HEIGHT: 480.0,
        cv2.CAP_PROP_FPS: 15.0,
        cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter_fourcc(*"YUYV")),
    }

    class Camera(FakeCamera):
        def get(self, prop):
            return given[prop]

        def set(self, prop, value):
            wanted[prop] = value

    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda *where: Camera([picture(1)] * 9, 0.01))
    source = open_source("2", camera_size=(1280, 720), fps=25)
    source.close()
    assert list(wanted.items()) == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG")),  # first: it limits the sizes
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 25),
    ]
    assert source.live and source.rate == 25
    assert capsys.readouterr().err == "camera 2: 640x480 at 15 frames/s, YUYV\n", "what it gives"


def test_a_camera_without_wishes_is_left_as_it_is(monkeypatch, capsys):
    wanted = []

    class Camera(FakeCamera):
        def set(self, prop, value):
            wanted.append(prop)

    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda where: Camera([picture(1)]))
    open_source("0").close()
    assert not wanted and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("7", "camera 7 cannot be opened; connect one"),
        ("-1", "none of the cameras 0 to 4 can be opened; connect one"),
    ],
)
def test_no_camera(monkeypatch, text, part):
    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda *where: FakeCamera(opened=False))
    with pytest.raises(UserError, match=part):
        open_source(text)


def test_any_exception_of_the_decoder_is_reported():
    def frames():
        yield picture(5), "", 0.0
        raise MemoryError("too large")

    source = FileSource(frames(), 25.0, None, stills=False, name="x.mp4")
    assert len(everything(source)) == 1
    assert str(source.error) == "x.mp4 cannot be read any further: too large"


def test_what_is_no_source(tmp_path):
    with pytest.raises(UserError, match=r"none\.mp4 is missing; --source takes"):
        open_source(str(tmp_path / "none.mp4"))
    for name, content in (("empty.mp4", b""), ("notes.txt", b"no picture")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} is not a video that OpenCV can read"):
            open_source(str(tmp_path / name))
    with pytest.raises(UserError, match=r"has no images \(.*\); folders in it are not searched"):
        open_source(str(tmp_path))
    with pytest.raises(UserError, match="/dev/null is not a file; --source takes"):
        open_source("/dev/null")


def test_the_drawn_clip(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    source = open_source("sample")
    assert source.rate == 30 and source.length > 300
    assert source.read(10).image.shape == (480, 640, 3)
    source.close()
