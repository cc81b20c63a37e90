"""A script that is killed loses nothing, and its files are never taken for what they are not."""

import subprocess
import sys

import pytest

from conftest import ROOT

KILLS = {  # in the suite, and with SLOW=1
    "preparation": (6, 100),
    "unpacking": (4, 60),
    "baseline": (0, 30),
    "softmax": (0, 60),
    "resume": (2, 60),
    "basic_nn": (0, 50),
    "advanced_network": (0, 50),
    "transfer_learning": (0, 20),
    "compare": (0, 40),
    "explain": (0, 10),
    "export": (0, 40),
    "live": (2, 40),
}


def check(name, kills):
    command = [sys.executable, ROOT / "tests" / "faults" / "killing.py", name, "--kills", kills]
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=3000)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{kills} kills, 0 faults" in result.stdout


@pytest.mark.parametrize("name", [name for name, (few, _) in KILLS.items() if few])
def test_some_kills(name):
    check(name, KILLS[name][0])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", KILLS)
def test_many_kills(name):
    check(name, KILLS[name][1])
