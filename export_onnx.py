"""Writes a trained model as ONNX, which runs without torch, and checks it against torch.

    python export_onnx.py             # results/advanced_model.onnx
    python export_onnx.py --int8      # and results/advanced_model_int8.onnx: smaller and faster
    python live_inference.py --weights results/advanced_model_int8.onnx

The file holds the class names, the preprocessing and the temperature too. It maps `images`, float32
`(N, 1, 48, 48)` in [-1, 1], to `logits`, float32 `(N, classes)`. On every test image it must name
torch's class, or nothing is written; of int8, which rounds, the agreement and both accuracies are
told. Takes 10 s, with --int8 20 s, on two CPU cores. Speed: benchmarks/export.py.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from advanced_network import CNN
from basic_nn import MLP
from ferlab import cli, stage
from ferlab.constants import IMAGE_SIZE
from ferlab.data.splits import Split, available_splits, load_tensors
from ferlab.export import describe, require_packages, to_int8, to_onnx
from ferlab.files import UserError, atomic_path
from ferlab.live.onnx_model import with_onnxruntime
from ferlab.training.checkpoint import load_model
from ferlab.training.prediction import BATCH, predict_views
from softmax import SoftmaxRegression
from transfer_learning import TransferNetwork

MODELS = {
    "advanced": CNN,
    "basic_nn": MLP,
    "softmax": SoftmaxRegression,
    "transfer": TransferNetwork,
}
RANDOM_IMAGES = 64  # to check on where there is no split


@dataclass(frozen=True)
class Check:
    """What a model is checked on.

    Attributes:
        name: what the images are called.
        images: float32 `(N, 1, 48, 48)` in [-1, 1].
        labels: int64 `(N,)`; None of random images.
        logits: float32 `(N, classes)`, torch's.
    """

    name: str
    images: torch.Tensor
    labels: torch.Tensor | None
    logits: np.ndarray


def load_weights(path: Path) -> tuple[nn.Module, dict]:
    """Returns the network of a weights file, whichever model it is, and the file's content.

    Raises:
        UserError: as of `checkpoint.load_model`, or no model of MODELS.
    """
    name = load_tensors(path, "train it with: python advanced_network.py").get("model", "advanced")
    if name not in MODELS:
        raise UserError(f"{path} holds weights of {name}; exported are {', '.join(MODELS)}")
    return load_model(path, name, MODELS[name])


def prepare_check(model: nn.Module, splits: dict[str, Split]) -> Check:
    """Returns the test split's images, else val's, else random ones, with torch's logits."""
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
    """Runs a model by onnxruntime.

    Returns:
        The share of images with torch's class, and a line for people.
    """
    network = with_onnxruntime(content, torch.get_num_threads())
    logits = np.concatenate([network(batch.numpy()) for batch in check.images.split(BATCH)])
    same = logits.argmax(1) == check.logits.argmax(1)
    text = (
        f"{len(same):,} {check.name} images: torch's class on {same.sum():,} ({same.mean():.2%}), "
        f"largest difference of logits {np.abs(logits - check.logits).max():.1e}"
    )
    if check.labels is not None:
        right = [(x.argmax(1) == check.labels.numpy()).mean() for x in (logits, check.logits)]
        text += f", accuracy {right[0]:.4f} (torch {right[1]:.4f})"
    return float(same.mean()), text


def write(path: Path, content: bytes, check: Check, precision: str) -> None:
    """Checks a model and writes it.

    Raises:
        UserError: in float32 it names another class than torch, or it cannot be written.
    """
    share, text = compare(content, check)
    if precision == "float32" and share < 1:
        raise UserError(f"{path} is not written, for it differs from torch on {text}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    print(f"wrote {path} ({precision}, {len(content) / 1e6:.1f} MB)\n  {text}")


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the export; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--weights", type=Path, help="default: advanced_model.pth in --results-dir")
    parser.add_argument(
        "--data-dir", type=Path, default=cli.DATA_DIR, help="faces to check on and to calibrate by"
    )
    parser.add_argument(
        "--results-dir",
        type=Path,
        default=cli.RESULTS_DIR,
        help="of the weights and of what is written",
    )
    parser.add_argument(
        "--output", type=Path, help="default: the weights' name with .onnx, in --results-dir"
    )
    parser.add_argument(
        "--int8", action="store_true", help="write the 8 bit model too, as <output>_int8.onnx"
    )
    args = parser.parse_args(argv)
    require_packages()
    weights = args.weights or args.results_dir / "advanced_model.pth"
    output = args.output or args.results_dir / f"{weights.stem}.onnx"
    if output.suffix.lower() != ".onnx":
        raise UserError(f"--output {output}: the name must end in .onnx")
    model, content = load_weights(weights)
    names = tuple(content["class_names"])
    found = available_splits(args.data_dir)
    splits = stage.load_splits(args.data_dir, class_names=names) if found else {}
    faces = splits.get("train", splits.get("val"))
    if args.int8 and faces is None:
        raise UserError(
            f"--int8 needs faces, and {args.data_dir} holds neither the train nor the val split; "
            "make them with: python dataset_preparation.py"
        )
    check = prepare_check(model, splits)
    if check.labels is None:
        print(f"{args.data_dir} holds neither the test nor the val split: the check is on noise")
    proto = to_onnx(model)
    write(output, describe(proto, content, "float32"), check, "float32")
    if args.int8:
        rounded = to_int8(proto, faces.images)
        output = output.with_name(f"{output.stem}_int8{output.suffix}")
        write(output, describe(rounded, content, "int8"), check, "int8")
    print(f"next: python live_inference.py --weights {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
