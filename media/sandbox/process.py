"""The parent's side of one decode process (media/sandbox/worker.py): starting it, asking it, ending it."""

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
START_SECONDS = 60.0  # for a child to import its libraries, on a machine that is busy
TRANSFER_BYTES_PER_SECOND = (
    10e6  # slower than this, a child that hands over its answer counts as stuck
)


class Child:
    """One decode process and our end of its socket.

    The thread that makes it must live as long as it shall: Linux ends a child together with the thread that started it.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        allowed: Mapping[str, Any] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """`allowed`: what `isolation.isolate` leaves it beyond the usual; `pass_fds`: open files it inherits."""
        ours, theirs = socket.socketpair()
        errors, their_errors = os.pipe()
        os.set_blocking(errors, False)
        os.set_blocking(
            their_errors, False
        )  # a child that prints more than we read loses it, and does not wait
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
            start_new_session=True,  # Ctrl-C in the terminal does not reach it
            env=_environment(),
        )
        theirs.close()
        os.close(their_errors)
        self._socket = ours
        self._errors = errors
        self._words = ""
        self.isolation: dict[str, str] = {}  # empty until the child is ready, as the next
        self.ffmpeg = ""
        self.patience = ""

    def ask(self, request: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], dict[str, Any]]:
        """The answer to one request.

        Raises:
            TimeoutError: it took too long; the child is in an unknown state.
            wire.Closed, ConnectionError: the child died.
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
        """The answers to a request that has many; the last is the first that holds no "piece".

        The child waits while we do not take the next one; only the time that we wait for it counts.

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
                # Whatever it claims: a piece that is always on its way ends with the file's own limit of time.
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
        """Waits until the child has isolated itself and loaded its libraries.

        Raises:
            TimeoutError: not within `START_SECONDS`.
            wire.Closed, ConnectionError: the child died.
        """
        if not self.isolation:
            header = protocol.receive_header(
                self._socket, deadline=time.monotonic() + START_SECONDS
            )
            self.isolation, self.ffmpeg = header["ready"], str(header["ffmpeg"])

    def kill(self) -> None:
        """Ends the child at once; may be called from another thread than the one that waits for its answer."""
        self.process.kill()

    def end(self) -> int:
        """Kills the child unless it has ended, and says how it did: negative is a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)  # a socket that closes is seen before the exit that closed it
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
        """The last line that an ended child printed."""
        return self._words.splitlines()[-1] if self._words else ""


def _environment() -> dict[str, str]:
    """What a child needs to find its libraries, and nothing secret."""
    kept = (
        "PATH",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "HOME",
        "LANG",
        "TMPDIR",
    )
    found = {name: os.environ[name] for name in kept if name in os.environ}
    places = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    python = {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return {**found, **one_thread, **python}
