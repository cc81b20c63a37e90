"""The memory and time of dataset_preparation.py on a dataset of any size.

    python benchmarks/preparation_memory.py                  # 450,000 images, 8 GB on disk
    python benchmarks/preparation_memory.py --images 20000

Draws a few hundred faces as those of the sample, and makes all images from them by new light and
noise, as PNG files in class folders without splits, in a temporary folder in `--folder`. Prints the
largest memory of the preparation, mapped pages included. Linux and macOS only.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2
import numpy as np

from ferlab import cli
from ferlab.constants import CLASS_NAMES
from ferlab.files import UserError
from ferlab.sample.dataset import sample_face

DRAWN = 50  # faces of each class at most


def write_images(folder: Path, count: int) -> None:
    """Writes `count` images, all different, in a folder for each class."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASS_NAMES):
        (folder / name).mkdir(parents=True)
        people = range(min(DRAWN, 1 + count // len(CLASS_NAMES)))
        faces = [sample_face(name, person, rng).astype(np.float32) for person in people]
        for number in range(label, count, len(CLASS_NAMES)):
            face = faces[number // len(CLASS_NAMES) % len(faces)]
            changed = face * rng.uniform(0.7, 1.2) + rng.integers(-6, 7, face.shape)
            image = changed.clip(0, 255).astype(np.uint8)
            (folder / name / f"{number}.png").write_bytes(cv2.imencode(".png", image)[1])


def largest_memory() -> float:
    """Returns the largest memory of the programs that were started, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9


@cli.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--images", type=cli.positive(int), default=450_000, help="images of the dataset"
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="folder on the disk to use")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        write_images(Path(folder) / "images", args.images)
        command = [sys.executable, str(ROOT / "dataset_preparation.py"), "--quiet"]
        command += ["--source", f"{folder}/images", "--data-dir", f"{folder}/splits"]
        start = time.perf_counter()
        if subprocess.run(command).returncode != 0:
            raise UserError("the preparation failed; see above")
        seconds = time.perf_counter() - start
    print(f"{args.images:,} images: {seconds:.1f} s, {args.images / seconds:,.0f} images/s")
    print(f"largest memory: {largest_memory():.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
