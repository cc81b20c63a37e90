"""Throughput, detection rate and latency of the live program and of a plain loop.

    python benchmarks/live.py
    python benchmarks/live.py --source video.mp4 --truth faces.csv --sizes 640x480 1280x720

Both read the same video file, detect, classify and draw, and write nothing. The plain loop, as in
tutorials, detects faces in every whole frame (scale 1.1, 5 neighbours, faces from 30 pixels) and
classifies one face at a time in float32. The truth is a CSV with the columns first, last, faces:
the number of faces in the frames from first to last; detections beyond it count as false. The
drawn clip shows one face in every frame.

With ONEDNN_MAX_CPU_ISA=AVX2 in the environment and --precision float32, a newer CPU computes as one
without AVX-512 and bfloat16.

Latency is the time from the capture of a frame to its display, for a camera that captures 30 frames
per second and buffers 4, as webcams do.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.plain_loop import Plain, all_cores, frames_of, resized
from benchmarks.tables import read_rows
from benchmarks.webcam import RATE, BufferedCamera, Probe
from ferlab import cli, entry
from ferlab.files import UserError, require_file
from ferlab.live import flags
from ferlab.live.app import LiveOptions, LiveRun
from ferlab.live.classifier import Classifier
from ferlab.live.detection import HaarDetector
from ferlab.live.frames import FileSource
from ferlab.live.pipeline import STAGES, Pipeline, reserve_detector_core
from ferlab.live.streams import LiveSource
from ferlab.live.videos import open_video
from ferlab.live.weights import default_weights
from ferlab.sample.dataset import write_sample_clip


def read_truth(path: Path) -> list[tuple[int, int, int]]:
    """Returns the rows first, last, faces: the frames from first to last show that many faces.

    Raises:
        UserError: the file is not a CSV with these columns.
    """
    spans = []
    columns = ("first", "last", "faces")
    for number, row in enumerate(read_rows(path, columns, "--truth"), start=2):
        try:
            first, last, faces = (int(row[column]) for column in columns)
        except ValueError as error:
            raise UserError(f"--truth {path}, line {number}: {error}") from error
        if min(first, faces) < 0 or last < first:
            raise UserError(f"--truth {path}, line {number}: must have 0 <= first <= last, faces")
        spans.append((first, last, faces))
    return spans


def faces_per_frame(spans: list[tuple[int, int, int]], frames: int) -> np.ndarray:
    """Returns int `(frames,)`: the true number of faces in each frame; 0 outside of the spans."""
    truth = np.zeros(frames, int)
    for first, last, faces in spans:
        truth[first : last + 1] = faces
    return truth


def run_live(
    source: FileSource | LiveSource, weights: Path, precision: str, probe: Probe, explain: bool
) -> tuple[Pipeline, float]:
    """Runs the live program without encoding; returns its pipeline and the seconds."""
    threads = reserve_detector_core()
    default = flags.parser(None).get_default
    options = LiveOptions(min_confidence=default("min_confidence"), quiet=True, explain=explain)
    with contextlib.ExitStack() as stack:
        stack.callback(source.close)
        classifier = Classifier(weights, threads, precision)
        pipeline = Pipeline(
            HaarDetector(), classifier, default("smoothing"), default("classify_rate")
        )
        stack.callback(pipeline.close)
        probe.run = LiveRun(options, pipeline, source, probe, stack)
        start = time.perf_counter()
        probe.run.run()
        return pipeline, time.perf_counter() - start


def measure_ours(video: Path, weights: Path, precision: str, explain: bool) -> dict:
    """Runs the live program over a file; returns its numbers."""
    probe = Probe(lambda run: len(run.found))
    pipeline, took = run_live(open_video(video), weights, precision, probe, explain)
    counts = probe.values
    stages = {stage: 1e3 * pipeline.seconds[stage] / len(counts) for stage in STAGES}
    per_face = 1e3 * pipeline.seconds["classification"] / max(1, sum(counts))
    return {"counts": counts, "rate": len(counts) / took, "stages": stages, "per_face": per_face}


def measure_plain(video: Path, weights: Path) -> dict:
    """Runs the plain loop over a file; returns its numbers."""
    all_cores()
    plain, counts, spent = Plain(weights), [], 0.0
    start = time.perf_counter()
    for frame in frames_of(video):
        found, seconds = plain(frame)
        counts.append(found)
        spent += seconds
    took = time.perf_counter() - start
    per_face = 1e3 * spent / max(1, sum(counts))
    return {"counts": counts, "rate": len(counts) / took, "stages": None, "per_face": per_face}


def measure_latencies(
    video: Path, weights: Path, precision: str, seconds: float, explain: bool
) -> tuple[list[float], list[float]]:
    """Runs both programs on the webcam's stand-in, one after the other.

    Returns:
        The latencies of shown frames, seconds: of the live program, and of the plain loop.
    """
    frames = list(frames_of(video))
    camera = BufferedCamera(frames)
    probe = Probe(lambda run: camera.latency(run.frame.image), seconds)
    source = LiveSource("camera", lambda: camera, camera, RATE)
    run_live(source, weights, precision, probe, explain)
    all_cores()
    plain, webcam, latencies = Plain(weights), BufferedCamera(frames), []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        _, frame = webcam.read()
        plain(frame)
        latencies.append(webcam.latency(frame))
    return probe.values, latencies


def face_latencies(weights: Path, precision: str) -> list[float]:
    """Returns the median milliseconds to classify and to explain one face, nothing else running."""
    classifier = Classifier(weights, reserve_detector_core(), precision)
    face, result = np.zeros((96, 96, 3), np.uint8), []
    for call in (lambda: classifier([face]), lambda: classifier.explain([face], [0])):
        seconds = []
        for _ in range(200):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        result.append(1e3 * float(np.median(seconds)))
    return result


def latency_text(latencies: list[float]) -> str:
    """Returns median and 95th percentile of latencies."""
    median, high = 1e3 * np.quantile(latencies, [0.5, 0.95])
    return f"{median:.0f} ms (95th percentile {high:.0f} ms)"


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


def clips(
    source: Path | None, sizes: list[tuple[int, int]], folder: Path
) -> Iterator[tuple[Path, str]]:
    """Yields the video in each size, written to `folder`, and the name of the size.

    Raises:
        UserError: the video is missing.
    """
    if source:
        require_file(source, "name a video file with --source")
    video = source or folder / "clip.mp4"
    if not source:
        write_sample_clip(folder)
    for new in sizes:
        yield resized(video, new, folder), f"{new[0]}x{new[1]}"


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--source", type=Path, help="video file (default: the drawn clip)")
    parser.add_argument(
        "--truth",
        type=Path,
        help="CSV file with the true number of faces: columns first, last, faces",
    )
    parser.add_argument(
        "--sizes",
        type=flags.frame_size,
        nargs="+",
        default=[(640, 480), (1280, 720)],
        help="sizes of the frames",
    )
    parser.add_argument(
        "--weights", type=Path, help="weights file of the CNN (default: that of live_inference.py)"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="number format of the live program's network; auto: bfloat16 where the CPU has it",
    )
    parser.add_argument(
        "--latency-seconds",
        type=cli.positive(float),
        default=15,
        help="duration of the measurement of latency for each program, seconds",
    )
    parser.add_argument(
        "--explain", action="store_true", help="run the live program with --explain"
    )
    args = parser.parse_args(argv)
    spans = read_truth(args.truth) if args.truth else None
    weights = args.weights or default_weights()
    print(f"weights: {weights}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for clip, label in clips(args.source, args.sizes, Path(name)):
            ours = measure_ours(clip, weights, args.precision, args.explain)
            plain = measure_plain(clip, weights)
            frames, truth = len(plain["counts"]), None
            if spans:
                truth = faces_per_frame(spans, frames)
            elif not args.source:
                truth = np.ones(frames, int)
            columns = (
                f"{'frames/s':>9}{'faces/frame':>13}{'detected':>10}{'false':>8}{'ms/face':>9}"
            )
            print(f"\n{label + f', {frames} frames':22}{columns}")
            print(report("live_inference.py", ours, truth))
            print(report("plain loop", plain, truth))
            print(f"ratio of throughputs: {ours['rate'] / plain['rate']:.1f}")
            stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in ours["stages"].items())
            print(f"milliseconds per frame: {stages}")
            ours, plain = measure_latencies(
                clip, weights, args.precision, args.latency_seconds, args.explain
            )
            print(f"median latency: {latency_text(ours)}; plain loop {latency_text(plain)}")
    alone = face_latencies(weights, args.precision)
    print(
        "\none face, nothing else running: classification {:.1f} ms, map {:.1f} ms".format(*alone)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
