"""A window on the desktop, its keys and its close button."""

import os
import subprocess
import sys

import cv2
import numpy as np

from ferlab.files import UserError

ESCAPE = 27
MAX_SIZE = (1600, 900)  # of a window when it opens, pixels
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"


def require_display() -> None:
    """Checks that a window can be opened: without a display, OpenCV ends the process.

    Raises:
        UserError: no window can be opened.
    """
    remedy = "add --no-window, and --output VIDEO or --log CSV to save the results"
    if sys.platform.startswith("linux"):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError(f"there is no display to show a window on; {remedy}")
        probe = [sys.executable, "-c", PROBE]  # DISPLAY may name one that does not exist
        try:
            opened = subprocess.run(probe, capture_output=True, timeout=60).returncode == 0
        except subprocess.TimeoutExpired:
            opened = False
        if not opened:
            raise UserError(f"the display cannot be opened; {remedy}")
    else:
        try:
            cv2.namedWindow("probe")
            cv2.destroyAllWindows()
        except cv2.error as error:
            raise UserError(f"this OpenCV opens no windows; {remedy}") from error


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
        """Returns the key pressed within that time, at least 1 ms: "" for none, "q" also for Esc
        and the close button.
        """
        code = cv2.waitKey(max(1, milliseconds)) & 0xFF
        if code == ESCAPE or self.closed():
            return "q"
        return "" if code == 0xFF else chr(code).lower()

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
