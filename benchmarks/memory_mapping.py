"""A split that is mapped from disk, not read into memory: the time of loading and of batches.

    python benchmarks/memory_mapping.py                    # 450,000 images, 4.1 GB on disk
    python benchmarks/memory_mapping.py --images 28709

Writes a split of random images to a temporary folder in `--folder`, drops it from the page cache,
and times what a training script does with it: `load_split`, which checks every pixel, the digest,
and batches of 256 images drawn at random, first from disk, then from the page cache, then through
the buffers of images that do not fit a device. The last rows are of the same images as uint8,
normalised when a batch is taken. The memory is the process's own, without the pages of the file,
which the system drops when it needs memory. Linux only.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ferlab import cli, entry
from ferlab.constants import MEAN, STD
from ferlab.data.splits import CLASS_NAMES, IMAGE_SIZE, gray_levels, load_split, split_path
from ferlab.files import UserError
from ferlab.training.streaming import stream

BATCH = 256


def write_split(path: Path, count: int) -> None:
    """Writes a split of `count` random images."""
    images = torch.rand(count, 1, IMAGE_SIZE, IMAGE_SIZE).mul_(2).sub_(1)
    labels = torch.arange(count) % len(CLASS_NAMES)
    torch.save({"images": images, "labels": labels, "class_names": list(CLASS_NAMES)}, path)


def drop_from_cache(path: Path) -> None:
    """Makes the next read of a file come from the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def own_memory() -> float:
    """Returns this process's memory in GB, without the pages of mapped files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024 / 1e9
    raise UserError("this system does not report a process's own memory")


def batches_a_second(images: torch.Tensor, order: torch.Tensor) -> float:
    """Returns the rate at which the images of `order` are read in float32 batches, images/s."""
    start = time.perf_counter()
    for rows in order.split(BATCH):
        batch = images[rows]
        if batch.dtype == torch.uint8:
            batch.to(torch.float32).mul_(1 / 255).sub_(MEAN).div_(STD)
    return len(order) / (time.perf_counter() - start)


def streamed_a_second(images: torch.Tensor, order: torch.Tensor) -> float:
    """Returns the rate at which the images of `order` are streamed on a CPU, images/s."""
    target, start = torch.empty(BATCH, *images.shape[1:]), time.perf_counter()
    for _ in stream(images, order.split(BATCH), target):
        pass
    return len(order) / (time.perf_counter() - start)


def mapped(path: Path) -> torch.Tensor:
    """Returns the images of a split file, mapped, none of them in the page cache."""
    drop_from_cache(path)
    return torch.load(path, weights_only=True, mmap=True)["images"]


@entry.command
def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--images", type=cli.positive(int), default=450_000, help="images of the split"
    )
    parser.add_argument("--folder", type=Path, default=Path(), help="folder on the disk to measure")
    args = parser.parse_args(argv)
    if not hasattr(os, "posix_fadvise"):
        raise UserError("this benchmark needs Linux")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = split_path(folder, "train")
        write_split(path, args.images)
        size = path.stat().st_size / 1e9
        drop_from_cache(path)
        before, start = own_memory(), time.perf_counter()
        split = load_split(folder, "train")
        loading = time.perf_counter() - start
        memory, start = own_memory() - before, time.perf_counter()
        split.digest()
        digest = time.perf_counter() - start
        del split  # what is mapped stays in the page cache
        order = torch.randperm(args.images)[: 400 * BATCH]
        images = mapped(path)
        cold, warm = batches_a_second(images, order), batches_a_second(images, order)
        streamed = streamed_a_second(images, order)
        bytes_path = Path(folder) / "uint8.pt"
        torch.save({"images": gray_levels(images)}, bytes_path)
        images = mapped(bytes_path)
        cold_bytes, warm_bytes = batches_a_second(images, order), batches_a_second(images, order)
        size_bytes = bytes_path.stat().st_size / 1e9
    print(f"{args.images:,} images, {size:.2f} GB on disk, {memory:.2f} GB of memory of its own")
    print(f"loading and checking, from disk   {loading:8.1f} s   {size / loading:.2f} GB/s")
    print(f"digest, from the page cache       {digest:8.1f} s   {size / digest:.2f} GB/s")
    print(f"random batches, from disk         {cold:8,.0f} images/s")
    print(f"random batches, from the cache    {warm:8,.0f} images/s")
    print(f"the same through the buffers      {streamed:8,.0f} images/s")
    print(f"as uint8, {size_bytes:.2f} GB, from disk      {cold_bytes:8,.0f} images/s")
    print(f"as uint8, from the cache          {warm_bytes:8,.0f} images/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
