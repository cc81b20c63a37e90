"""The live demo in a browser: the WebSocket with a plain client, and the page in Chromium."""

import contextlib
import csv
import io
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import ROOT, assert_one_line_error, run_script
from ferlab.constants import REFERENCE_DIR
from ferlab.files import UserError
from ferlab.live.classifier import Classifier
from ferlab.live.detection import HaarDetector
from ferlab.live.frames import FileSource
from ferlab.live.overlay import label_of
from ferlab.live.pipeline import Pipeline
from ferlab.sample.dataset import CLIP_RATE, clip_frames

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("starlette", reason="starlette is not installed")
client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")

from websockets.exceptions import ConnectionClosed, InvalidStatus

from ferlab.live import server

FRAMES = 24  # of the drawn clip


@pytest.fixture(scope="module")
def classifier():
    return Classifier(REFERENCE_DIR / "votes" / "advanced_model.pth", threads=1)


@pytest.fixture(scope="module")
def clip():
    """The first frames of the drawn clip, uint8 `(480, 640, 3)` each."""
    return [image for (image, _, _), _ in zip(clip_frames(), range(FRAMES), strict=False)]


def new_pipeline(classifier):
    return Pipeline(HaarDetector(), classifier, smoothing=0.4, classify_rate=10)


@contextlib.contextmanager
def running(classifier, token="", port=0):
    """Runs a server in a thread; yields its address and its `Faces`."""
    faces = server.Faces(
        lambda: new_pipeline(classifier), "test", classifier.class_names, 0.4, token
    )
    opened = server.open_port(server.Address(port))
    program = server.program(faces, server.Address(port))
    thread = threading.Thread(target=program.run, args=([opened],))
    thread.start()
    try:
        yield f"localhost:{opened.getsockname()[1]}", faces
    finally:
        program.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def served(classifier):
    with running(classifier) as there:
        yield there


@contextlib.contextmanager
def visit(address, kind="video", query="", **options):
    """Yields an open WebSocket, whose first answer has been read."""
    with client.connect(f"ws://{address}/faces?kind={kind}{query}", **options) as there:
        assert "class_names" in json.loads(there.recv(timeout=20))
        yield there


def message(image, time_s, suffix=".png"):
    return struct.pack("<d", time_s) + cv2.imencode(suffix, image)[1].tobytes()


def ask(visitor, image, time_s, suffix=".png"):
    visitor.send(message(image, time_s, suffix))
    return json.loads(visitor.recv(timeout=30))


# -- answers ---------------------------------------------------------------------------------


def test_a_clip_has_the_same_faces_as_in_the_window(served, classifier, clip):
    frames = ((image, "", number / CLIP_RATE) for number, image in enumerate(clip))
    source = FileSource(frames, CLIP_RATE, len(clip), stills=False)
    pipeline = new_pipeline(classifier)
    expected = []
    for frame in pipeline.frames(source):
        faces = pipeline.find(frame, source)
        pipeline.classify(frame, faces)
        labels = [label_of(face, classifier.class_names, 0.4) for face in faces]
        boxes = [(face.id, list(face.rounded_box())) for face in faces]
        expected.append([(*box, *label) for box, label in zip(boxes, labels, strict=True)])
    pipeline.close()
    source.close()
    with visit(served[0]) as visitor:
        answers = [ask(visitor, image, n / CLIP_RATE) for n, image in enumerate(clip)]
    found = [
        [(f["id"], f["box"], f["expression"], pytest.approx(f["confidence"])) for f in a["faces"]]
        for a in answers
    ]
    assert found == expected
    assert sum(map(len, expected)) > 0.9 * FRAMES


def test_a_camera_and_a_picture(served, clip):
    with visit(served[0], "camera") as visitor:
        end = time.monotonic() + 20
        answer, number = {"faces": []}, 0
        while not answer["faces"] and time.monotonic() < end:
            answer = ask(visitor, clip[number % FRAMES], number / CLIP_RATE, ".jpg")
            number += 1
        assert answer["faces"][0]["id"] == 1
    with visit(served[0], "image") as visitor:
        face = ask(visitor, clip[0], 0.0)["faces"][0]
        assert face["found"] and sum(face["probs"]) == pytest.approx(1, abs=1e-3)


def test_two_visitors_have_their_own_tracks(served, clip):
    with visit(served[0]) as one, visit(served[0]) as two:
        for number in range(12):
            first = ask(one, clip[number], number / CLIP_RATE)
            blank = ask(two, np.zeros_like(clip[0]), number / CLIP_RATE)
        assert [face["id"] for face in first["faces"]] == [1]
        assert blank["faces"] == []


# -- what is refused ---------------------------------------------------------------------------


