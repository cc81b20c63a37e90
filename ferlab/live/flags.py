"""The flags of live_inference.py."""

import argparse
from pathlib import Path

from ferlab import cli


def port(text: str) -> int:
    """An argparse type: a TCP port; 0 stands for any that is free."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def frame_size(text: str) -> tuple[int, int]:
    """An argparse type: 640x480."""
    width, height = map(cli.positive(int), text.lower().split("x"))
    return width, height


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of live_inference.py, whose help begins with `description`."""
    result = cli.parser(description)
    result.add_argument(
        "--source",
        default="0",
        help="source of the frames: the number or device file of a camera, the URL of a stream or "
        "file, a video, an image, a folder of images, or: sample",
    )
    result.add_argument(
        "--camera-size",
        type=frame_size,
        metavar="WxH",
        help="frame size to request from the camera, such as 1280x720",
    )
    result.add_argument(
        "--fps",
        type=cli.positive(float),
        help="frame rate to request from the camera, to assume for a stream, or to use for a video "
        "in place of its time stamps",
    )
    result.add_argument(
        "--weights",
        type=Path,
        help="weights file of any model script, or .onnx file of export_onnx.py (default: the "
        "first advanced_model.pth that exists in results/votes/, results/, reference/votes/ and "
        "reference/)",
    )
    result.add_argument(
        "--detector", choices=("haar", "yunet"), default="haar", help="method of face detection"
    )
    result.add_argument(
        "--detector-model", type=Path, help=".onnx file of the model for --detector yunet"
    )
    result.add_argument(
        "--smoothing",
        type=cli.not_negative(float),
        default=0.4,
        metavar="SECONDS",
        help="time constant of the smoothing of probabilities; 0 turns it off",
    )
    result.add_argument(
        "--classify-rate",
        type=cli.positive(float),
        default=10,
        metavar="PER_SECOND",
        help="maximum number of classifications of each face per second; a new face is classified "
        "at once",
    )
    result.add_argument(
        "--min-confidence",
        type=cli.fraction,
        default=0.4,
        help='minimum probability for a label; below it, "unsure" is shown',
    )
    result.add_argument(
        "--explain",
        action="store_true",
        help="show the class activation map (Grad-CAM) from the start, as after key g: over the "
        "widest face of a frame, or over each face of an image; red areas raise the logit of the "
        "predicted expression; needs the .pth file of advanced_network.py",
    )
    result.add_argument(
        "--output",
        type=Path,
        help="annotated video to write; for an image an annotated image, for several a folder",
    )
    result.add_argument(
        "--codec",
        choices=("h264", "vp9", "mp4v", "mjpg"),
        help="codec of the annotated video; h264 and vp9 play in browsers and need: pip install av "
        "(default: for .mp4 h264 if PyAV is installed, else mp4v; for .webm vp9; for .avi mjpg)",
    )
    result.add_argument(
        "--log", type=Path, help="CSV file to write, with one row per face and frame"
    )
    result.add_argument(
        "--no-window", action="store_true", help="show no window, for machines without a display"
    )
    result.add_argument(
        "--max-frames", type=cli.positive(int), help="number of frames after which to stop"
    )
    result.add_argument("--quiet", action="store_true", help="print no progress bar and no summary")
    _add_server_flags(result)
    return result


def _add_server_flags(result: argparse.ArgumentParser) -> None:
    """Adds the flags of --serve."""
    add = result.add_argument_group("the demo in a browser").add_argument
    add(
        "--serve",
        type=port,
        nargs="?",
        const=8000,
        metavar="PORT",
        help="serve a page that sends a browser's camera here (PORT: 8000 if not given)",
    )
    add(
        "--host",
        default="127.0.0.1",
        help="address of the network interface to serve on, or 0.0.0.0 for all; the link then has "
        "a token",
    )
    add("--certificate", type=Path, metavar="PEM", help="certificate, to serve https")
    add("--key", type=Path, metavar="PEM", help="key of the certificate")
    add("--domain", help="name under which a reverse proxy on this machine serves the page")
