"""The machine: device, number format, seeds, and what to write down about it."""

import os
import platform
from importlib.metadata import version

import torch

from ferlab.cores import available_cores
from ferlab.files import UserError

BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # x86, then Arm


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
    if name == "cpu":  # torch does not know of a container's quota
        torch.set_num_threads(min(torch.get_num_threads(), available_cores()))
    if name == "cuda":
        require_kernels()
        torch.backends.cudnn.benchmark = True  # batches have few shapes: the best kernels pay off
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32, as on a CPU
    if name != "cuda" or "LOCAL_RANK" not in os.environ:
        return torch.device(name)
    number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= there:
        raise UserError(f"{there} GPUs cannot take a process each; lower --nproc-per-node")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def require_kernels() -> None:
    """Checks that the installed torch has kernels for this GPU.

    Raises:
        UserError: it has none: wheels of torch drop older GPUs.
    """
    try:
        torch.zeros(1, device="cuda").add_(1)
    except RuntimeError as error:
        raise UserError(
            f"torch {torch.__version__} cannot use this GPU ({str(error).splitlines()[0]}); use "
            "--device cpu, or install a torch that supports it: pytorch.org/get-started"
        ) from error


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Returns the number format of the forward and backward pass.

    Args:
        name: "float32", "bfloat16" or "auto": bfloat16 where the device has instructions for it.
        device: where the network runs.
    """
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        supported = device.type == "cpu" and cpu_has_bfloat16()
    return torch.bfloat16 if supported else torch.float32


def precision_name(name: str, device: torch.device) -> str:
    """Returns the format that `choose_precision` chooses as a recipe holds it: "float32", ..."""
    return str(choose_precision(name, device)).removeprefix("torch.")


def cpu_has_bfloat16() -> bool:
    """Returns whether this CPU has instructions that multiply bfloat16 matrices.

    Without them bfloat16 is emulated, at a fraction of the speed of float32.
    """
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in BFLOAT16_INSTRUCTIONS)
    return torch.cpu._is_avx512_bf16_supported()  # torch before 2.12


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


def restore_random_state(state: dict[str, torch.Tensor], generator: torch.Generator) -> bool:
    """Sets the generators to what `random_state` returned.

    Returns:
        False where the state is of another kind of device, whose generators are others: then only
        torch's generator of the CPU is set.
    """
    torch.set_rng_state(state["torch"])
    on_cuda = generator.device.type == "cuda"
    if ("cuda" in state) != on_cuda:
        return False
    generator.set_state(state["generator"])
    if on_cuda:
        torch.cuda.set_rng_state(state["cuda"])
    return True


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
