"""Parent's side of one decode process (media/sandbox/worker.py): start, requests, end."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tristream.media.limits import Limits
from tristream.media.sandbox import protocol

PACKAGE = Path(str(sys.modules["tristream"].__file__)).parent  # a child has to find it
START_SECONDS = 60.0  # for a child to import its libraries on a busy machine
TRANSFER_BYTES_PER_SECOND = 10e6  # a child that sends its answer more slowly counts as stuck


class Child:
    """One decode process and our end of its socket.

    The thread that creates it must outlive it: Linux ends a child together with the thread that started it.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        allowed: Mapping[str, Any] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start the process.

        Args:
            limits: of one file.
            allowed: further arguments of `isolation.isolate`.
            pass_fds: open files that it inherits.
        """
        ours, theirs = socket.socketpair()
        errors, their_errors = os.pipe()
        os.set_blocking(errors, False)
        os.set_blocking(
            their_errors, False
        )  # output of a child beyond the pipe's size is lost, and the child does not wait
        command = [
            sys.executable,
            "-P",
            "-m",
            "tristream.media.sandbox.worker",
            str(theirs.fileno()),
            str(os.getpid()),
        ]
        self.process = subprocess.Popen(
            [*command, json.dumps(asdict(limits)), json.dumps(dict(allowed or {}))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=their_errors,
            pass_fds=[theirs.fileno(), *pass_fds],
            start_new_session=True,  # not reached by Ctrl-C in the terminal
            env=_environment(),
        )
        theirs.close()
        os.close(their_errors)
        self._socket = ours
        self._errors = errors
        self._words = ""
        self.isolation: dict[str, str] = {}  # empty until the child is ready, as `ffmpeg`
        self.ffmpeg = ""
        self.patience = ""

    def ask(self, request: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the answer to one request.

        Raises:
            TimeoutError: it took too long; the child is in an unknown state.
            protocol.Closed, ConnectionError: the child ended.
        """
        protocol.send(self._socket, request)
        begun = time.monotonic()
        allowed = limits.open_seconds + limits.realtime_factor
        self.patience = f"no end after {allowed:.0f} s"
        while True:
            header = protocol.receive_header(self._socket, deadline=begun + allowed)
            if "at" not in header:
                break
            at = min(float(header["at"]), limits.max_seconds)
            allowed = limits.open_seconds + limits.realtime_factor * (at + 1)
            self.patience = f"at second {at:.1f} of the video after {allowed:.0f} s"
        seconds = limits.open_seconds + limits.memory_bytes / TRANSFER_BYTES_PER_SECOND
        deadline = time.monotonic() + seconds
        return header, protocol.receive_arrays(
            self._socket, header, max_bytes=limits.memory_bytes, deadline=deadline
        )

    def stream(
        self, request: dict[str, Any], limits: Limits
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the answers to a request; the last is the first without a "piece".

        The child waits until the next one is requested; only the time that we wait counts.

        Raises:
            As `ask`.
        """
        protocol.send(self._socket, request)
        reached = 0.0
        while True:
            begun, allowed = time.monotonic(), limits.open_seconds
            while True:
                self.patience = (
                    f"at second {reached:.1f} of the video nothing more within {allowed:.0f} s"
                )
                header = protocol.receive_header(self._socket, deadline=begun + allowed)
                if "at" not in header:
                    break
                # Untrusted: progress without a piece is bounded by the time limit of the file.
                reached, before = min(float(header["at"]), limits.max_seconds), reached
                allowed += limits.realtime_factor * max(0.0, reached - before)
            seconds = limits.open_seconds + limits.memory_bytes / TRANSFER_BYTES_PER_SECOND
            deadline = time.monotonic() + seconds
            max_bytes = limits.memory_bytes
            yield (
                header,
                protocol.receive_arrays(
                    self._socket, header, max_bytes=max_bytes, deadline=deadline
                ),
            )
            if "piece" not in header:
                return

    def get_ready(self) -> None:
        """Wait until the child has isolated itself and loaded its libraries.

        Raises:
            TimeoutError: not within `START_SECONDS`.
            protocol.Closed, ConnectionError: the child ended.
        """
        if not self.isolation:
            header = protocol.receive_header(
                self._socket, deadline=time.monotonic() + START_SECONDS
            )
            self.isolation, self.ffmpeg = header["ready"], str(header["ffmpeg"])

    def kill(self) -> None:
        """End the child at once; may be called while another thread waits for its answer."""
        self.process.kill()

    def end(self) -> int:
        """Kill the child unless it has ended; return its exit status, negative for a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)  # its socket closes before it has exited
        self.process.kill()
        status = self.process.wait()
        self._socket.close()
        if self._errors >= 0:
            with contextlib.suppress(BlockingIOError):
                self._words = os.read(self._errors, 1 << 16).decode(errors="replace").strip()
            os.close(self._errors)
            self._errors = -1
        return status

    def last_words(self) -> str:
        """Last line that an ended child printed."""
        return self._words.splitlines()[-1] if self._words else ""


def _environment() -> dict[str, str]:
    """Environment of a child: enough to find its libraries, and nothing secret."""
    names = (
        "PATH",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "HOME",
        "LANG",
        "TMPDIR",
    )
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    places = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    python = {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {**inherited, **one_thread, **python}
