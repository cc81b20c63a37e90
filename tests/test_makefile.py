"""The Makefile's own checks."""

import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def test_older_python_is_refused_in_one_line(tmp_path):
    python = tmp_path / "python3.10"
    code = "import sys; sys.version_info = (3, 10, 2); exec(sys.argv[2])"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    python.chmod(0o755)
    command = ["make", "setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={python}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    errors = [x for x in result.stderr.splitlines() if not x.startswith("make")]
    assert result.returncode == 2 and len(errors) == 1
    assert errors[0].startswith("error: Python 3.11 or newer is needed")
    assert not (tmp_path / "venv").exists()
