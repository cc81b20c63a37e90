"""Live demo: detects the faces in a camera's frames and classifies their expressions.

    python live_inference.py                              # camera 0, until q is pressed
    python live_inference.py --source video.mp4 --output annotated.mp4 --log faces.csv
    python live_inference.py --source photo.jpg
    python live_inference.py --source sample              # the drawn clip: needs no camera
    python live_inference.py --serve                      # in a browser, which has the camera

Keys: q or Esc quits, space pauses, p shows or hides the probability bars, m mirrors the image,
g shows or hides the class activation map (Grad-CAM), s saves a screenshot, h lists the keys.

OpenCV's Haar cascade searches up to ten frames per second in threads of its own; a second cascade
rejects false faces, and faces are tracked from frame to frame. The CNN's probabilities are
calibrated and smoothed over time; below --min-confidence the label is "unsure". Throughput and
detection rate: benchmarks/live.py; false and lost faces: benchmarks/faces.py.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")  # before cv2 is imported
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")
# Windows: with these on, some cameras take many seconds to open (opencv issue 17687).
os.environ.setdefault("OPENCV_VIDEOIO_MSMF_ENABLE_HW_TRANSFORMS", "0")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "3")  # seconds a camera may stall

from ferlab import entry
from ferlab.files import UserError
from ferlab.live import flags
from ferlab.live.weights import default_weights, describe

if TYPE_CHECKING:  # everything heavy is imported after the flags are parsed
    from ferlab.live.classifier import Classifier
    from ferlab.live.detection import HaarDetector, YuNetDetector
    from ferlab.live.onnx_classifier import OnnxClassifier


def load_classifier(path: Path, threads: int) -> "Classifier | OnnxClassifier":
    """Returns the classifier of any model's weights file, or of a .onnx file, which needs no torch.

    Raises:
        UserError: the file cannot be used, or a package that it needs is not installed.
    """
    if path.suffix.lower() == ".onnx":
        from ferlab.live.onnx_classifier import OnnxClassifier

        return OnnxClassifier(path, threads)
    try:
        from ferlab.live.classifier import Classifier
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path} needs {error.name}; install it with: pip install -r requirements.txt, "
            "or use a .onnx file as --weights"
        ) from error
    return Classifier(path, threads)


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


def require_other_files(args: argparse.Namespace) -> None:
    """Raises a UserError if --output or --log is the source, which would be lost."""
    from ferlab.live.sources import local_path

    source = local_path(args.source)
    for path in filter(None, (args.output, args.log)):
        if source and path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{path} is the source itself; choose another name for the output")


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
    options = LiveOptions(
        min_confidence=args.min_confidence,
        output=args.output,
        log=args.log,
        max_frames=args.max_frames,
        quiet=args.quiet,
        codec=args.codec,
        explain=args.explain,
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
            classifier = loading.result()
            if args.explain and not classifier.explains:
                raise UserError(
                    f"--explain needs the .pth file of advanced_network.py, and {weights} is "
                    "another; name one with --weights, or leave out --explain"
                )
            if not args.quiet:
                print(f"weights: {describe(weights, classifier.targets)}")
            pipeline = Pipeline(detector, classifier, args.smoothing, args.classify_rate)
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
    open_detector(args.detector, args.detector_model)  # reports a fault before the first visitor

    def make_pipeline() -> Pipeline:
        detector = open_detector(args.detector, args.detector_model)
        return Pipeline(detector, classifier, args.smoothing, args.classify_rate)

    model = describe(Path(weights.name), classifier.targets)
    faces = server.Faces(
        make_pipeline, model, classifier.class_names, args.min_confidence, address.token()
    )
    server.serve(faces, address, opened)


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Parses the flags and runs the demo; returns the exit code."""
    parser = flags.parser(__doc__)
    args = parser.parse_args(argv)
    if args.serve is not None:
        if args.output or args.log:
            parser.error("--serve writes no --output and no --log; the page has a CSV to download")
        run_server(args)
        return 0
    require_other_files(args)
    start = time.time()
    try:
        run(args)
    finally:  # also at Ctrl-C
        paths = [path for path in (args.output, args.log) if path and path.exists()]
        written = [str(path) for path in paths if path.stat().st_mtime > start - 1]
        if written:
            print(f"wrote {' and '.join(written)}")
    return 0


def leave(code: int) -> None:
    """Ends the process, also where a thread waits inside OpenCV for a camera or the network:
    the interpreter's own end would wait for it, or crash when it returns.
    """
    if any(thread.name == "capture" for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    leave(main())
