"""Times dataset_preparation.py against a plain ImageFolder + DataLoader loop, in turns.

    python benchmarks/preparation.py
    python benchmarks/preparation.py --source data/sample --rounds 5

Both read every image as float32 `(1, 48, 48)` in [-1, 1]. The plain loop is what tutorials write:
torchvision's ImageFolder and transforms, one image at a time, with and without two worker
processes, stacked in memory. The preparation also finds duplicates, splits, checks, and writes the
files, which the plain loop does not.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.utils.data import ConcatDataset, DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from ferlab import cli, entry
from ferlab.data.folders import split_folders
from ferlab.data.layouts import find_layout
from ferlab.data.preparation import prepare


def preparation(source: Path) -> None:
    """Does what dataset_preparation.py does, into a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(find_layout(source), Path(folder), quiet=True)


def plain_loop(source: Path, workers: int) -> torch.Tensor:
    """Returns all images, read by ImageFolder through a DataLoader, `(N, 1, 48, 48)`."""
    transform = transforms.Compose(
        [
            transforms.Grayscale(),
            transforms.Resize((48, 48)),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    root = find_layout(source).root
    folders = ConcatDataset([ImageFolder(str(f), transform) for f in split_folders(root)])
    loader = DataLoader(folders, batch_size=256, num_workers=workers)
    return torch.cat([images for images, _ in loader])


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--source",
        type=Path,
        default=Path("data/face-expression-recognition-dataset"),
        help="folder of the dataset",
    )
    parser.add_argument(
        "--rounds", type=cli.positive(int), default=3, help="number of runs of each"
    )
    args = parser.parse_args(argv)

    sides = {
        "dataset_preparation.py": lambda: preparation(args.source),
        "ImageFolder + DataLoader": lambda: plain_loop(args.source, 0),
        "the same, 2 workers": lambda: plain_loop(args.source, 2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    ours = next(iter(sides))
    print(f"{'median of ' + str(args.rounds):26}{'seconds':>10}{'ratio':>10}")
    for name, times in seconds.items():
        ratio = statistics.median(t / o for t, o in zip(times, seconds[ours], strict=True))
        print(f"{name:26}{statistics.median(times):10.2f}{ratio:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
