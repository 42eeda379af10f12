"""What this process may use of the machine: less than all of it in a container or a job of a cluster."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def n_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: those it may run on, or fewer where its control group has a quota of time.

    More threads than that wait for one another while they use up each other's time: a training of the temporal stream
    with sixteen on a quota of one core took over twenty times as long as with one.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min([cores, *map(int, _quotas(cgroup))]))


def memory_bytes(cgroup: Path = CGROUP) -> int:
    """Memory that this process may use: the machine's, or less where its control group says so."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _folders(cgroup, ""):
        with contextlib.suppress(OSError, ValueError):  # absent, or the word "max"
            found.append(int((folder / "memory.max").read_text()))
    for folder in _folders(cgroup, "memory"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int((folder / "memory.limit_in_bytes").read_text()))
    return min(found)


def _quotas(cgroup: Path) -> Iterator[float]:
    """Cores' worth of time, of every group with a quota. Version 2 has one file for it, version 1 two."""
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
    """The control group of this process and those around it; `controller`: of version 1, or "" for version 2.

    In a container the outermost may be all that is to be seen.
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
