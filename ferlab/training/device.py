"""The machine: device, number format, seeds, and what to write down about it."""

import ctypes
import os
import platform
import time
from functools import lru_cache
from importlib.metadata import version

import torch
from torch.nn import functional as F

from ferlab.files import UserError

GAIN_NEEDED = 1.3  # how much faster bfloat16 must be than float32 on a CPU to be taken
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def choose_device(name: str) -> torch.device:
    """Returns the device called `name`; "auto" takes CUDA, else MPS, else the CPU.

    Under torchrun each process of a machine takes a GPU of its own.

    Raises:
        UserError: the machine has no such device, or not enough.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise UserError(f"--device {name}: this machine has none; use --device cpu or auto")
    if name == "cpu":
        keep_freed_memory()
    if name == "cuda":
        torch.backends.cudnn.benchmark = True  # batches have few shapes: the best kernels pay off
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as on a CPU
    if name != "cuda" or "LOCAL_RANK" not in os.environ:
        return torch.device(name)
    number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= there:
        raise UserError(f"{there} GPUs cannot take a process each; lower --nproc-per-node")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def keep_freed_memory() -> bool:
    """Lets this process keep memory that it frees; returns whether the C library can.

    A training step needs the memory that the last one freed. glibc gives large pieces of it back to
    the system, which then hands out every page anew, filled with zeros: what that costs is measured
    by benchmarks/freed_memory.py. PyTorch itself reuses only a GPU's memory.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(M_MMAP_MAX, 0))


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Returns the number format of the forward and backward pass.

    Args:
        name: "float32", "bfloat16" or "auto": bfloat16 where the device is faster with it.
        device: where the network runs. A GPU is asked; a CPU is measured (see `bf16_gain`).
    """
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        gains = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        gains = device.type == "cpu" and bf16_gain() > GAIN_NEEDED
    return torch.bfloat16 if gains else torch.float32


def precision_name(name: str, device: torch.device) -> str:
    """Returns the format that `choose_precision` chooses as a recipe holds it: "float32", ..."""
    return str(choose_precision(name, device)).removeprefix("torch.")


@lru_cache(maxsize=1)
def bf16_gain() -> float:
    """Returns how many times faster this CPU convolves in bfloat16 than in float32.

    Asking the CPU's feature flags does not tell: AVX512 without bf16 instructions runs bfloat16
    at a fraction of float32's speed, AMX at a multiple. Both are timed in turns and in one thread,
    and the quickest of each counts, so that other programs on the machine do not decide. Takes
    about 0.2 s.
    """
    seconds = dict.fromkeys((torch.float32, torch.bfloat16), float("inf"))
    pairs = {
        dtype: [
            torch.ones(*shape, dtype=dtype).to(memory_format=torch.channels_last)
            for shape in ((8, 64, 24, 24), (64, 64, 3, 3))
        ]
        for dtype in seconds
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(12):
                for dtype, (images, filters) in pairs.items():
                    start = time.perf_counter()
                    F.conv2d(images, filters, padding=1)
                    seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Returns the context in which a network computes in `precision`."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def seed_everything(seed: int, device: torch.device) -> torch.Generator:
    """Seeds torch's global generators (weights, dropout); returns one for order and augmentation.

    The generator lives on `device`, so that random numbers need no copy.
    """
    torch.manual_seed(seed)
    return torch.Generator(device).manual_seed(seed)


def random_state(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Returns the state of all generators, for a checkpoint."""
    state = {"torch": torch.get_rng_state(), "generator": generator.get_state()}
    if generator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, torch.Tensor], generator: torch.Generator) -> None:
    """Sets the generators to what `random_state` returned."""
    torch.set_rng_state(state["torch"])
    generator.set_state(state["generator"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Returns the device and the versions that a result depends on, as plain types."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": version("torchvision"),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
