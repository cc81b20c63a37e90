"""Images that stay on disk: batches of splits that do not fit into the memory of a device."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from ferlab.data.splits import Split
from ferlab.files import UserError

LIMIT = "FERLAB_DEVICE_MEMORY"  # environment variable: GB of images in the memory of the device
FREE_FRACTION = 0.5  # of a GPU's free memory may be images; the rest is for the network


def image_memory(device: torch.device) -> float:
    """Returns how many bytes of images may lie in a device's memory.

    A CPU has no limit: there images are mapped from disk, not moved.

    Raises:
        UserError: the environment variable is no number.
    """
    if (text := os.environ.get(LIMIT)) is not None:
        try:
            return float(text) * 1e9
        except ValueError as error:
            raise UserError(f"{LIMIT}={text} is not a number of GB, as 8") from error
    if device.type == "cuda":
        return FREE_FRACTION * torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return FREE_FRACTION * free
    return math.inf


def on_device(splits: Sequence[Split], device: torch.device) -> list[Split]:
    """Returns splits on a device; the images of those that do not fit stay where they are."""
    room, result = image_memory(device), []
    for split in splits:
        fits = split.images.nbytes <= room
        room -= split.images.nbytes * fits
        result.append(split.to(device, images=fits))
    return result


def is_streamed(images: torch.Tensor, device: torch.device) -> bool:
    """Returns whether images are moved to a device batch by batch.

    On a CPU only if FERLAB_DEVICE_MEMORY is set and they exceed it, as in tests.
    """
    if images.device.type != device.type:
        return True
    return device.type == "cpu" and images.nbytes > image_memory(device)


def stream(
    images: torch.Tensor, batches: Sequence[torch.Tensor], target: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Moves batches of images into one tensor, the next gathered while the device computes.

    Args:
        images: `(N, ...)` on the CPU, mapped from disk or not.
        batches: int64 `(n,)` each, on the CPU: indices of the images of each batch.
        target: of images, on the device, as long as the longest batch.

    Yields:
        The part of `target` that holds the batch; the next batch overwrites it.
    """
    cuda = target.device.type == "cuda"
    buffers = [torch.empty(target.shape, dtype=target.dtype, pin_memory=cuda) for _ in range(2)]
    moved = [torch.cuda.Event() for _ in buffers] if cuda else []

    @torch.inference_mode()  # which may have been on where the buffers were made
    def gather(number: int) -> torch.Tensor:
        rows, place = batches[number], number % 2
        if cuda:
            moved[place].synchronize()  # the buffer's last batch has left it
        buffer = buffers[place][: len(rows)]
        return torch.index_select(images, 0, rows, out=buffer)

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(gather, 0)
        for number in range(len(batches)):
            buffer = ahead.result()
            if number + 1 < len(batches):
                ahead = pool.submit(gather, number + 1)
            batch = target[: len(buffer)]
            batch.copy_(buffer, non_blocking=cuda)
            if cuda:
                moved[number % 2].record()
            yield batch