def bomb():
    """A PNG of 40,000 x 40,000 pixels in few bytes."""
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(100_000)),
    }
    content = b"\x89PNG\r\n\x1a\n"
    for name, part in parts.items():
        check = struct.pack(">I", zlib.crc32(name + part))
        content += struct.pack(">I", len(part)) + name + part + check
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (struct.pack("<d", 1.0) + b"no image", "cannot be read"),
        (struct.pack("<d", 1.0) + bomb(), "too many pixels"),
        (struct.pack("<d", float("nan")), "not after"),
        (b"", "too short"),
        ("text", "too short"),
    ],
)
def test_what_is_no_frame_is_one_error_to_its_sender(served, clip, content, reason):
    with visit(served[0]) as other, visit(served[0]) as visitor:
        visitor.send(content)
        assert reason in json.loads(visitor.recv(timeout=20))["error"]
        with pytest.raises(ConnectionClosed) as closed:
            visitor.recv(timeout=20)
        assert closed.value.rcvd.code == server.REFUSED
        assert "faces" in ask(other, clip[0], 0.0)


def test_broken_jpeg_and_time_that_goes_back(served, clip):
    with visit(served[0]) as visitor:
        ask(visitor, clip[0], 1.0)
        assert "not after" in ask(visitor, clip[0], 1.0)["error"]
    with visit(served[0]) as visitor:
        visitor.send(message(clip[0], 1.0, ".jpg")[:200])
        assert "cannot be read" in json.loads(visitor.recv(timeout=20))["error"]


def test_a_message_too_large_is_not_read(served):
    with visit(served[0]) as visitor:
        visitor.send(bytes(server.LARGEST_MESSAGE + 1))
        with pytest.raises(ConnectionClosed) as closed:
            visitor.recv(timeout=20)
        assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    "options",
    [
        {"additional_headers": {"Host": "example.org"}},
        {"origin": "https://example.org"},
        {"origin": "http://["},
        {"kind": "radio"},
    ],
)
def test_other_sites_are_refused(served, options):
    with pytest.raises(InvalidStatus, match="40[03]"), visit(served[0], **options):
        pass


def test_the_page_of_another_name_is_refused(served):
    for host, status in (("example.org", b"400"), ("localhost", b"200")):
        name, port = served[0].split(":")
        with socket.create_connection((name, int(port))) as there:
            there.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert there.recv(100).split()[1] == status


def test_a_token_is_needed_where_there_is_one(classifier):
    with running(classifier, token="secret") as (address, _):
        for query in ("", "&token=wrong", "&token=%C3%A9"):
            with pytest.raises(InvalidStatus, match="403"), visit(address, query=query):
                pass
        with visit(address, query="&token=secret"):
            pass


def test_the_link_of_an_earlier_run_with_a_token_works_where_none_is_needed(served):
    with visit(served[0], query="&token=old"):
        pass


def test_links():
    assert server.Address(8000).link(8000, "") == "http://localhost:8000/"
    assert server.Address(8000).token() == ""
    public = server.Address(0, "0.0.0.0", Path("a.pem"), Path("b.pem"))
    assert len(public.token()) > 20 and public.token() != public.token()
    assert public.link(443, "t") == f"https://{socket.gethostname()}:443/?token=t"
    assert server.Address(0, "2001:db8::5").link(8000, "t") == "http://[2001:db8::5]:8000/?token=t"
    assert server.Address(8000, domain="faces.example").link(8000, "") == "https://faces.example/"


def test_a_flood_and_a_visitor_who_never_reads_harm_nobody(classifier, clip, monkeypatch):
    monkeypatch.setattr(server, "SEND_SECONDS", 1.0)
    small = message(clip[0][:120, :160].copy(), 0.0)[8:]
    with running(classifier) as (address, faces), visit(address) as other:

        def flood():
            with contextlib.suppress(ConnectionClosed, OSError), visit(address) as sender:
                for number in range(1, 1000):
                    sender.send(struct.pack("<d", number / 30) + small)

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        for number in range(10):
            start = time.monotonic()
            assert "faces" in ask(other, clip[number], number / CLIP_RATE)
            assert time.monotonic() - start < 10
        assert faces.visitors <= 2


def test_a_full_server_says_so(classifier, monkeypatch):
    monkeypatch.setattr(server, "VISITORS", 1)
    with running(classifier) as (address, faces):
        with visit(address), client.connect(f"ws://{address}/faces?kind=video") as second:
            assert "Too many people" in json.loads(second.recv(timeout=20))["error"]
        end = time.monotonic() + 20
        while faces.visitors and time.monotonic() < end:
            time.sleep(0.01)
        with visit(address):
            pass


