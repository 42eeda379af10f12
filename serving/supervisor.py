"""All services of a run on this machine: one process each, restarted when one ends."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a restart; doubled each time
HEALTHY_SECONDS = 60.0  # of life, after which the wait is short again
GRACE_SECONDS = 10.0  # from SIGTERM to SIGKILL


class Child:
    """One service process and its restarts."""

    def __init__(self, name: str, command: Sequence[str], note: Callable[[str], None]) -> None:
        self.name, self._command, self._note = name, list(command), note
        self._wait, self._due = FIRST_WAIT, 0.0
        self._started = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def tend(self) -> None:
        """Start the process if it does not run and its wait is over."""
        now = time.monotonic()
        if self.process is not None:
            if (code := self.process.poll()) is None:
                return
            self.process = None
            if now - self._started > HEALTHY_SECONDS:
                self._wait = FIRST_WAIT
            self._due = now + self._wait
            self._note(f"{self.name} ended with {code}; it is restarted in {self._wait:g} s")
            self._wait = min(LONGEST_WAIT, 2 * self._wait)
        if now >= self._due:
            self._started = now
            self.process = subprocess.Popen(self._command, preexec_fn=_end_with_parent)

    def stop(self) -> None:
        """End the process, first politely."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


def supervise(
    commands: Mapping[str, Sequence[str]],
    *,
    note: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Keep processes running until this one is told to end; none of them outlives it.

    Args:
        commands: {name: command line}.
        note: gets a sentence when a process ends.
        check: called every second; what it raises ends the supervision.
    """
    children = [Child(name, command, note) for name, command in commands.items()]

    def told(*_: Any) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, told)
    try:
        while True:
            for child in children:
                child.tend()
            check()
            time.sleep(0.2)
    finally:
        signal.signal(signal.SIGTERM, before)
        with contextlib.ExitStack() as every:  # each is stopped even if another fails
            for child in children:
                every.callback(child.stop)


def commands_for(
    run: Path, streams: Sequence[str], *, port: int, options: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return {service: command line} of a run: the fusion on `port`, the streams on free ports.

    Args:
        run: folder of the run.
        streams: trained streams.
        port: of the fusion service.
        options: added to each.
    """
    program = [sys.executable, "-m", "tristream", "serve"]
    ports = dict(zip(streams, free_ports(len(streams)), strict=True))
    commands = {
        name: [*program, name, "--run", str(run), "--port", str(ports[name]), *options]
        for name in streams
    }
    addresses = [
        word for name in streams for word in ("--stream", f"{name}=http://127.0.0.1:{ports[name]}")
    ]
    commands["fusion"] = [
        *program, "fusion", "--run", str(run), "--port", str(port), *addresses, *options
    ]  # fmt: skip
    return commands


def free_ports(n: int) -> list[int]:
    """Return ports of the loopback address that nothing listens on now."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent ends, however that happens (Linux)."""
    if sys.platform == "linux":
        death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(death_signal, signal.SIGTERM)
