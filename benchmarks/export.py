"""One network in torch and in onnxruntime: latency per face, file size, accuracy.

    python benchmarks/export.py

The images come from the prepared test split: only the network is timed, with as many threads as in
the live program. The networks take turns, so that other load on the machine affects all equally;
the median is reported. The accuracy is without the flip test-time augmentation of the results in
results/. The live program's classifier computes in bfloat16 where the CPU gains from it.
"""

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ferlab import cli, entry
from ferlab.data.splits import load_split
from ferlab.export import PACKAGES, describe, to_int8, to_onnx
from ferlab.live.classifier import Classifier
from ferlab.live.onnx_classifier import open_session, require_packages, run
from ferlab.live.pipeline import reserve_detector_core
from ferlab.live.weights import default_weights
from ferlab.training.weights import load_model

BATCHES = (1, 8)  # faces per pass

Network = Callable[[np.ndarray], np.ndarray]
"""Maps float32 `(N, 1, 48, 48)` in [-1, 1] to logits, float32 `(N, classes)`."""


def torch_network(model: Callable[[torch.Tensor], torch.Tensor]) -> Network:
    """Returns a torch network with arrays as input and output."""

    @torch.inference_mode()
    def logits(images: np.ndarray) -> np.ndarray:
        return model(torch.from_numpy(images)).numpy()

    return logits


def onnx_network(content: bytes, threads: int) -> Network:
    """Returns an ONNX model run by onnxruntime."""
    return functools.partial(run, open_session(content, threads))


def load_networks(weights: Path, data_dir: Path, threads: int) -> dict[str, tuple[Network, int]]:
    """Returns each variant of the network and the size of its file in bytes, by name."""
    live = Classifier(weights, threads)
    model, content = load_model(weights)
    size = weights.stat().st_size
    proto = to_onnx(model)
    faces = load_split(data_dir, "train").images
    plain = describe(proto, content, "float32")
    int8 = describe(to_int8(proto, faces), content, "int8")
    precision = str(live.precision).removeprefix("torch.")
    return {
        "torch float32": (torch_network(model), size),
        f"torch {precision}, live_inference.py": (
            torch_network(functools.partial(live.computed, live.model)),
            size,
        ),
        "onnxruntime float32": (onnx_network(plain, threads), len(plain)),
        "onnxruntime int8": (onnx_network(int8, threads), len(int8)),
    }


def milliseconds(networks: list[Network], images: np.ndarray, seconds: float) -> list[float]:
    """Times networks in turns on a batch for `seconds`; returns the median milliseconds of each."""
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


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    threads = reserve_detector_core()
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--data-dir", type=Path, default=cli.DATA_DIR, help="folder of the train and test splits"
    )
    parser.add_argument(
        "--weights", type=Path, help="weights file of the CNN (default: that of live_inference.py)"
    )
    parser.add_argument(
        "--threads",
        type=cli.positive(int),
        default=threads,
        help="number of threads of each network",
    )
    parser.add_argument(
        "--seconds",
        type=cli.positive(float),
        default=10,
        help="duration of the timing, for each batch size",
    )
    args = parser.parse_args(argv)
    require_packages(PACKAGES)
    weights = args.weights or default_weights()
    print(f"weights: {weights}")
    test = load_split(args.data_dir, "test")
    images, labels = test.images.numpy(), test.labels.numpy()
    found = load_networks(weights, args.data_dir, args.threads)
    networks = [network for network, _ in found.values()]
    columns = []
    for batch in BATCHES:
        spent = milliseconds(networks, images[:batch], args.seconds)
        columns.append([whole / batch for whole in spent])
    heads = "".join(f"{f'ms/face, batch of {batch}':>20}" for batch in BATCHES)
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
