"""Device, number format and the machine's description."""

import pytest
import torch

from ferlab.files import UserError
from ferlab.training import device as runtime

CPU = torch.device("cpu")


def test_auto_takes_what_is_there():
    expected = "cuda" if torch.cuda.is_available() else None
    chosen = runtime.choose_device("auto").type
    assert chosen == (expected or ("mps" if torch.backends.mps.is_available() else "cpu"))


def test_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device mps: this machine has none"):
        runtime.choose_device("mps")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx2": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),  # Arm
        ({"amx_int8": True, "cpu_name": "bf16"}, torch.float32),
    ],
)
def test_bfloat16_where_the_cpu_has_instructions_for_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert runtime.choose_precision("auto", CPU) is expected
    assert runtime.precision_name("auto", CPU) == str(expected).removeprefix("torch.")
    assert runtime.choose_precision("float32", CPU) is torch.float32
    assert runtime.choose_precision("bfloat16", CPU) is torch.bfloat16


def test_gpu_without_kernels_in_this_torch_is_one_line(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", refuse)
    with pytest.raises(UserError, match="cannot use this GPU .*no kernel image.*--device cpu"):
        runtime.choose_device("cuda")


def test_random_state_comes_back():
    generator = runtime.seed_everything(5, CPU)
    state = runtime.random_state(generator)
    first = (torch.rand(3), torch.rand(3, generator=generator))
    runtime.restore_random_state(state, generator)
    again = (torch.rand(3), torch.rand(3, generator=generator))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_description_is_plain():
    described = runtime.describe_machine(CPU)
    assert all(type(value) in (str, int) for value in described.values())
    assert described["torch"] == torch.__version__ and described["device_name"]
