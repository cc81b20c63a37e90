"""Live demo: detects the faces in a camera's frames and classifies their expressions.

    python live_inference.py                              # camera 0, until q is pressed
    python live_inference.py --source video.mp4 --output annotated.mp4 --log faces.csv
    python live_inference.py --source photo.jpg
    python live_inference.py --source sample              # the drawn clip: needs no camera

Keys: q or Esc quits, space pauses, p shows or hides the probability bars, m mirrors the image,
s saves a screenshot, h shows or hides the list of keys.

OpenCV's Haar cascade detects faces ten times per second in a thread of its own; in between they are
tracked from frame to frame. The CNN's probabilities are calibrated and smoothed over time; below
--min-confidence the label is "unsure". Throughput and detection rate: benchmarks/live.py.
"""

import argparse
import contextlib
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")  # before cv2 is imported
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
# Windows: with these on, some cameras take many seconds to open (opencv issue 17687).
os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")

from ferlab import cli
from ferlab.files import UserError
from ferlab.live.weights import default_weights

if TYPE_CHECKING:  # everything heavy is imported after the flags are parsed
    from ferlab.live.classifier import Classifier
    from ferlab.live.detection import HaarDetector, YuNetDetector
    from ferlab.live.onnx_classifier import OnnxClassifier


def frame_size(text: str) -> tuple[int, int]:
    """An argparse type: 640x480."""
    width, height = map(cli.positive(int), text.lower().split("x"))
    return width, height


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--source",
        default="0",
        help="source of the frames: the number of a camera, the URL of a stream, a video, an "
        "image, a folder of images, or: sample",
    )
    parser.add_argument(
        "--camera-size",
        type=frame_size,
        metavar="WxH",
        help="frame size to request from the camera, such as 1280x720",
    )
    parser.add_argument(
        "--fps",
        type=cli.positive(float),
        help="frame rate to request from the camera, or to assume for a video or a stream",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        help="weights file of advanced_network.py, or .onnx file of export_onnx.py (default: the "
        "first that exists of results/votes/, results/ and the shipped ones in reference/)",
    )
    parser.add_argument(
        "--detector", choices=("haar", "yunet"), default="haar", help="method of face detection"
    )
    parser.add_argument(
        "--detector-model", type=Path, help=".onnx file of the model for --detector yunet"
    )
    parser.add_argument(
        "--smoothing",
        type=cli.not_negative(float),
        default=0.4,
        metavar="SECONDS",
        help="time constant of the smoothing of probabilities; 0 turns it off",
    )
    parser.add_argument(
        "--min-confidence",
        type=cli.fraction,
        default=0.4,
        help='minimum probability for a label; below it, "unsure" is shown',
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="annotated video to write; for an image an annotated image, for several a folder",
    )
    parser.add_argument(
        "--log", type=Path, help="CSV file to write, with one row per face and frame"
    )
    parser.add_argument(
        "--no-window", action="store_true", help="show no window, for machines without a display"
    )
    parser.add_argument(
        "--max-frames", type=cli.positive(int), help="number of frames after which to stop"
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress bar and no summary")
    add_server_flags(parser)
    return parser


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of --serve."""
    add = parser.add_argument_group("the demo in a browser").add_argument
    add(
        "--serve",
        type=int,
        nargs="?",
        const=8000,
        metavar="PORT",
        help="serve a page that sends a browser's camera here (PORT: 8000 if not given)",
    )
    add(
        "--host",
        default="127.0.0.1",
        help="network interface of --serve; 0.0.0.0 is all, and the link then has a token",
    )
    add("--certificate", type=Path, metavar="PEM", help="certificate, to serve https")
    add("--key", type=Path, metavar="PEM", help="key of the certificate")
    add("--domain", help="name under which a reverse proxy on this machine serves the page")


def load_classifier(path: Path, threads: int) -> "Classifier | OnnxClassifier":
    """Returns the classifier of a weights file, or of a .onnx file, which needs no torch.

    Raises:
        UserError: the file cannot be used, or a package that it needs is not installed.
    """
    if path.suffix.lower() == ".onnx":
        from ferlab.live.onnx_classifier import OnnxClassifier

        return OnnxClassifier(path, threads)
    try:
        from advanced_network import CNN
        from ferlab.live.classifier import Classifier
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path} needs {error.name}; install it with: pip install -r requirements.txt, "
            "or use a .onnx file as --weights"
        ) from error
    return Classifier(path, "advanced", CNN, threads)


def open_detector(name: str, model: Path | None) -> "HaarDetector | YuNetDetector":
    """Returns the detector called `name`.

    Raises:
        UserError: its model is not given or cannot be used.
    """
    from ferlab.live.detection import HaarDetector, YuNetDetector

    if name == "haar":
        return HaarDetector()
    if model is None:
        raise UserError("--detector yunet needs its model; add --detector-model FILE.onnx")
    return YuNetDetector(model)


def run(args: argparse.Namespace) -> None:
    """Runs the demo.

    Raises:
        UserError: anything that the user can fix.
    """
    from ferlab.live.app import LiveOptions, LiveRun
    from ferlab.live.pipeline import Pipeline, reserve_detector_core
    from ferlab.live.sources import open_source
    from ferlab.live.window import Window

    weights = args.weights or default_weights()
    if not args.quiet:
        print(f"weights: {weights}")
    options = LiveOptions(
        args.min_confidence, args.output, args.log, args.max_frames, quiet=args.quiet
    )
    live = None
    try:
        with contextlib.ExitStack() as stack:
            # Importing torch takes longer than opening the window, the detector and the camera.
            loader = stack.enter_context(ThreadPoolExecutor(1))
            loading = loader.submit(load_classifier, weights, reserve_detector_core())
            window = None if args.no_window else Window("facial expressions")
            if window:
                stack.callback(window.close)
            detector = open_detector(args.detector, args.detector_model)
            source = open_source(args.source, args.camera_size, args.fps)
            stack.callback(source.close)
            pipeline = Pipeline(detector, loading.result(), args.smoothing)
            stack.callback(pipeline.close)
            live = LiveRun(options, pipeline, source, window, stack)
            live.run()
    finally:  # also after Ctrl-C
        if live and not args.quiet:
            print(live.summary.text(pipeline.seconds, source.stills))
    if source.error:
        raise source.error


def run_server(args: argparse.Namespace) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        UserError: anything that the user can fix.
    """
    from ferlab.live.onnx_classifier import require_packages

    require_packages(["starlette", "uvicorn", "websockets"])
    from ferlab.live import server
    from ferlab.live.pipeline import Pipeline, reserve_detector_core

    address = server.Address(args.serve, args.host, args.certificate, args.key, args.domain)
    opened = server.open_port(address)
    weights = args.weights or default_weights()
    classifier = load_classifier(weights, reserve_detector_core())
    open_detector(args.detector, args.detector_model)  # a fault shows now

    def make_pipeline() -> Pipeline:
        detector = open_detector(args.detector, args.detector_model)
        return Pipeline(detector, classifier, args.smoothing)

    faces = server.Faces(
        make_pipeline, str(weights), classifier.class_names, args.min_confidence, address.token()
    )
    server.serve(faces, address, opened)


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Parses the flags and runs the demo; returns the exit code."""
    args = make_parser().parse_args(argv)
    if args.serve is not None:
        run_server(args)
        return 0
    for path in (args.output, args.log):
        if path and path.exists() and path.resolve() == Path(args.source).resolve():
            raise UserError(f"{path} is the source itself; choose another name for the output")
    run(args)
    written = [str(path) for path in (args.output, args.log) if path]
    if written:
        print(f"wrote {' and '.join(written)}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
