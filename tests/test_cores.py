"""Threads follow what the process may use, not what the machine has."""

import os

import pytest
import torch

from ferlab import cores
from ferlab.training.device import choose_device


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "20000 100000\n"}, 0.2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
        ({"cpu.max": ""}, None),
        ({"cpu.max": "7 0"}, None),
        ({}, None),
    ],
)
def test_quota_of_a_container(files, quota, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16), raising=False)
    assert cores.container_quota() == quota
    assert cores.available_cores() == (16 if quota is None else max(1, round(quota)))


def test_torch_takes_no_more_threads_than_that(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr("ferlab.training.device.available_cores", lambda: 3)
        choose_device("cpu")
        assert torch.get_num_threads() == 3
        monkeypatch.setattr("ferlab.training.device.available_cores", lambda: 8)
        choose_device("cpu")
        assert torch.get_num_threads() == 3, "OMP_NUM_THREADS may ask for fewer"
    finally:
        torch.set_num_threads(before)
