"""The live program in a real window, under a virtual display, with keys sent to it."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time

import cv2
import pytest
from media import untrained_weights
from Xlib.display import Display
from Xlib.protocol.event import ClientMessage
from Xlib.X import CurrentTime

from conftest import ROOT, drawn_frame
from ferlab.files import UserError
from ferlab.live import window

TITLE = "facial expressions"


@pytest.fixture(scope="module")
def display():
    """A virtual display; skips where xvfb or xdotool is not installed."""
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt-get install xvfb xdotool)")
    reading, writing = os.pipe()
    # -noreset: without it the server starts anew, refusing whoever comes then, each time
    # its last client (an xdotool) leaves.
    command = ["Xvfb", "-noreset", "-displayfd", str(writing), "-screen", "0", "1280x800x24"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    number = os.read(reading, 16).decode().strip()
    yield f":{number}"
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return untrained_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Twenty seconds of a drawn face that stands at the left."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (640, 480))
    frame = drawn_frame([(160, 240, 80)])[0]
    for _ in range(600):
        writer.write(frame)
    writer.release()
    return path


class Demo:
    """The running program and its window."""

    def __init__(self, display, folder, *args):
        self.env = {**os.environ, "DISPLAY": display}
        self.env.pop("WAYLAND_DISPLAY", None)
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "live_inference.py", *map(str, args)],
            cwd=folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while not self.xdotool("search", "--onlyvisible", "--name", TITLE):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        self.window = self.xdotool("search", "--onlyvisible", "--name", TITLE).split()[-1]
        time.sleep(0.5)

    def xdotool(self, *args):
        result = subprocess.run(["xdotool", *args], env=self.env, capture_output=True, text=True)
        return result.stdout.strip()

    def press(self, key):
        deadline = time.monotonic() + 10
        while self.xdotool("getwindowfocus") != self.window and time.monotonic() < deadline:
            self.xdotool("windowfocus", self.window)
            time.sleep(0.2)
        self.xdotool("key", key)
        time.sleep(0.5)

    def quit(self, press, *key):
        """Presses until the program ends, since events can get lost; returns the same as `end`."""
        for _ in range(10):
            press(*key)
            try:
                return self.end(3)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError("the program does not end")

    def press_close_button(self):
        """Sends what a window manager sends (ICCCM 4.2.8.1)."""
        connection = Display(self.env["DISPLAY"])
        window = connection.create_resource_object("window", int(self.window))
        protocols, delete = map(connection.intern_atom, ("WM_PROTOCOLS", "WM_DELETE_WINDOW"))
        data = (32, [delete, CurrentTime, 0, 0, 0])
        window.send_event(ClientMessage(window=window, client_type=protocols, data=data))
        connection.flush()
        connection.close()

    def screenshot(self):
        """Saves a screenshot with the program's own key; returns the image."""
        before = set(self.folder.glob("screenshot_*.png"))
        while True:
            self.press("s")
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                if new := set(self.folder.glob("screenshot_*.png")) - before:
                    return cv2.imread(str(new.pop()))
                time.sleep(0.05)
            assert self.process.poll() is None

    def end(self, seconds=15):
        """Waits for the program to end; returns its exit code and output."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, err


@pytest.fixture
def demo(display, clip, weights, tmp_path):
    running = []

    def start(*args):
        source = [] if "--source" in args else ["--source", clip]
        running.append(Demo(display, tmp_path, "--weights", weights, *source, *args))
        return running[-1]

    yield start
    for program in running:
        program.process.kill()
        program.process.communicate()


def test_escape_quits_and_leaves_a_playable_video(demo, tmp_path):
    program = demo("--output", tmp_path / "v.avi")
    code, out, err = program.quit(program.press, "Escape")
    assert code == 0, err
    assert "frames/s" in out and "Traceback" not in err
    assert cv2.VideoCapture(str(tmp_path / "v.avi")).read()[0]


def test_close_button_and_keys_that_are_no_letters(demo, tmp_path):
    program = demo()
    for key in ("Left", "Right", "Home", "F1"):  # X11's codes end like those of q, s, p
        program.press(key)
    assert program.process.poll() is None and not list(tmp_path.glob("screenshot_*"))
    code, out, err = program.quit(program.press_close_button)
    assert code == 0, err
    assert "frames/s" in out


def test_keys_change_what_is_shown(demo):
    program = demo()
    program.press("space")
    plain = program.screenshot()
    program.press("m")
    mirrored = program.screenshot()
    program.press("m")
    program.press("p")
    without_bars = program.screenshot()
    program.press("h")
    with_help = program.screenshot()
    assert (mirrored[100:300, 400:600] != plain[100:300, 400:600]).any()
    difference = (without_bars != plain).any(2)
    assert difference[100:400].any() and not difference[440:].any()
    assert (with_help != without_bars).any(2)[350:, :200].mean() > 0.5
    program.press("h")
    program.press("g")
    with_map = program.screenshot()
    program.press("g")
    assert (program.screenshot() == without_bars)[40:].all(), "below the status line"
    difference = (with_map != without_bars).any(2)
    x, y, w, h = drawn_frame([(160, 240, 80)])[1][0]
    assert difference[y : y + h, x : x + w].mean() > 0.1
    difference[y - 20 : y + h + 20, x - 20 : x + w + 20] = False
    assert not difference[40:].any(), "over the face alone"
    assert program.quit(program.press, "q")[0] == 0


def test_every_screenshot_has_a_file(demo, tmp_path):
    program = demo()
    program.press("space")
    program.xdotool("key", "--delay", "150", *"ssssss")
    code, out, err = program.quit(program.press, "q")
    assert code == 0, err
    written = [line.split()[-1] for line in out.splitlines() if line.startswith("wrote")]
    assert len(written) > 2, "several in one second"
    assert sorted(written) == sorted(path.name for path in tmp_path.glob("screenshot_*.png"))


def test_pause_holds_a_file_and_resume_loses_nothing(demo, tmp_path):
    program = demo("--log", tmp_path / "faces.csv")
    program.press("space")
    held = len((tmp_path / "faces.csv").read_text().splitlines())
    time.sleep(1.0)
    assert len((tmp_path / "faces.csv").read_text().splitlines()) == held
    program.press("space")
    time.sleep(0.7)
    assert program.quit(program.press, "q")[0] == 0
    rows = (tmp_path / "faces.csv").read_text().splitlines()[1:]
    frames = [int(row.split(",")[0]) for row in rows]
    assert len(frames) > held and frames == list(range(frames[0], frames[0] + len(frames)))


def test_a_video_plays_at_its_own_speed(demo):
    program = demo("--max-frames", "60")
    code, out, err = program.end(60)
    assert code == 0, err
    rate = float(out.split(" frames/s")[0].split()[-1])
    assert rate < 33, "not faster; slow machines are slower"


def test_an_image_stays_until_a_key(demo, tmp_path):
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), drawn_frame([(320, 240, 90)])[0])
    program = demo("--source", path)
    time.sleep(1.0)
    assert program.process.poll() is None
    code, out, err = program.quit(program.press, "Return")
    assert code == 0 and "face.png: face 1" in out, err


@pytest.mark.parametrize(
    ("code", "key"),
    [(-1, ""), (ord("q"), "q"), (27, "q"), (ord("S"), "s"), (32, " "), (0x10001B, "q"),
     (0x100071, "q"), (0xFF51, ""), (0xFF53, ""), (0xFF50, ""), (0x250000, ""), (0xF702, "")],
)  # fmt: skip
def test_codes_of_keys(monkeypatch, code, key):
    """Of X11 with Num Lock (GTK), of arrows and Home on X11, of arrows on Windows and macOS."""
    monkeypatch.setattr(window.cv2, "waitKeyEx", lambda milliseconds: code)
    screen = window.Window.__new__(window.Window)
    screen.size = None
    assert screen.key(1) == key


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X11 is Linux's")


@linux
def test_a_display_that_does_not_answer(monkeypatch):
    """As an X server behind a firewall, or in WSL."""
    assert window.ANSWER_SECONDS <= 5
    monkeypatch.setattr(window, "ANSWER_SECONDS", 0.3)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        display = f"127.0.0.1:{silent.getsockname()[1] - 6000}"
        monkeypatch.setenv("DISPLAY", display)
        start = time.monotonic()
        with pytest.raises(UserError, match=re.escape(f"DISPLAY={display}")) as caught:
            window.require_display()
    assert time.monotonic() - start < 2 and "--no-window" in str(caught.value)


@linux
def test_a_display_that_answers(display):
    assert window.x_server_answers(display) and window.x_server_answers(f"{display}.0")
    assert not window.x_server_answers(":987")


@pytest.mark.parametrize(
    ("gui", "environment", "parts"),
    [
        ("NONE", {"DISPLAY": ":0"}, ("opencv-python-headless", "pip uninstall -y opencv-python-h")),
        ("QT5", {"WAYLAND_DISPLAY": "wayland-0"}, ("Wayland's", "install Xwayland")),
        ("QT5", {}, ("there is no display to show a window on; add --serve",)),
    ],
)
@linux
def test_the_true_cause_of_no_window(monkeypatch, gui, environment, parts):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    information = f"  GUI:                           {gui}\n    QT: YES"
    monkeypatch.setattr(window.cv2, "getBuildInformation", lambda: information)
    with pytest.raises(UserError) as caught:
        window.require_display()
    assert all(part in str(caught.value) for part in (*parts, "--no-window"))


@linux
def test_a_qt_platform_that_opencv_has_not(display, monkeypatch):
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("QT_QPA_PLATFORM", "wayland")
    if not window.gui().startswith("QT"):
        pytest.skip("this OpenCV does not use Qt")
    with pytest.raises(UserError, match="no QT_QPA_PLATFORM=wayland; run: unset QT_QPA_PLATFORM"):
        window.require_display()
