"""Device, number format and the machine's description."""

import platform
import subprocess
import sys

import pytest
import torch

from conftest import ROOT
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


def page_faults_of(choice):
    """How many pages a new process asks the system for while it frees and takes 40 MB ten times."""
    code = f"""
import resource, torch
from ferlab.training.device import choose_device
{choice}
for again in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_on_a_cpu():
    given_back = page_faults_of("")
    assert page_faults_of("choose_device('cpu')") < given_back / 5


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert runtime.keep_freed_memory() is False


@pytest.mark.parametrize(("gain", "expected"), [(0.5, torch.float32), (3.0, torch.bfloat16)])
def test_bfloat16_only_where_the_cpu_gains(monkeypatch, gain, expected):
    monkeypatch.setattr(runtime, "bf16_gain", lambda: gain)
    assert runtime.choose_precision("auto", CPU) is expected
    assert runtime.choose_precision("float32", CPU) is torch.float32
    assert runtime.choose_precision("bfloat16", CPU) is torch.bfloat16


def test_gain_is_measured():
    assert 0.01 < runtime.bf16_gain() < 100


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
