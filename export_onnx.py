"""Exports a trained model to ONNX, which runs without torch, and checks it against torch.

    python export_onnx.py             # results/advanced_model.onnx
    python export_onnx.py --int8      # also results/advanced_model_int8.onnx: smaller and faster
    python live_inference.py --weights results/advanced_model_int8.onnx

The file also holds the class names, the preprocessing and the temperature. It maps `images`,
float32 `(N, 1, 48, 48)` in [-1, 1], to `logits`, float32 `(N, classes)`. The float32 model is
written only if it predicts the same class as torch for every test image; for int8, the agreement
and both accuracies are printed. Takes 10 s, with --int8 20 s, on two CPU cores. Latency:
benchmarks/export.py.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ferlab import cli, entry
from ferlab.commands import preparation_command, stage_command
from ferlab.files import UserError, atomic_path
from ferlab.live.weights import default_weights

if TYPE_CHECKING:  # everything heavy is imported after the flags are parsed
    import numpy as np
    import torch
    from torch import nn

    from ferlab.data.splits import Split

RANDOM_IMAGES = 64  # number of images to check on if there is no split


@dataclass(frozen=True)
class Check:
    """The images that a model is checked on.

    Attributes:
        name: name of the images in messages.
        images: float32 `(N, 1, 48, 48)` in [-1, 1].
        labels: int64 `(N,)`; None for random images.
        logits: float32 `(N, classes)` of torch.
    """

    name: str
    images: "torch.Tensor"
    labels: "torch.Tensor | None"
    logits: "np.ndarray"


def prepare_check(model: "nn.Module", splits: "dict[str, Split]") -> Check:
    """Returns the images of the test split, else of val, else random ones, with torch's logits."""
    import torch

    from ferlab.constants import IMAGE_SIZE
    from ferlab.training.prediction import predict_views

    name = next((split for split in ("test", "val") if split in splits), "random")
    if name == "random":
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(RANDOM_IMAGES, 1, IMAGE_SIZE, IMAGE_SIZE, generator=generator) * 2 - 1
        labels = None
    else:
        images, labels = splits[name].images, splits[name].labels
    logits, _ = predict_views(model, images)
    return Check(name, images, labels, logits.numpy())


def compare(content: bytes, check: Check) -> tuple[float, str]:
    """Compares a model, run by onnxruntime, with torch.

    Returns:
        The fraction of images with the same predicted class, and a line to print.
    """
    import numpy as np
    import torch

    from ferlab.live.onnx_classifier import open_session, run
    from ferlab.training.prediction import BATCH

    session = open_session(content, torch.get_num_threads())
    logits = np.concatenate([run(session, batch.numpy()) for batch in check.images.split(BATCH)])
    same = logits.argmax(1) == check.logits.argmax(1)
    text = (
        f"{len(same):,} {check.name} images: same class as torch on {same.sum():,} "
        f"({same.mean():.2%}), largest difference of logits "
        f"{np.abs(logits - check.logits).max():.1e}"
    )
    if check.labels is not None:
        labels = check.labels.numpy()
        accuracy, reference = ((x.argmax(1) == labels).mean() for x in (logits, check.logits))
        text += f", accuracy {accuracy:.4f} (torch {reference:.4f})"
    return float(same.mean()), text


def write(path: Path, content: bytes, check: Check, precision: str) -> None:
    """Checks a model and writes it.

    Raises:
        UserError: the float32 model predicts another class than torch, or the file cannot be
            written.
    """
    agreement, text = compare(content, check)
    if precision == "float32" and agreement < 1:
        raise UserError(f"{path} is not written: it differs from torch; {text}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    print(f"wrote {path} ({precision}, {len(content) / 1e6:.1f} MB)\n  {text}")


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--weights",
        type=Path,
        help="weights file to export (default: the first advanced_model.pth that exists in "
        "votes/ below --results-dir, in --results-dir, and of the shipped ones in reference/)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=cli.DATA_DIR,
        help="folder of the splits to check on, and to calibrate --int8 with",
    )
    parser.add_argument(
        "--results-dir", type=Path, default=cli.RESULTS_DIR, help="folder to write to"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="file to write (default: the name of the weights file with .onnx, in --results-dir)",
    )
    parser.add_argument(
        "--int8", action="store_true", help="also write the int8 model, to <output>_int8.onnx"
    )
    return parser


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the export; returns the exit code."""
    args = make_parser().parse_args(argv)
    weights = args.weights or default_weights(args.results_dir)
    output = args.output or args.results_dir / f"{weights.stem}.onnx"
    if output.suffix.lower() != ".onnx":
        raise UserError(f"--output {output}: the name must end in .onnx")

    from ferlab import stage
    from ferlab.data.splits import available_splits
    from ferlab.export import PACKAGES, describe, to_int8, to_onnx
    from ferlab.live.onnx_classifier import require_packages
    from ferlab.training.weights import load_model

    require_packages(PACKAGES)
    print(f"weights: {weights}")
    model, content = load_model(weights)
    names = tuple(content["class_names"])
    found = available_splits(args.data_dir)
    splits = stage.load_splits(args.data_dir, class_names=names) if found else {}
    calibration = splits.get("train", splits.get("val"))
    if args.int8 and calibration is None:
        raise UserError(
            f"--int8 needs images to calibrate with, and {args.data_dir} has neither the train nor "
            f"the val split; make them with: {preparation_command(args.data_dir)}"
        )
    check = prepare_check(model, splits)
    if check.labels is None:
        print(f"{args.data_dir} has neither the test nor the val split: checking on random images")
    proto = to_onnx(model)
    write(output, describe(proto, content, "float32"), check, "float32")
    if args.int8:
        quantised = to_int8(proto, calibration.images)
        output = output.with_name(f"{output.stem}_int8{output.suffix}")
        write(output, describe(quantised, content, "int8"), check, "int8")
    print(f"next: {stage_command('live_inference.py', '--weights', str(output))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
