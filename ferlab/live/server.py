"""The live demo in a browser: a page, and a WebSocket that answers each frame with its faces.

The browser has the camera. It sends the next frame when it has the answer to the last one, so that
no frames queue up on a slow machine. Each visitor has a pipeline of their own, with their own
tracks; nothing is stored.

The first message describes the model, the others the faces (see `visitor.Visitor`).
"""

import asyncio
import errno
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ferlab.cores import available_cores
from ferlab.files import UserError
from ferlab.live.overlay import PALETTE, UNSURE
from ferlab.live.pipeline import Pipeline
from ferlab.live.visitor import KINDS, FrameError, Visitor

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import HTTPConnection

PAGE = Path(__file__).with_name("page")
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
LARGEST_MESSAGE = 4_000_000  # bytes; a frame of 640x480 has about 50,000
WAITING_MESSAGES = 2  # read ahead of a visitor who does not wait for answers
VISITORS = 32  # at the same time
SEND_SECONDS = 10.0  # after which a visitor who reads no answers is disconnected
REFUSED = 1008  # WebSocket's code for a violated policy: the page does not connect again
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the link has the token
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Address:
    """Where the page is served.

    Attributes:
        port: TCP port; 0 for any that is free.
        host: address of the network interface.
        certificate, key: files (PEM) for https.
        domain: name by which browsers reach the page through a reverse proxy.
    """

    port: int
    host: str = "127.0.0.1"
    certificate: Path | None = None
    key: Path | None = None
    domain: str | None = None

    def token(self) -> str:
        """Returns a new token for the link; empty where only this machine reaches the port."""
        return "" if self.host in LOCAL_HOSTS else secrets.token_urlsafe(16)

    def link(self, port: int, token: str) -> str:
        """Returns the page's link; `port` is the one that was opened."""
        name = self.host
        if self.host in ("0.0.0.0", "::"):
            name = socket.gethostname()
        elif self.host in LOCAL_HOSTS:
            name = "localhost"
        elif ":" in name:  # IPv6
            name = f"[{name}]"
        query = f"?token={token}" if token else ""
        if self.domain:
            return f"https://{self.domain}/{query}"
        return f"{'https' if self.certificate else 'http'}://{name}:{port}/{query}"


class Faces:
    """The WebSocket that answers frames.

    Args:
        make_pipeline: returns a new pipeline; the classifier is the same in all.
        model: description of the weights.
        class_names: the classes, in the order of the probabilities.
        min_confidence: minimum probability for a label.
        token: the token that the link must have; empty for none.
    """

    def __init__(
        self,
        make_pipeline: Callable[[], Pipeline],
        model: str,
        class_names: Sequence[str],
        min_confidence: float,
        token: str,
    ):
        self.make_pipeline, self.min_confidence, self.token = make_pipeline, min_confidence, token
        self.visitors = 0
        self.workers = ThreadPoolExecutor(available_cores())
        colours = [PALETTE[number % len(PALETTE)] for number in range(len(class_names))]
        self.settings = {
            "class_names": class_names,
            "colours": [f"#{red:02x}{green:02x}{blue:02x}" for blue, green, red in colours],
            "min_confidence": min_confidence,
            "unsure": UNSURE,
            "model": model,
        }

    async def welcome(self, websocket) -> None:
        """Serves a visitor until they leave."""
        kind = websocket.query_params.get("kind")
        if not has_token(websocket, self.token) or not same_origin(websocket) or kind not in KINDS:
            await websocket.close(REFUSED)  # before accepting it: HTTP 403
            return
        await websocket.accept()
        if self.visitors >= VISITORS:
            await self.refuse(websocket, "Too many people use this server. Try again later.")
            return
        self.visitors += 1
        try:
            await self.converse(websocket, kind)
        finally:
            self.visitors -= 1

    async def converse(self, websocket, kind: str) -> None:
        """Answers frames until the visitor leaves, sends something else, or reads no answers."""
        loop = asyncio.get_running_loop()
        visitor = None
        try:
            await websocket.send_json(self.settings)
            while (event := await websocket.receive())["type"] != "websocket.disconnect":
                if visitor is None:  # a visitor who only looks at the page needs no pipeline
                    visitor = await loop.run_in_executor(
                        self.workers, Visitor, kind, self.make_pipeline, self.min_confidence
                    )
                message = event.get("bytes") or b""
                answer = await loop.run_in_executor(self.workers, visitor.answer, message)
                await asyncio.wait_for(websocket.send_json(answer), SEND_SECONDS)
        except FrameError as error:
            await self.refuse(websocket, str(error))
        except (TimeoutError, RuntimeError, OSError):
            pass  # the visitor reads nothing, or is gone
        finally:
            if visitor:
                self.workers.submit(visitor.close)  # waits for the detection that is running

    async def refuse(self, websocket, reason: str) -> None:
        """Sends a visitor the reason, and disconnects them."""
        try:
            await asyncio.wait_for(websocket.send_json({"error": reason}), SEND_SECONDS)
            await websocket.close(REFUSED)
        except (TimeoutError, RuntimeError, OSError):
            pass


