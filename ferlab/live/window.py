"""A window on the desktop: whether there can be one, its keys, its close button."""

import os
import subprocess
import sys

import cv2
import numpy as np

from ferlab.files import UserError

ESCAPE = 27
LARGEST = (1600, 900)  # of a window when it opens, pixels
PROBE = "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"


def require_display() -> None:
    """Checks that a window can be opened: OpenCV ends the process where there is no display.

    Raises:
        UserError: it cannot.
    """
    remedy = "add --no-window, with --output VIDEO or --log CSV to keep what it finds"
    if sys.platform.startswith("linux"):
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError(f"there is no display for a window; {remedy}")
        probe = [sys.executable, "-c", PROBE]  # a display that is named may still not be there
        if subprocess.run(probe, capture_output=True, timeout=60).returncode != 0:
            raise UserError(f"the display cannot be opened; {remedy}")
    else:
        try:
            cv2.namedWindow("probe")
            cv2.destroyAllWindows()
        except cv2.error as error:
            raise UserError(f"this OpenCV opens no windows; {remedy}") from error


class Window:
    """A window that shows pictures and tells the keys pressed in it.

    Args:
        title: stands above.
    """

    def __init__(self, title: str):
        require_display()
        self.title = title
        self.size: tuple[int, int] | None = None

    def show(self, picture: np.ndarray) -> None:
        """Shows a picture, uint8 `(H, W, 3)`, BGR."""
        size = picture.shape[1::-1]
        if self.size is None:
            cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)
        if size != self.size:
            fit = min(1.0, LARGEST[0] / size[0], LARGEST[1] / size[1])
            cv2.resizeWindow(self.title, round(size[0] * fit), round(size[1] * fit))
            self.size = size
        cv2.imshow(self.title, picture)

    def key(self, milliseconds: int) -> str:
        """Waits that long, at least 1 ms, for a key; "" for none, "q" also for Esc and closing."""
        code = cv2.waitKey(max(1, milliseconds)) & 0xFF
        if code == ESCAPE or self.closed():
            return "q"
        return "" if code == 0xFF else chr(code).lower()

    def closed(self) -> bool:
        """Whether a person closed the window; what OpenCV then says differs by system."""
        if self.size is None:
            return False
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error:
            return True

    def close(self) -> None:
        """Closes the window."""
        cv2.destroyAllWindows()
