"""Which frames of a stream are searched for faces: many where much moves, few where nothing does.

Depends on the frames alone, so that every run over a file searches the same ones.
"""

import cv2
import numpy as np

SIZE = (64, 48)  # frames are compared at this size, pixels
CHANGE = 8  # minimum change of a pixel of that size, grey levels
INTERVALS = ((0.25, 0.1), (0.005, 0.2), (0.0, 0.3))  # changed fraction of pixels, seconds


class Schedule:
    """Chooses the frames to search.

    Args:
        every_frame: whether the detector is fast enough to search each frame.
    """

    def __init__(self, every_frame: bool):
        self.every_frame = every_frame
        self.searched_at = -np.inf
        self.searched: np.ndarray | None = None

    def due(self, gray: np.ndarray, time_s: float) -> bool:
        """Whether to search a frame, by the time and the change since the last one searched.

        Args:
            gray: uint8 `(H, W)`.
            time_s: the frame's time, seconds.
        """
        if self.every_frame:
            return True
        elapsed = time_s - self.searched_at + 1e-3
        if elapsed < INTERVALS[0][1]:
            return False
        small = cv2.resize(gray, SIZE, interpolation=cv2.INTER_AREA)
        changed = 1.0
        if self.searched is not None:
            changed = float((cv2.absdiff(small, self.searched) >= CHANGE).mean())
        interval = next(interval for least, interval in INTERVALS if changed >= least)
        if elapsed < interval:
            return False
        self.searched_at, self.searched = time_s, small
        return True
