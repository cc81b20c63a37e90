"""How old a frame is when it is shown, beside the loop that tutorials write.

    python benchmarks/frame_age.py
    python benchmarks/frame_age.py --source video.mp4 --sizes 1280x720 --seconds 30

Both look through a stand-in of a webcam: it takes 30 frames a second and buffers 4, as cameras do,
and a frame's age counts from the moment it was taken. Whoever is slower than the camera reads ever
older frames from the buffer, unless a thread of its own empties it.
"""

import contextlib
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from advanced_network import CNN
from benchmarks.live import Plain, all_cores, benchmark_parser, clips
from ferlab import cli
from ferlab.classifier import Classifier
from ferlab.faces import HaarDetector
from ferlab.frames import LiveSource
from ferlab.live import LiveRun
from ferlab.pipeline import Pipeline, share_cores
from live_inference import make_parser

CAMERA_RATE, CAMERA_BUFFER = 30.0, 4


class BufferedCamera:
    """A stand-in of `cv2.VideoCapture`: keeps the oldest frames that nobody has read yet.

    A frame's number stands in its first two pixels, so that its age can be told at the end.
    """

    def __init__(self, frames: list[np.ndarray]):
        self.frames, self.taken = frames, []
        self.start = time.perf_counter()
        self.buffer: deque[int] = deque()

    def isOpened(self) -> bool:
        return True

    def release(self) -> None:
        pass

    def read(self) -> tuple[bool, np.ndarray | None]:
        if len(self.taken) >= 60_000:
            return False, None
        self._fill()
        while not self.buffer:
            time.sleep(0.0005)
            self._fill()
        number = self.buffer.popleft()
        frame = self.frames[number % len(self.frames)].copy()
        frame[0, 0], frame[0, 1] = number // 256, number % 256
        return True, frame

    def _fill(self) -> None:
        """Takes the pictures that are due; those that find the buffer full are lost."""
        while (due := self.start + len(self.taken) / CAMERA_RATE) <= time.perf_counter():
            if len(self.buffer) < CAMERA_BUFFER:
                self.buffer.append(len(self.taken))
            self.taken.append(due)

    def age(self, frame: np.ndarray) -> float:
        """Returns how long ago a frame was taken, seconds."""
        return time.perf_counter() - self.taken[int(frame[0, 0, 0]) * 256 + int(frame[0, 1, 0])]


class AgeGauge:
    """In the place of a window: notes the age of each frame when it is shown."""

    def __init__(self, camera: BufferedCamera, seconds: float):
        self.camera, self.end = camera, time.perf_counter() + seconds
        self.ages: list[float] = []
        self.run: LiveRun

    def show(self, picture: np.ndarray) -> None:
        self.ages.append(self.camera.age(self.run.frame.image))

    def key(self, milliseconds: int) -> str:
        return "q" if time.perf_counter() > self.end else ""


def frame_ages(video: Path, weights: Path, seconds: float) -> tuple[list[float], list[float]]:
    """Returns the ages of shown frames, seconds: of the live program, and of the plain loop."""
    capture, frames = cv2.VideoCapture(str(video)), []
    while True:
        there, frame = capture.read()
        if not there:
            break
        frames.append(frame)
    share_cores()
    flags = make_parser().parse_args(["--quiet"])
    with contextlib.ExitStack() as stack:
        classifier = Classifier(weights, "advanced", CNN)
        pipeline = Pipeline(HaarDetector(), classifier, flags.smoothing)
        stack.callback(pipeline.close)
        camera = BufferedCamera(frames)
        gauge = AgeGauge(camera, seconds)
        source = LiveSource("camera", lambda: camera, camera, CAMERA_RATE)
        stack.callback(source.close)
        gauge.run = LiveRun(flags, pipeline, source, gauge, stack)
        gauge.run.go()
    all_cores()
    plain, camera, ages = Plain(weights), BufferedCamera(frames), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        _, frame = camera.read()
        plain(frame)
        ages.append(camera.age(frame))
    return gauge.ages, ages


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--seconds", type=cli.positive(float), default=15, help="that each side is watched"
    )
    args = parser.parse_args(argv)
    print(f"{'milliseconds':12}{'live_inference.py':>24}{'plain loop':>24}")
    print(f"{'':12}{'median   95 %':>24}{'median   95 %':>24}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for clip, label in clips(args, Path(name)):
            line = f"{label:12}"
            for ages in frame_ages(clip, args.weights, args.seconds):
                median, high = 1e3 * np.quantile(ages, [0.5, 0.95])
                line += f"{median:17.0f}{high:7.0f}"
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
