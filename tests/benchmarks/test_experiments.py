"""The table of experiments: a row for each run, once."""

import csv
import subprocess

from benchmarks import experiments
from conftest import ROOT


def test_a_run_is_added_once_whatever_the_commit(tmp_path, monkeypatch):
    table, folder = tmp_path / "experiments.csv", str(ROOT / "reference" / "votes")
    monkeypatch.setattr(experiments, "TABLE", table)
    assert experiments.main([folder, "--note", "first"]) == 0
    first = table.read_bytes()
    later = subprocess.CompletedProcess([], 0, stdout="abcdef0\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: later)
    assert experiments.main([folder, "--note", "again"]) == 0
    assert table.read_bytes() == first
    rows = list(csv.DictReader(first.decode().splitlines()))
    files = list((ROOT / "reference" / "votes").rglob("*_metrics.json"))
    assert len(rows) == len(files) >= 5, "also those of the folders below"
    assert {row["note"] for row in rows} == {"first"} and all(row["test_raters"] for row in rows)
