"""Streams and files on a server: what ends, what is reconnected, what is said of it."""

import http.server
import re
import threading
import time
from pathlib import Path

import cv2
import pytest
from media import everything, picture, write_timed, write_video
from test_videos import EVEN, noisy_video

from ferlab.files import UserError
from ferlab.live import sources, urls
from ferlab.live.sources import open_source


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the files of `server.folder`, and /live: motion JPEG of `server.frames` images."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.seen.append(self.path)
        self.server.logins.append(self.headers.get("Authorization"))
        if self.path == "/live":
            return self.send_live()
        if self.path == "/half.png":
            return self.send_half()
        path = self.server.folder / self.path.strip("/").split("?")[0]
        if not path.is_file():
            return self.send_error(404)
        content, start = path.read_bytes(), 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if self.server.ranges and asked:
            start = int(asked[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", self.server.kinds.get(path.suffix, "video/mp4"))
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:])

    def send_half(self):
        self.send_response(200)
        self.send_header("Content-Length", "20000")
        self.end_headers()
        self.wfile.write(bytes(10_000))
        self.server.stalled.wait(20)

    def send_live(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        first = self.server.seen.count("/live") == 1
        for _ in range(5 if first else 1000):
            content = cv2.imencode(".jpg", picture(50 if first else 200))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
            self.wfile.write(head.encode() + content + b"\r\n")
            time.sleep(0.02)
        self.server.stalled.wait(20)


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # a client that leaves early


@pytest.fixture
def server(tmp_path):
    yield from running_server(tmp_path)


def running_server(tmp_path):
    """Yields a server of the files in a folder; its `url` ends without a slash."""
    server = Server(("127.0.0.1", 0), Handler)
    server.folder, server.ranges, server.kinds = tmp_path, True, {}
    server.seen, server.logins, server.stalled = [], [], threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.stalled.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_on_a_server_plays_once(server, ranges):
    server.ranges = ranges
    write_video(server.folder / "clip.avi")
    noisy_video(server.folder / "large.mp4", 40, (320, 240))  # 2 MB, its index at the end
    for name, count in (("clip.avi", 25), ("large.mp4", 40)):
        source = open_source(f"{server.url}/{name}?token=secret")
        assert not source.live and source.length == count
        assert len(everything(source, 20)) == count and source.error is None
        assert "secret" not in source.name


def test_a_file_without_a_stated_length_ends_too(server):
    write_timed(server.folder / "clip.webm", EVEN, "libvpx", live="1")
    source = open_source(f"{server.url}/clip.webm")
    assert not source.live and len(everything(source)) == 60 and source.error is None


def test_a_copy_is_deleted(server, capsys):
    cv2.imwrite(str(server.folder / "pho%00to.png"), picture(90))  # no file can have such a name
    source = open_source(server.url.replace("//", "//me:pa@ss@") + "/pho%00to.png")
    (frame,) = everything(source)
    assert source.stills and frame.name.endswith("photo.png")
    assert server.logins == ["Basic bWU6cGFAc3M="]
    said = capsys.readouterr().err
    assert said == f"downloading {server.url}/pho%00to.png\n", "no password"
    assert not Path(frame.name).exists()


def test_a_download_that_stalls(server, monkeypatch):
    monkeypatch.setattr(urls, "ASK_SECONDS", 0.3)
    reason = r"half\.png cannot be downloaded: the server does not answer within 0\.3 s; check"
    with pytest.raises(UserError, match=reason):
        open_source(f"{server.url}/half.png")


def test_the_reason_why_a_url_cannot_be_opened(server):
    (server.folder / "page.html").write_text("<html>")
    server.kinds = {".html": "text/html"}
    host = server.url.removeprefix("http://")
    reasons = {
        f"http://me:secret@{host}/none.mp4?key=secret": "the server answers 404 Not Found",
        f"http://{host}/page.html": "the server sends text/html, not a video",
        "http://me:secret@127.0.0.1:9/x.mp4": "connection refused",
        "rtsp://me:secret@127.0.0.1:9/x": "connection refused",
        f"rtsp://me:secret@{host}/x": "sends no video: check path, user and password",
        "http://[secret/x.mp4": "it is not a URL that can be read",
    }
    for url, reason in reasons.items():
        with pytest.raises(UserError) as caught:
            open_source(url)
        assert reason in str(caught.value) and "plugged" not in str(caught.value)
        assert "secret" not in str(caught.value).replace("http://[secret", "")


def test_a_file_that_is_no_video(server):
    (server.folder / "x.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"127.0.0.1:\d+/x\.mp4 is not a video that OpenCV can"):
        open_source(f"{server.url}/x.mp4")


def test_a_stream_that_stalls_is_reconnected(server, monkeypatch):
    monkeypatch.setattr(sources, "READ_MS", 700)
    source = open_source(f"{server.url}/live")
    assert source.live and not source.camera
    levels, deadline = [], time.monotonic() + 10
    while not levels or levels[-1] < 150:
        assert time.monotonic() < deadline and not source.ended
        frame = source.read(0.05)
        levels += [frame.image.mean()] if frame else []
    start = time.monotonic()
    source.close()
    assert levels[0] == pytest.approx(50, abs=4) and server.seen.count("/live") == 2
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("rtsp://user:pass@host:554/stream", "rtsp://host:554/stream"),
        ("rtsp://user:p@ss/w@host/stream", "rtsp://host/stream"),
        ("http://host/a.mp4?token=1#x", "http://host/a.mp4?..."),
        ("http://host/a.mp4", "http://host/a.mp4"),
    ],
)
def test_what_is_printed_of_a_url(url, text):
    assert urls.shown(url) == text
