"""Speed, hit rate and frame age of the live program, beside the loop that tutorials write.

    python benchmarks/live.py
    python benchmarks/live.py --source video.mp4 --truth faces.csv --sizes 640x480 1280x720

Both read the same video file, find, classify and draw, and write nothing. The plain loop searches
every whole frame (scale 1.1, 5 neighbours, faces from 30 pixels) and classifies one face at a time
in float32. The truth is a CSV with the columns first, last, faces: how many faces the frames
from first to last show; found faces beyond that count as false. The drawn clip brings its own.

Frame age is how old a frame is when it is shown, at a camera that takes 30 frames a second and
buffers 4, as webcams do.
"""

import argparse
import contextlib
import csv
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from advanced_network import CNN
from benchmarks.webcam import RATE, BufferedCamera, Onlooker
from ferlab import cli
from ferlab.files import UserError
from ferlab.live.app import LiveRun
from ferlab.live.classifier import Classifier, as_input
from ferlab.live.detection import HaarDetector, cut_out
from ferlab.live.frames import FileSource, LiveSource
from ferlab.live.pipeline import STAGES, Pipeline, share_cores
from ferlab.live.sources import open_video
from ferlab.sample.dataset import write_sample_clip
from ferlab.training.checkpoint import load_model
from live_inference import make_parser, size

THREADS = torch.get_num_threads()


class Plain:
    """The loop that tutorials write."""

    def __init__(self, weights: Path):
        self.model, content = load_model(weights, "advanced", CNN)
        self.names = content["class_names"]
        self.detector = HaarDetector(width=0)

    def __call__(self, frame: np.ndarray) -> tuple[int, float]:
        """Handles a frame; returns the number of faces and the seconds of classification."""
        gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        boxes, spent = self.detector(frame, gray), 0.0
        for x, y, w, h in boxes:
            start = time.perf_counter()
            with torch.no_grad():
                logits = self.model(as_input(cut_out(frame, (x, y, w, h), 0.0))[None])
            spent += time.perf_counter() - start
            cv2.rectangle(frame, (x, y), (x + w, y + h), (255, 0, 0), 2)
            text = self.names[int(logits.argmax())]
            cv2.putText(frame, text, (x, y - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 0, 0), 2)
        return len(boxes), spent


def all_cores() -> None:
    """Gives OpenCV and torch the threads they take when nobody says anything."""
    cv2.setNumThreads(-1)
    torch.set_num_threads(THREADS)


def frames_of(video: Path) -> Iterator[np.ndarray]:
    """Yields the frames of a video file as OpenCV reads them."""
    capture = cv2.VideoCapture(str(video))
    there, frame = capture.read()
    while there:
        yield frame
        there, frame = capture.read()


def resized(video: Path, new: tuple[int, int], folder: Path) -> Path:
    """Writes `video` at another size, its own shape kept between black bars; returns the file."""
    target = folder / f"{new[0]}x{new[1]}.mp4"
    rate = cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS)
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter_fourcc(*"mp4v"), rate, new)
    for frame in frames_of(video):
        scale = min(new[0] / frame.shape[1], new[1] / frame.shape[0])
        inner = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
        left, top = (new[0] - inner[0]) // 2, (new[1] - inner[1]) // 2
        canvas = np.zeros((new[1], new[0], 3), np.uint8)
        canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(frame, inner)
        writer.write(canvas)
    writer.release()
    return target


def read_truth(path: Path, frames: int) -> np.ndarray:
    """Returns int `(frames,)`: how many faces each frame shows."""
    truth = np.zeros(frames, int)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            truth[int(row["first"]) : int(row["last"]) + 1] = int(row["faces"])
    return truth


def run_live(
    source: FileSource | LiveSource, weights: Path, onlooker: Onlooker
) -> tuple[Pipeline, float]:
    """Runs the live program, drawing but not encoding; returns its pipeline and the seconds."""
    threads = share_cores()
    flags = make_parser().parse_args(["--quiet"])
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        classifier = Classifier(weights, "advanced", CNN, threads)
        pipeline = Pipeline(HaarDetector(), classifier, flags.smoothing)
        stack.callback(pipeline.close)
        onlooker.run = LiveRun(flags, pipeline, source, onlooker, stack)
        start = time.perf_counter()
        onlooker.run.go()
        return pipeline, time.perf_counter() - start


def measure_ours(video: Path, args: argparse.Namespace) -> dict:
    """Runs the live program over a file; returns its numbers."""
    onlooker = Onlooker(lambda run: len(run.found))
    pipeline, took = run_live(open_video(video), args.weights, onlooker)
    counts = onlooker.noted
    stages = {stage: 1e3 * pipeline.seconds[stage] / len(counts) for stage in STAGES}
    per_face = 1e3 * pipeline.seconds["classification"] / max(1, sum(counts))
    return {"counts": counts, "rate": len(counts) / took, "stages": stages, "per_face": per_face}


