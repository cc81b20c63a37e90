"""Statistics of a live run, printed at its end."""

import time
from collections import Counter

import numpy as np

from ferlab.live.pipeline import STAGES


class Summary:
    """Statistics of a run.

    Attributes:
        frames, faces: numbers of frames and of faces in them.
        seconds_of: duration of each expression, summed over all faces, seconds.
        latencies: time from reading to showing of each live frame, seconds.
    """

    def __init__(self) -> None:
        self.frames = self.faces = 0
        self.seconds_of: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.start = time.perf_counter()

    def text(self, seconds: dict[str, float], stills: bool) -> str:
        """Returns the lines printed at the end.

        Args:
            seconds: time spent in each stage (see `Pipeline`).
            stills: the frames were still images: faces are counted instead of seconds.
        """
        frames, elapsed = max(1, self.frames), time.perf_counter() - self.start
        rate = self.frames / elapsed
        lines = [
            f"{_count(self.frames, 'frame')}, {_count(self.faces, 'face')}, {rate:.1f} frames/s"
        ]
        unit, digits = ("faces", 0) if stills else ("seconds", 1)
        sums = [f"{name} {span:.{digits}f}" for name, span in self.seconds_of.most_common()]
        lines.append(f"{unit} of each expression: {', '.join(sums) or 'none'}")
        stages = ", ".join(f"{stage} {1e3 * seconds[stage] / frames:.1f}" for stage in STAGES)
        lines.append(f"milliseconds per frame: {stages}")
        if self.latencies:
            median = 1e3 * np.median(self.latencies)
            lines.append(f"latency from camera to display: {median:.0f} ms (median)")
        return "\n".join(lines)


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}" + "s" * (number != 1)
