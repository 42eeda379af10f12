"""Cores and memory that this process may use: fewer than the machine has in a container or a cluster job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def n_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: its CPU affinity, or fewer if its control group has a CPU quota.

    More threads than that slow each other down: training the temporal stream with sixteen threads on a quota of one
    core took over twenty times as long as with one thread.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min([cores, *map(int, _quotas(cgroup))]))


def memory_bytes(cgroup: Path = CGROUP) -> int:
    """Memory that this process may use: the machine's, or less if its control group limits it."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _folders(cgroup, ""):
        with contextlib.suppress(OSError, ValueError):  # absent, or the word "max"
            limits.append(int((folder / "memory.max").read_text()))
    for folder in _folders(cgroup, "memory"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int((folder / "memory.limit_in_bytes").read_text()))
    return min(limits)


def _quotas(cgroup: Path) -> Iterator[float]:
    """Yield the CPU quota in cores of every control group that has one (one file in version 2, two in version 1)."""
    for folder in _folders(cgroup, ""):
        with contextlib.suppress(OSError, ValueError):  # absent, or the word "max"
            time, period = (folder / "cpu.max").read_text().split()
            yield int(time) / int(period)
    for folder in _folders(cgroup, "cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota = int((folder / "cpu.cfs_quota_us").read_text())  # -1: none
            if quota > 0:
                yield quota / int((folder / "cpu.cfs_period_us").read_text())


def _folders(cgroup: Path, controller: str) -> Iterator[Path]:
    """Yield the control group of this process and its parents; `controller`: of version 1, or "" for version 2.

    In a container only the outermost may be visible.
    """
    own = "/"
    with contextlib.suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                own = path
    folder = cgroup / controller
    yield folder
    for part in Path(own).parts[1:]:
        folder /= part
        yield folder
