"""How training speeds up with the number of processes under torchrun.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --script basic_nn.py --processes 1 2 4

Trains a script's own network on random faces, once with each number of processes, each process with
the same number of threads, and reads images a second from the results files. The global batch stays
the same, so every row computes the same thing. `share` is the speed over that of the first row
times the processes: 100 % means that nothing is lost to talking and waiting.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ferlab import cli
from ferlab.data.splits import CLASS_NAMES, IMAGE_SIZE, Split, save_splits
from ferlab.files import UserError

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def random_split(faces: int) -> Split:
    """Returns a split of random pictures, as many of each class."""
    images = torch.rand(faces, 1, IMAGE_SIZE, IMAGE_SIZE).mul_(2).sub_(1)
    return Split(images, torch.arange(faces) % len(CLASS_NAMES), CLASS_NAMES)


def images_per_second(script: str, processes: int, threads: int, flags: list[str]) -> float:
    """Trains in that many processes; returns the speed of the training steps.

    Args:
        script: the file's name.
        processes: of torchrun.
        threads: of each process.
        flags: of the script; their last is the results folder.

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


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("--script", default="advanced_network.py", help="what trains")
    parser.add_argument(
        "--processes", type=cli.positive(int), nargs="+", default=[1, 2], help="to compare"
    )
    parser.add_argument("--threads", type=cli.positive(int), default=1, help="of each process")
    parser.add_argument("--faces", type=cli.positive(int), default=5120, help="of an epoch")
    parser.add_argument("--epochs", type=cli.positive(int), default=2)
    args = parser.parse_args(argv)
    print(f"{args.script}, {args.threads} threads a process\n{'processes':>9} images/s    share")
    base = 0.0
    with tempfile.TemporaryDirectory() as folder:
        save_splits({"train": random_split(args.faces), "val": random_split(70)}, folder)
        for number in args.processes:
            flags = ["--epochs", str(args.epochs), "--quiet", "--data-dir", folder]
            flags += ["--results-dir", str(Path(folder) / f"results_{number}")]
            speed = images_per_second(args.script, number, args.threads, flags)
            base = base or speed / number
            print(f"{number:9}{speed:9,.0f}{speed / number / base:9.0%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