def has_token(connection: "HTTPConnection", token: str) -> bool:
    """Whether the link of a request has the token, or none is needed."""
    given = connection.query_params.get("token", "")
    return not token or secrets.compare_digest(given.encode(), token.encode())


def same_origin(connection: "HTTPConnection") -> bool:
    """Whether a WebSocket was opened by this server's page; programs send no origin."""
    origin = connection.headers.get("origin")
    return origin is None or origin.partition("://")[2] == connection.headers.get("host")


def application(faces: Faces, hosts: Sequence[str]) -> "Starlette":
    """Returns the web application.

    Args:
        faces: the WebSocket.
        hosts: names by which browsers may reach it; "*" for any.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import FileResponse, PlainTextResponse
    from starlette.routing import Route, WebSocketRoute

    def page(request):
        if not has_token(request, faces.token):
            text = "Open the whole link that live_inference.py printed; it ends in ?token=..."
            return PlainTextResponse(text, 403, HEADERS)
        return FileResponse(PAGE / "index.html", headers=HEADERS)

    def part(request):
        return FileResponse(PAGE / Path(request.url.path).name, headers=HEADERS)

    routes = [Route("/", page), Route("/page.css", part), Route("/page.js", part)]
    routes.append(WebSocketRoute("/faces", faces.welcome))
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(routes=routes, middleware=[guard])


def open_port(address: Address) -> socket.socket:
    """Opens the port of an address, and checks its certificate.

    Raises:
        UserError: the port is in use or may not be opened, or the certificate cannot be used.
    """
    if address.key and not address.certificate:
        raise UserError(f"--key {address.key} needs its certificate; add --certificate FILE")
    if address.certificate:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(address.certificate, address.key)
        except OSError as error:  # ssl.SSLError is one
            files = " and ".join(map(str, filter(None, (address.certificate, address.key))))
            reason = error.strerror or error
            raise UserError(f"{files}: no certificate with its key in PEM format ({reason})") from (
                error
            )
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(
                f"port {address.port} cannot be opened: {os.strerror(error.errno)}; choose "
                f"another, such as: --serve {8000 if address.port < 1024 else address.port + 1}"
            ) from error
        raise UserError(
            f"--host {address.host} is no address of this machine; use 127.0.0.1 or 0.0.0.0"
        ) from error


def program(faces: Faces, address: Address) -> "uvicorn.Server":
    """Returns the server of an application, for `run(sockets=[...])`."""
    import uvicorn

    hosts = ["*"] if faces.token else [*LOCAL_HOSTS, *filter(None, [address.domain])]
    config = uvicorn.Config(
        application(faces, hosts),
        log_level="error",
        access_log=False,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        ws_max_size=LARGEST_MESSAGE,
        ws_max_queue=WAITING_MESSAGES,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def serve(faces: Faces, address: Address, opened: socket.socket) -> None:
    """Serves the page on a port that was opened, until Ctrl-C."""
    port = opened.getsockname()[1]
    print(f"open {address.link(port, faces.token)}    (Ctrl-C ends the program)", flush=True)
    if faces.token and not address.certificate:
        print(
            "browsers give a camera only to localhost and https: add --certificate and --key, or "
            f"forward the port: ssh -L {port}:localhost:{port} THIS_MACHINE"
        )
    program(faces, address).run([opened])
