"""One network in torch, onnxruntime and OpenCV's dnn: milliseconds a face, file size, accuracy.

    python benchmarks/export.py

Faces come prepared from the test split, so that only the network is timed. All take the threads
that the live program would give them. They take turns, so that what else the machine does slows
all alike; told is the median. A face is seen once, as the live program sees it; the accuracy in
results/ is of the average of two views. "bfloat16" stands for the live program's own classifier,
which computes in float32 where the machine gains nothing.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from advanced_network import CNN
from ferlab import cli
from ferlab.data.splits import load_split
from ferlab.export import describe, require_packages, to_int8, to_onnx
from ferlab.live.classifier import Classifier
from ferlab.live.onnx_model import Network, with_onnxruntime, with_opencv
from ferlab.live.pipeline import share_cores
from ferlab.training.checkpoint import load_model

BATCHES = (1, 8)
"""How many faces a pass: one, and many before one camera."""


def torch_network(model: Callable[[torch.Tensor], torch.Tensor]) -> Network:
    """Returns a torch network that takes and gives arrays."""

    @torch.inference_mode()
    def logits(images: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(images)).numpy()

    return logits


def contenders(args: argparse.Namespace) -> dict[str, tuple[Network, int]]:
    """Returns each contender's network and the bytes of its file, by name."""
    threads = args.threads
    live = Classifier(args.weights, "advanced", CNN, threads)
    model, content = load_model(args.weights, "advanced", CNN)
    size = args.weights.stat().st_size
    proto = to_onnx(model)
    faces = load_split(args.data_dir, "train").images
    plain = describe(proto, content, "float32")
    int8 = describe(to_int8(proto, faces), content, "int8")
    precision = str(live.precision).removeprefix("torch.")
    return {
        "torch float32": (torch_network(model), size),
        f"torch {precision}, live_inference.py": (torch_network(live.logits), size),
        "onnxruntime float32": (with_onnxruntime(plain, threads), len(plain)),
        "onnxruntime int8": (with_onnxruntime(int8, threads), len(int8)),
        "OpenCV float32": (with_opencv(plain, threads), len(plain)),
    }


def milliseconds(networks: list[Network], images: np.ndarray, seconds: float) -> list[float]:
    """Lets networks take turns on a batch for so long; returns the median milliseconds of each."""
    for network in networks:
        network(images)
    times: list[list[float]] = [[] for _ in networks]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times[0]:
        for network, spent in zip(networks, times, strict=True):
            start = time.perf_counter()
            network(images)
            spent.append(time.perf_counter() - start)
    return [1e3 * float(np.median(spent)) for spent in times]


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    threads = share_cores()
    parser = cli.parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=cli.DATA_DIR, help="train and test split")
    parser.add_argument(
        "--weights", type=Path, default=cli.RESULTS_DIR / "advanced_model.pth", help="of the CNN"
    )
    parser.add_argument(
        "--threads", type=cli.positive(int), default=threads, help="that each may take"
    )
    parser.add_argument(
        "--seconds", type=cli.positive(float), default=10, help="of timing, for each batch size"
    )
    args = parser.parse_args(argv)
    require_packages()
    cv2.setNumThreads(args.threads)
    test = load_split(args.data_dir, "test")
    images, labels = test.images.numpy(), test.labels.numpy()
    found = contenders(args)
    networks = [network for network, _ in found.values()]
    columns = []
    for batch in BATCHES:
        spent = milliseconds(networks, images[:batch], args.seconds)
        columns.append([whole / batch for whole in spent])
    heads = "".join(f"{f'ms/face, {batch} a pass':>20}" for batch in BATCHES)
    print(f"{f'threads: {args.threads}':36}{heads}{'MB':>8}{'accuracy':>10}")
    for (name, (network, size)), *times in zip(found.items(), *columns, strict=True):
        preds = np.concatenate(
            [network(images[at : at + 8]).argmax(1) for at in range(0, len(images), 8)]
        )
        cells = "".join(f"{ms:20.2f}" for ms in times)
        print(f"{name:36}{cells}{size / 1e6:8.1f}{(preds == labels).mean():10.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