def test_a_port_in_use_and_no_certificate(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"such as: --serve {port + 1}"):
            server.open_port(server.Address(port))
    with pytest.raises(UserError, match="--host 203.0.113.1 is no address of this machine"):
        server.open_port(server.Address(0, "203.0.113.1"))
    with pytest.raises(UserError, match="--key k.pem needs its certificate"):
        server.open_port(server.Address(0, key=Path("k.pem")))
    (tmp_path / "a.pem").write_text("no certificate")
    flags = ["--certificate", tmp_path / "a.pem", "--key", tmp_path / "a.pem"]
    result = run_script("live_inference.py", "--serve", "0", *map(str, flags))
    assert_one_line_error(result, "a.pem", "no certificate with its key")


def test_missing_packages_are_named():
    program = """
import sys
sys.modules["uvicorn"] = None
import live_inference
sys.exit(live_inference.main(["--serve", "0"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert_one_line_error(result, "pip install starlette uvicorn websockets")


# -- the page in a browser ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def camera_file(clip, tmp_path_factory):
    """What Chromium's fake camera plays: JPEG images one after the other."""
    path = tmp_path_factory.mktemp("camera") / "clip.mjpeg"
    path.write_bytes(b"".join(cv2.imencode(".jpg", image)[1].tobytes() for image in clip))
    return path


@pytest.fixture(scope="module")
def chromium(camera_file):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        pytest.skip("chromium is not installed")
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream"]
    flags.append(f"--use-file-for-fake-video-capture={camera_file}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens a page of its own context; its JavaScript must raise nothing."""
    contexts, faults = [], []

    def opened(address, permissions=("camera",)):
        contexts.append(chromium.new_context(permissions=list(permissions)))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.goto(f"http://{address}/")
        page.wait_for_selector("#status:has-text('Connected')", timeout=20_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def shows(page, where, text, seconds=30):
    page.wait_for_selector(f"#{where}:has-text('{text}')", timeout=1000 * seconds)


def test_camera_in_the_browser(served, open_page, tmp_path):
    page = open_page(served[0])
    page.click("#camera")
    shows(page, "status", "1 face")
    shows(page, "speed", "results/s")
    assert page.get_attribute("#mirror", "aria-pressed") == "true"
    with page.expect_download() as download:
        page.click("#csv")
    text = Path(download.value.path()).read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows and {row["face_id"] for row in rows} == {"1"}
    assert all(float(row["confidence"]) <= 1 for row in rows)
    page.click("#stop")
    shows(page, "status", "Nothing is sent")


def test_camera_denied(served, open_page):
    page = open_page(served[0], permissions=())
    page.click("#camera")
    shows(page, "status", "The camera is denied. Allow it")


def test_picture_in_the_browser(served, open_page, clip, tmp_path):
    page = open_page(served[0])
    cv2.imwrite(str(tmp_path / "face.png"), clip[0])
    page.set_input_files("#file", tmp_path / "face.png")
    shows(page, "status", "1 face")
    with visit(served[0], "image") as visitor:
        face = ask(visitor, clip[0], 0.0, ".jpg")["faces"][0]
    shows(page, "faces", f"1 {face['expression']}")
    (tmp_path / "text.png").write_text("no image")
    page.set_input_files("#file", tmp_path / "text.png")
    shows(page, "status", "cannot show text.png")
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((90, 120, 3), np.uint8))
    page.set_input_files("#file", tmp_path / "black.png")
    shows(page, "status", "no face")


def test_a_camera_that_opens_after_a_picture_is_dropped(served, open_page, clip, tmp_path):
    page = open_page(served[0])
    page.evaluate("""() => {
        const devices = navigator.mediaDevices;
        window.stream = devices.getUserMedia({ video: true });
        const allowed = new Promise((resolve) => { window.allow = resolve; });
        devices.getUserMedia = () => allowed.then(() => window.stream);
    }""")
    page.click("#camera")
    cv2.imwrite(str(tmp_path / "face.png"), clip[0])
    page.set_input_files("#file", tmp_path / "face.png")
    shows(page, "status", "1 face")
    page.evaluate("() => window.allow()")
    end = time.monotonic() + 10
    while page.evaluate("async () => (await window.stream).active"):
        assert time.monotonic() < end, "the camera is still on"
    assert page.is_visible("#image") and not page.is_visible("#video")


def test_two_pages_and_a_server_that_stops_and_starts(classifier, open_page):
    with running(classifier) as (address, _):
        pages = [open_page(address) for _ in range(2)]
        for page in pages:
            page.click("#camera")
        for page in pages:
            shows(page, "faces", "1 ")
    for page in pages:
        shows(page, "status", "connection to the server is lost")
    with running(classifier, port=int(address.split(":")[1])):
        for page in pages:
            shows(page, "status", "1 face")
