"""How training speeds up with the number of processes under torchrun.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --script basic_nn.py --processes 1 2 4

Trains a script's own network on random images, once with each number of processes, each with the
same number of threads, and reads the throughput from the results files. The global batch is the
same in every row. `efficiency` is the throughput divided by that of the first row times the
processes: at 100 % communication and waiting take no time.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ferlab import cli, entry
from ferlab.constants import ROOT
from ferlab.data.splits import CLASS_NAMES, IMAGE_SIZE, Split, save_splits
from ferlab.files import UserError

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def random_split(count: int) -> Split:
    """Returns a split of random images, equally many of each class."""
    images = torch.rand(count, 1, IMAGE_SIZE, IMAGE_SIZE).mul_(2).sub_(1)
    return Split(images, torch.arange(count) % len(CLASS_NAMES), CLASS_NAMES)


def images_per_second(script: str, processes: int, threads: int, flags: list[str]) -> float:
    """Trains in that many processes; returns the throughput of the training steps, images/s.

    Args:
        script: name of the file.
        processes: number of processes.
        threads: number of threads of each process.
        flags: flags of the script; the last is the results folder.

    Raises:
        UserError: the training failed.
    """
    command = [*TORCHRUN, f"--nproc-per-node={processes}", str(ROOT / script), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"{script} in {processes} processes: {result.stderr.strip()[-500:]}")
    (metrics,) = Path(flags[-1]).glob("*_metrics.json")
    return json.loads(metrics.read_text(encoding="utf-8"))["run"]["images_per_second"]


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--script", default="advanced_network.py", help="script that is run")
    parser.add_argument(
        "--processes",
        type=cli.positive(int),
        nargs="+",
        default=[1, 2],
        help="numbers of processes to compare",
    )
    parser.add_argument(
        "--threads", type=cli.positive(int), default=1, help="threads of each process"
    )
    parser.add_argument("--images", type=cli.positive(int), default=5120, help="images of an epoch")
    parser.add_argument("--epochs", type=cli.positive(int), default=2, help="epochs of each run")
    args = parser.parse_args(argv)
    print(f"{args.script}, {args.threads} threads a process\n{'processes':>9} images/s efficiency")
    base = 0.0
    with tempfile.TemporaryDirectory() as folder:
        save_splits({"train": random_split(args.images), "val": random_split(70)}, folder)
        for number in args.processes:
            flags = ["--epochs", str(args.epochs), "--quiet", "--data-dir", folder]
            flags += ["--results-dir", str(Path(folder) / f"results_{number}")]
            speed = images_per_second(args.script, number, args.threads, flags)
            base = base or speed / number
            print(f"{number:9}{speed:9,.0f}{speed / number / base:11.0%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
