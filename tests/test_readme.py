"""Every command of the README runs as it stands; its numbers are those of results/."""

import json
import re
import shutil
import subprocess

import pytest

from conftest import ROOT
from page_commands import LIMIT, commands, run_in_order, workplace

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS = ("baseline", "softmax", "basic_nn", "advanced")


@pytest.mark.timeout(LIMIT)
def test_python_commands_run_in_order(tmp_path):
    workplace(tmp_path)
    assert run_in_order(commands("README.md"), tmp_path) >= 15
    assert (tmp_path / "results" / "comparison.txt").exists()
    assert (tmp_path / "results" / "sample" / "comparison.png").exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z]+)", README))))
def test_make_targets_exist(target):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    result = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_files_named_in_the_readme_exist():
    named = set(re.findall(r"`([a-z_]+/?[a-z_]*\.(?:py|txt|toml))`", README))
    assert len(named) >= 5
    for name in named - {"comparison.txt"}:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("model", MODELS)
def test_results_table_is_that_of_the_committed_results(model):
    metrics = json.loads((ROOT / "results" / f"{model}_metrics.json").read_text())
    low, high = metrics["test"]["accuracy_interval"]
    cell = f"{metrics['test']['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
    rows = [line for line in README.splitlines() if line.startswith("|") and cell in line]
    assert len(rows) == 1, f"no row with {cell}"
    assert f"{metrics['test']['macro_f1']:.3f}" in rows[0]
    assert f"{metrics['parameters']:,}" in rows[0]