def measure_plain(video: Path, args: argparse.Namespace) -> dict:
    """Runs the plain loop over a file; returns its numbers."""
    all_cores()
    plain, counts, spent = Plain(args.weights), [], 0.0
    start = time.perf_counter()
    for frame in frames_of(video):
        found, seconds = plain(frame)
        counts.append(found)
        spent += seconds
    took = time.perf_counter() - start
    per_face = 1e3 * spent / max(1, sum(counts))
    return {"counts": counts, "rate": len(counts) / took, "stages": None, "per_face": per_face}


def frame_ages(video: Path, weights: Path, seconds: float) -> tuple[list[float], list[float]]:
    """Looks through the webcam's stand-in with both programs, one after the other.

    Returns:
        The ages of shown frames, seconds: of the live program, and of the plain loop.
    """
    frames = list(frames_of(video))
    camera = BufferedCamera(frames)
    onlooker = Onlooker(lambda run: camera.age(run.frame.image), seconds)
    run_live(LiveSource("camera", lambda: camera, camera, RATE), weights, onlooker)
    all_cores()
    plain, webcam, ages = Plain(weights), BufferedCamera(frames), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        _, frame = webcam.read()
        plain(frame)
        ages.append(webcam.age(frame))
    return onlooker.noted, ages


def alone(weights: Path) -> float:
    """Returns the median milliseconds in which one face is classified, nothing else running."""
    classifier, seconds = Classifier(weights, "advanced", CNN, share_cores()), []
    face = np.zeros((96, 96, 3), np.uint8)
    for _ in range(200):
        start = time.perf_counter()
        classifier([face])
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def age_text(ages: list[float]) -> str:
    """Returns median and 95th percentile of frame ages."""
    median, high = 1e3 * np.quantile(ages, [0.5, 0.95])
    return f"{median:.0f} ms (95 % below {high:.0f})"


def report(name: str, result: dict, truth: np.ndarray | None) -> str:
    """Returns one line of the table."""
    counts = np.array(result["counts"])
    line = f"{name:22}{result['rate']:9.1f}{counts.mean():13.3f}"
    if truth is None:
        line += f"{'-':>10}{'-':>8}"
    else:
        hits = np.minimum(counts, truth).sum() / max(1, truth.sum())
        line += f"{100 * hits:8.1f} %{np.maximum(counts - truth, 0).mean():8.3f}"
    return line + f"{result['per_face']:9.2f}"


def clips(args: argparse.Namespace, folder: Path) -> Iterator[tuple[Path, str]]:
    """Yields the video at each of the sizes, written to `folder`, and the size's name.

    Raises:
        UserError: there is no such video.
    """
    if args.source and not args.source.is_file():
        raise UserError(f"{args.source} is missing; name a video file with --source")
    video = args.source or folder / "clip.mp4"
    if not args.source:
        write_sample_clip(folder)
    for new in args.sizes:
        yield resized(video, new, folder), f"{new[0]}x{new[1]}"


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--source", type=Path, help="a video file; by default the drawn clip")
    parser.add_argument("--truth", type=Path, help="CSV: first, last, faces")
    parser.add_argument(
        "--sizes", type=size, nargs="+", default=[(640, 480), (1280, 720)], help="to measure at"
    )
    parser.add_argument(
        "--weights", type=Path, default=cli.RESULTS_DIR / "advanced_model.pth", help="of the CNN"
    )
    parser.add_argument(
        "--age-seconds", type=cli.positive(float), default=15, help="that each camera is watched"
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for clip, label in clips(args, Path(name)):
            ours, plain = measure_ours(clip, args), measure_plain(clip, args)
            frames, truth = len(plain["counts"]), None
            if args.truth:
                truth = read_truth(args.truth, frames)
            elif not args.source:
                truth = np.ones(frames, int)
            columns = f"{'frames/s':>9}{'faces/frame':>13}{'found':>10}{'false':>8}{'ms/face':>9}"
            print(f"\n{label + f', {frames} frames':22}{columns}")
            print(report("live_inference.py", ours, truth))
            print(report("plain loop", plain, truth))
            print(f"ratio of speeds: {ours['rate'] / plain['rate']:.1f}")
            stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in ours["stages"].items())
            print(f"milliseconds a frame: {stages}")
            fresh, old = frame_ages(clip, args.weights, args.age_seconds)
            print(f"median age of a shown frame: {age_text(fresh)}; plain loop {age_text(old)}")
    print(f"\none face classified, nothing else running: {alone(args.weights):.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
