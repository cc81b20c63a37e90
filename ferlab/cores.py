"""How many processor cores this process may use. Needs no torch."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Returns the cores of the machine, of this process's affinity or of a container's quota.

    The smallest of the three: with more threads than that, they wait for each other.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = container_quota()
    return cores if quota is None else max(1, min(cores, round(quota)))


def container_quota() -> float | None:
    """Returns the cores that a container's limit on processor time amounts to; None without one.

    `docker run --cpus 1.5` writes "150000 100000" to cpu.max: microseconds of time in each period
    (docs.kernel.org/admin-guide/cgroup-v2.html). The two files of version 1 hold the same.
    """
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = (
                (CGROUP / "cpu" / f"cpu.cfs_{part}_us").read_text() for part in ("quota", "period")
            )
        except OSError:
            return None
    try:
        result = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return result if result > 0 else None  # version 1 writes -1 for no limit
