"""A window on the desktop, its keys and its close button."""

import os
import re
import socket
import subprocess
import sys

import cv2
import numpy as np

from ferlab.files import UserError

ESCAPE = 27
MAX_SIZE = (1600, 900)  # of a window when it opens, pixels
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"
ANSWER_SECONDS, PROBE_SECONDS = 5, 30  # for an X server's first byte, and for a first window
SETUP = b"l\0\x0b\0\0\0\0\0\0\0\0\0"  # a client's first bytes: little-endian, X11, no authorisation
REMEDY = (
    "add --serve to watch in a browser, or --no-window, with --output VIDEO or --log CSV to save "
    "the results"
)


def require_display() -> None:
    """Checks that a window can be opened: without a display, OpenCV ends the process.

    Raises:
        UserError: no window can be opened.
    """
    if gui() == "NONE":
        raise UserError(
            "this OpenCV opens no windows: opencv-python-headless replaces opencv-python where "
            "both are installed; run: pip uninstall -y opencv-python-headless opencv-python && "
            f"pip install 'opencv-python<5'; or {REMEDY}"
        )
    if not sys.platform.startswith("linux"):
        try:
            cv2.namedWindow("probe")
            cv2.destroyAllWindows()
        except cv2.error as error:
            raise UserError(f"no window can be opened; {REMEDY}") from error
        return
    display = os.environ.get("DISPLAY")
    if not display and gui().startswith("QT"):  # its wheels open windows of X11 only
        wayland = " but Wayland's, and OpenCV needs X11: install Xwayland"
        wayland = wayland if os.environ.get("WAYLAND_DISPLAY") else ""
        raise UserError(f"there is no display to show a window on{wayland}; {REMEDY}")
    if display and not x_server_answers(display):
        raise UserError(
            f"the display cannot be opened: no X server answers at DISPLAY={display}; start it or "
            f"let it through the firewall, or {REMEDY}"
        )
    try:  # OpenCV would end this process
        probe = [sys.executable, "-c", PROBE]
        result = subprocess.run(probe, capture_output=True, text=True, timeout=PROBE_SECONDS)
        opened, said = result.returncode == 0, result.stderr
    except subprocess.TimeoutExpired:
        opened, said = False, ""
    if not opened:
        reason = reason_of(said)
        remedy = f"or {REMEDY}" if "run:" in reason else REMEDY
        raise UserError(f"the display cannot be opened{reason}; {remedy}")


def gui() -> str:
    """Returns what OpenCV opens windows with: QT5, GTK3, WIN32UI, COCOA ...; NONE for nothing."""
    found = re.search(r"^\s*GUI:\s*(\S*)", cv2.getBuildInformation(), re.MULTILINE)
    return found[1].upper() if found else ""


def x_server_answers(display: str) -> bool:
    """Whether an X server answers at `display` (host:number.screen) within ANSWER_SECONDS.

    A refusal is an answer. True also where the form of `display` is unknown.
    """
    parts = re.fullmatch(r"(.*?)(?:/unix)?:(\d+)(?:\.\d+)?", display)
    if parts is None or display.startswith(("/", "unix:/")):
        return True
    host, number = parts[1].removeprefix("tcp/").strip("[]"), int(parts[2])
    local = f"/tmp/.X11-unix/X{number}"
    if host not in ("", "unix"):
        return answers(socket.AF_UNSPEC, (host, 6000 + number))
    return answers(socket.AF_UNIX, local if os.path.exists(local) else "\0" + local)


def answers(family: int, address: tuple[str, int] | str) -> bool:
    """Whether an X server answers at one address."""
    try:
        if family == socket.AF_UNSPEC:
            connection = socket.create_connection(address, ANSWER_SECONDS)
        else:
            connection = socket.socket(family)
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(address)
        with connection:
            connection.sendall(SETUP)
            return bool(connection.recv(1))
    except (OSError, ValueError):
        return False


def reason_of(said: str) -> str:
    """Returns why a window could not be opened, from what the attempt printed."""
    platform = os.environ.get("QT_QPA_PLATFORM", "")
    if "platform plugin" in said and platform and not platform.startswith("xcb"):
        return f": this OpenCV has no QT_QPA_PLATFORM={platform}; run: unset QT_QPA_PLATFORM"
    if "platform plugin" in said and "xcb" in said and "could not connect" not in said:
        return ": Qt's libraries are incomplete; on Ubuntu run: sudo apt install libxcb-cursor0"
    missing = re.search(r"error while loading shared libraries: (\S+)|ImportError: (\S+):", said)
    if missing:
        return f": {missing[1] or missing[2]} is not installed"
    display = os.environ.get("DISPLAY")
    return f" at DISPLAY={display}" if display else ""


class Window:
    """A window that shows images and reports the keys pressed in it.

    Args:
        title: title of the window.
    """

    def __init__(self, title: str):
        require_display()
        self.title = title
        self.size: tuple[int, int] | None = None

    def show(self, image: np.ndarray) -> None:
        """Shows an image, uint8 `(H, W, 3)`, BGR."""
        size = image.shape[1::-1]
        if self.size is None:
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)
        if size != self.size:
            fit = min(1.0, MAX_SIZE[0] / size[0], MAX_SIZE[1] / size[1])
            cv2.resizeWindow(self.title, round(size[0] * fit), round(size[1] * fit))
            self.size = size
        cv2.imshow(self.title, image)

    def key(self, milliseconds: int) -> str:
        """Returns the key pressed within that time, at least 1 ms: "" for none or for one without a
        character, such as an arrow; "q" also for Esc and the close button.
        """
        code = cv2.waitKeyEx(max(1, milliseconds))
        code = code & 0xFFFF if code >= 0 else 0  # GTK adds modifiers, such as Num Lock, above
        if code == ESCAPE or self.closed():
            return "q"
        return chr(code).lower() if 0 < code <= 0xFF else ""

    def closed(self) -> bool:
        """Whether the user closed the window; OpenCV's answer differs by system."""
        if self.size is None:
            return False
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:
            return True

    def close(self) -> None:
        """Closes the window."""
        cv2.destroyAllWindows()
