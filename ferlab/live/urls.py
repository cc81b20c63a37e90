"""Asks the server of a URL whether it has a file there, and downloads files."""

import base64
import re
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from ferlab.files import UserError, naming_write_errors

ASK_SECONDS = 5.0  # for which a server may take to answer
PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935}
PLAYLISTS = ("mpegurl", "dash+xml")  # in content types
FAULTS = (OSError, ValueError, HTTPException)  # of connections and of URLs


@dataclass(frozen=True)
class Answer:
    """A server's answer to a URL.

    Attributes:
        is_file: whether the URL is that of a file of a known size, which can be downloaded.
        reason: why OpenCV cannot open the URL.
    """

    is_file: bool
    reason: str


def shown(url: str) -> str:
    """Returns a URL as it may be printed: without user, password and query, which hold secrets."""
    url = re.sub(r"(?<=://).*@", "", url, flags=re.DOTALL)
    return re.sub(r"[?#].*", "?...", url, flags=re.DOTALL)


def request_of(url: str) -> urllib.request.Request:
    """Returns the request of a URL; user and password become a header."""
    parts = urlsplit(url)
    user, found, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
    request.add_header("User-Agent", "live_inference")
    if found:
        encoded = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return request


def ask(url: str) -> Answer:
    """Asks the server of a URL what is there."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            port = parts.port or PORTS.get(parts.scheme)
            if not (parts.hostname and port):
                return Answer(
                    False, "OpenCV knows no such stream, or there is none at this address"
                )
            socket.create_connection((parts.hostname, port), ASK_SECONDS).close()
            reason = "the server answers but sends no video: check path, user and password"
            return Answer(False, reason)
        with urllib.request.urlopen(request_of(url), timeout=ASK_SECONDS) as reply:
            kind, size = reply.headers.get_content_type(), reply.headers.get("Content-Length")
    except FAULTS as error:
        return Answer(False, reason_of(error))
    is_text = kind.startswith(("text/", "multipart/")) or any(part in kind for part in PLAYLISTS)
    return Answer(bool(size) and not is_text, f"the server sends {kind}, not a video")


def reason_of(error: Exception) -> str:
    """Returns why a connection failed, without the URL."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    error = getattr(error, "reason", error)
    if isinstance(error, socket.gaierror):
        return "there is no such host, or no network"
    if isinstance(error, TimeoutError):
        return f"the server does not answer within {ASK_SECONDS:g} s"
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    return "it is not a URL that can be read"


def download(url: str) -> tuple[tempfile.TemporaryDirectory, Path]:
    """Downloads a file into a temporary folder; returns both.

    Raises:
        UserError: the server does not send it, or it cannot be written.
    """
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    name = Path(unquote(urlsplit(url).path)).name.replace("\0", "")
    path = Path(folder.name, name or "file")
    print(f"downloading {shown(url)}", file=sys.stderr)
    with naming_write_errors(path), path.open("wb") as file:
        for chunk in content_of(url):
            file.write(chunk)
    return folder, path


def content_of(url: str) -> Iterator[bytes]:
    """Yields the content of a file on a server in parts.

    Raises:
        UserError: the server does not send all of it.
    """
    received = 0
    try:
        with urllib.request.urlopen(request_of(url), timeout=ASK_SECONDS) as reply:
            while chunk := reply.read(1 << 20):
                received += len(chunk)
                yield chunk
            size = int(reply.headers.get("Content-Length", received))
    except FAULTS as error:
        reason = f"{reason_of(error)}; check the URL and the network"
        raise UserError(f"{shown(url)} cannot be downloaded: {reason}") from error
    if received < size:
        raise UserError(f"{shown(url)} was cut short by the network; run the same command again")
