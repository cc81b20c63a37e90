"""The memory and time of dataset_preparation.py on a dataset of any size.

    python benchmarks/preparation_memory.py                  # 450,000 images, 8 GB on disk
    python benchmarks/preparation_memory.py --images 20000

Draws a few hundred faces as those of the sample, and makes all images from them by new light and
noise, as PNG files in class folders without splits, in a temporary folder in `--folder`. Prepares
them in one part (`--shard 1/1`) and joins it, which is the work of one run. Prints the seconds of
processor cores, which other programs do not change much, and the memory of the largest process,
mapped pages included. A tenth of the images is prepared first: the difference is what an image
costs, and what `--extrapolate` images would. Linux and macOS only.
"""

import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from ferlab import cli, entry
from ferlab.constants import CLASS_NAMES, ROOT
from ferlab.data.layouts import Layout
from ferlab.data.partition import complete, remove_duplicates
from ferlab.data.preparation import usable
from ferlab.data.reading import Pixels
from ferlab.data.shards import KEY_SIZE
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


def measured(command: list[str]) -> tuple[float, float]:
    """Runs a command; returns the seconds of its cores and its largest memory in bytes.

    Raises:
        UserError: it failed.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError("the preparation failed; see above")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit


def size_below(folder: Path) -> int:
    """Returns the bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def costs(folder: Path, count: int) -> dict[str, float]:
    """Returns what the preparation of `count` images costs: core seconds, and GB."""
    write_images(folder / "images", count)
    command = [sys.executable, str(ROOT / "dataset_preparation.py"), "--quiet"]
    command += ["--source", f"{folder}/images", "--data-dir", f"{folder}/splits"]
    reading, joining = measured([*command, "--shard", "1/1"]), measured(command)
    parts, whole = size_below(folder / "splits" / "parts"), size_below(folder / "splits")
    return {
        "reading, core seconds": reading[0],
        "join, core seconds": joining[0],
        "largest memory, GB": max(reading[1], joining[1]) / 1e9,
        "parts on disk, GB": parts / 1e9,
        "splits on disk, GB": (whole - parts) / 1e9,
    }


def memory_of_join(count: int) -> int:
    """Returns the largest memory, bytes, that the join needs of names, labels and keys.

    The keys are random, and the names have 20 characters.
    """
    names = [f"class{row % 7}/{row:09}.png" for row in range(count)]
    digests = np.random.default_rng(0).integers(0, 256, (count, KEY_SIZE), np.uint8)
    tracemalloc.start()
    layout = Layout(
        form="",
        root=Path(),
        base=Path(),
        names=np.array(names, dtype=object),
        labels=np.arange(count) % len(CLASS_NAMES),
        splits={"all": np.arange(count)},
        class_names=CLASS_NAMES,
        class_map={},
        left_out={},
        rows=count,
    )
    pixels = Pixels(Path(), digests.view(f"S{KEY_SIZE}")[:, 0].copy(), {})
    remove_duplicates(complete(usable(layout, pixels)[0], seed=0), False, CLASS_NAMES)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()  # it slows down the process
    return most + sum(map(sys.getsizeof, names))


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--images", type=cli.positive(int), default=450_000, help="images of the dataset")
    add("--extrapolate", type=cli.positive(int), default=100_000_000, help="images to compute for")
    add("--folder", type=Path, default=Path(), help="folder on the disk to use")
    args = parser.parse_args(argv)
    few, measurements = max(1000, args.images // 10), []
    for count in (few, args.images):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            measurements.append(costs(Path(folder), count))
    first, last = measurements
    print(f"{'images':28}{few:>12,}{args.images:>12,}{args.extrapolate:>16,}")
    for name in first:
        each = (last[name] - first[name]) / (args.images - few)
        many = first[name] + each * (args.extrapolate - few)
        shown = "" if "memory" in name else f"{many:16,.0f}"  # below is what grows
        print(f"{name:28}{first[name]:12.2f}{last[name]:12.2f}{shown:>16}")
    each = memory_of_join(args.images) / args.images
    print(f"names, labels and keys in the memory of the join: {each:.0f} bytes an image")
    print(f"of {args.extrapolate:,} images: {each * args.extrapolate / 1e9:.0f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
