"""The live program on sources that fail: files are closed, one line says why, q and Ctrl-C end."""

import signal
import subprocess
import sys
import threading
import time

import cv2
import pytest
from media import film, frames_of, picture, rows_of, untrained_weights, write_video
from test_sources import FakeCamera
from test_urls import running_server
from test_videos import damaged, noisy_video

import live_inference
from conftest import ROOT, assert_one_line_error, run_script
from ferlab.live import app, sources, streams, window


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return untrained_weights(tmp_path_factory.mktemp("weights"))


def test_a_camera_that_fails_inside_its_driver(weights, tmp_path, monkeypatch, capsys):
    class Broken(FakeCamera):
        def read(self):
            there, image = super().read()
            if not there:
                raise cv2.error("the driver failed")
            return there, image

    opened = cv2.VideoCapture
    monkeypatch.setattr(
        sources.cv2,
        "VideoCapture",
        lambda where: opened(where) if isinstance(where, str) else Broken(film(0.01)),
    )
    video, log = tmp_path / "v.avi", tmp_path / "faces.csv"
    args = ["--weights", weights, "--no-window", "--output", video, "--log", log, "--quiet"]
    assert live_inference.main([str(arg) for arg in args]) == 1
    expected = "error: camera 0 cannot be read any further: the driver failed\n"
    assert capsys.readouterr().err == expected
    assert len(frames_of(video)[0]) > 10 and len(rows_of(log)) > 5


def test_a_lost_camera_is_said_on_screen(weights, monkeypatch, capsys):
    """And q ends the program while OpenCV does not return."""
    shown, leave = [], threading.Event()

    class Stalling(FakeCamera):
        def read(self):
            there, image = super().read()
            if not there:
                leave.wait(20)
            return there, image

    class Screen:
        def __init__(self, title):
            pass

        def show(self, image):
            pass

        def key(self, milliseconds):
            return "q" if any("reconnecting" in text for text in shown) else ""

        def close(self):
            pass

    draw = app.draw
    monkeypatch.setattr(app, "draw", lambda *a, **k: (shown.append(k["status"]), draw(*a, **k))[1])
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(window, "Window", Screen)
    monkeypatch.setattr(sources.cv2, "VideoCapture", lambda where: Stalling([picture(90)] * 5))
    start = time.monotonic()
    assert live_inference.main(["--weights", str(weights), "--quiet"]) == 0
    assert time.monotonic() - start < 10
    assert any(text.startswith("no frames for 0 s, reconnecting") for text in shown)
    assert capsys.readouterr().err == "camera 0 delivers no frames; reconnecting\n"
    leave.set()


@pytest.fixture
def server(tmp_path):
    yield from running_server(tmp_path)


def test_ctrl_c_while_a_stream_stalls(weights, tmp_path, server):
    """OpenCV would return after 5 s. A busy machine gets a second chance."""
    args = ["--source", f"{server.url}/live", "--weights", weights, "--no-window"]
    assert any(seconds_to_stop(args, tmp_path / f"{name}.avi", server) < 2 for name in "abc")


def seconds_to_stop(args, video, server):
    """Runs the program until its stream stalls; returns the seconds that Ctrl-C needs to end it."""
    server.seen.clear()
    process = subprocess.Popen(
        [sys.executable, ROOT / "live_inference.py", *args, "--output", video],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not video.with_name(f".{video.stem}.tmp.avi").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    out, err = process.communicate(timeout=30)
    seconds = time.monotonic() - start
    assert process.returncode == 130 and err.strip() == "stopped" and " frames, 0 faces" in out
    assert frames_of(video)[0]
    return seconds


# -- odd videos ----------------------------------------------------------------------------------


def test_a_damaged_video_gives_what_could_be_read(weights, tmp_path):
    damaged(noisy_video(tmp_path / "v.mp4"), 0.3, 0.6)
    output, log = tmp_path / "out.avi", tmp_path / "faces.csv"
    args = ["--source", tmp_path / "v.mp4", "--weights", weights, "--output", output, "--log", log]
    result = run_script("live_inference.py", "--no-window", "--quiet", *args)
    assert_one_line_error(result, "v.mp4 is damaged or cut short", "of about 90 frames")
    assert len(frames_of(output)[0]) > 40 and log.exists()


def test_an_output_at_a_rate_that_mpeg_4_cannot_state(weights, tmp_path, capsys):
    clip = write_video(tmp_path / "v.avi", rate=66.667)
    output = tmp_path / "out.mp4"
    args = ["--source", clip, "--weights", weights, "--no-window", "--codec", "mp4v", "--quiet"]
    assert live_inference.main([*map(str, args), "--output", str(output)]) == 0
    said = capsys.readouterr().err
    assert said == f"{output}: 66.67 frames/s instead of 66.667, the nearest rate of mp4v\n"
    levels, rate = frames_of(output)
    assert len(levels) == 25 and rate == pytest.approx(66.67)
