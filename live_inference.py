"""Live demo: finds faces in a camera's picture and names their expressions.

    python live_inference.py                              # camera 0, until q
    python live_inference.py --source video.mp4 --output annotated.mp4 --log faces.csv
    python live_inference.py --source photo.jpg
    python live_inference.py --source sample              # the drawn clip, no camera needed

Keys: q or Esc quits, space pauses, p shows or hides the probability bars, m mirrors, s saves a
screenshot, h lists the keys.

Faces are found with OpenCV's Haar cascade in a thread of its own, ten times a second, and followed
from frame to frame in between; the CNN's probabilities are calibrated and smoothed over time, and
below --min-confidence the label says "unsure". Speed and hit rate: benchmarks/live.py.
"""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")  # before cv2 is imported: errors are told here
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
# Windows: with these on, some cameras take many seconds to open (opencv issue 17687).
os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")

from ferlab import cli
from ferlab.files import UserError
from ferlab.live.app import LiveRun
from ferlab.live.detection import HaarDetector, YuNetDetector
from ferlab.live.onnx_model import OnnxClassifier
from ferlab.live.pipeline import Pipeline, share_cores
from ferlab.live.sources import open_source
from ferlab.live.window import Window

if TYPE_CHECKING:
    from ferlab.live.classifier import Classifier


def size(text: str) -> tuple[int, int]:
    """An argparse type: 640x480."""
    width, height = map(cli.positive(int), text.lower().split("x"))
    return width, height


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--source",
        default="0",
        help="camera number, stream URL, video, picture, folder of pictures, or: sample",
    )
    parser.add_argument("--camera-size", type=size, help="size to ask the camera for, as 1280x720")
    parser.add_argument(
        "--fps",
        type=cli.positive(float),
        help="frame rate to ask a camera for; of a video, to assume",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=cli.RESULTS_DIR / "advanced_model.pth",
        help="written by advanced_network.py, or a .onnx by export_onnx.py",
    )
    parser.add_argument("--detector", choices=("haar", "yunet"), default="haar", help="of faces")
    parser.add_argument("--detector-model", type=Path, help="YuNet's .onnx file")
    parser.add_argument(
        "--smoothing",
        type=cli.not_negative(float),
        default=0.4,
        help="time constant of the probabilities, seconds",
    )
    parser.add_argument(
        "--min-confidence", type=cli.share, default=0.4, help='below it the label says "unsure"'
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="annotated video; of pictures: a picture, or a folder for several",
    )
    parser.add_argument("--log", type=Path, help="CSV with a row for each face in each frame")
    parser.add_argument("--no-window", action="store_true", help="for machines without a display")
    parser.add_argument("--max-frames", type=cli.positive(int), help="stop after so many")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")
    return parser


def open_classifier(args: argparse.Namespace, threads: int) -> "Classifier | OnnxClassifier":
    """Returns the classifier in --weights; a .onnx needs no torch."""
    if args.weights.suffix.lower() == ".onnx":
        classifier = OnnxClassifier(args.weights, threads)
        if classifier.runtime != "onnxruntime" and not args.quiet:
            print(f"{classifier.runtime} runs {args.weights}; quicker: pip install onnxruntime")
        return classifier
    try:
        from advanced_network import CNN
        from ferlab.live.classifier import Classifier
    except ModuleNotFoundError as error:
        raise UserError(
            f"{args.weights} needs {error.name}; install it with: pip install -r requirements.txt, "
            "or name a .onnx file with --weights"
        ) from error
    return Classifier(args.weights, "advanced", CNN, threads)


def open_detector(args: argparse.Namespace) -> HaarDetector | YuNetDetector:
    """Returns the detector that the flags ask for."""
    if args.detector == "haar":
        return HaarDetector()
    if not args.detector_model:
        raise UserError("--detector yunet needs its model; add --detector-model FILE.onnx")
    return YuNetDetector(args.detector_model)


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the demo; returns the exit code."""
    args = make_parser().parse_args(argv)
    for path in (args.output, args.log):
        if path and path.exists() and path.resolve() == Path(args.source).resolve():
            raise UserError(f"{path} is the source itself; choose another name for what is written")
    classifier = open_classifier(args, share_cores())
    detector = open_detector(args)
    run = None
    try:
        with contextlib.ExitStack() as stack:
            window = None if args.no_window else Window("facial expressions")
            if window:
                stack.callback(window.close)
            source = open_source(args.source, args.camera_size, args.fps)
            stack.callback(source.close)
            pipeline = Pipeline(detector, classifier, args.smoothing)
            stack.callback(pipeline.close)
            run = LiveRun(args, pipeline, source, window, stack)
            run.go()
    finally:  # Ctrl-C too ends with everything written and said
        if run and not args.quiet:
            print(run.summary.text(pipeline.seconds, source.stills))
    if source.fault:
        raise source.fault
    written = [str(path) for path in (args.output, args.log) if path]
    if written:
        print(f"wrote {' and '.join(written)}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
