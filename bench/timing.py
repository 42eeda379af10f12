"""Clocks for benches: pairs timed in turns, and child processes whose whole tree is watched."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tristream.errors import MachineError
from tristream.memory import tree_bytes

SAMPLE_SECONDS = 0.05  # how often the memory of a process tree is read

PACKAGE = Path(str(sys.modules["tristream"].__file__)).parent


def in_turns(
    work: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of each function, after one warm-up call.

    They take turns, so that whatever else the machine does falls on all of them: their ratios hold, the seconds do not.
    With `time.process_time` as the clock, what others take of the processor does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for call in work.values():
        call()
    for _ in range(repeats):
        for name, call in work.items():
            begun = clock()
            call()
            seconds[name].append(clock() - begun)
    return {name: statistics.median(times) for name, times in seconds.items()}


@dataclass(frozen=True)
class Ran:
    """Time and memory of a child process.

    Attributes:
        seconds: from its start to its end.
        cpu_seconds: of it and of the processes that it waited for.
        peak_bytes: largest proportional set size of it and all its descendants together, read every 50 ms.
        stdout: what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str


def run_child(
    arguments: Sequence[str | Path], *, environment: Mapping[str, str] | None = None
) -> Ran:
    """Run this Python with `arguments` in a process of its own and watches it.

    Raises:
        RuntimeError: it failed; the end of what it said on stderr is in the message.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(PACKAGE.parent),
            **(environment or {}),
        },
    )
    peak, over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.is_set():
            peak = max(peak, tree_bytes(child.pid))
            over.wait(SAMPLE_SECONDS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        out, err = child.communicate()
    finally:
        over.set()
        watcher.join()
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        raise MachineError(
            f"{' '.join(map(str, arguments))} ended with {child.returncode}: {err[-2000:].strip()}"
        )
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(seconds, cpu, peak, out)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU seconds of some processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
