"""Decoding in child processes with limits: whatever a file does to its decoder, the parent goes on."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from media import wire
from media.decode import DecodedVideo
from media.limits import DEFAULT_LIMITS, Limits
from media.probe import Probe
from media.reasons import DEGRADED, REJECTED, Rejected

START_SECONDS = 60.0  # for a child to import its libraries, on a machine that is busy
TRANSFER_BYTES_PER_SECOND = 10e6  # slower than this, a child that hands over its answer counts as stuck
SHARE_OF_MEMORY = 0.6  # of the machine, for all children together
ATTEMPTS = 3  # for a file whose child was killed from outside; one that crashes its decoder gets one
_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP}


class StartError(RuntimeError):
    """A decode process did not start: no file's fault."""


class DecodePool:
    """Long-lived decode processes. `submit` may be called from any thread; leave by `with`, and no process stays.

    Args:
        n_workers: processes at most; fewer where they could use more than `SHARE_OF_MEMORY` of the machine's memory.
        limits: per file.
    """

    def __init__(self, n_workers: int, *, limits: Limits = DEFAULT_LIMITS) -> None:
        if n_workers < 1:
            raise ValueError(f"{n_workers} decode workers; at least 1 is needed")
        affordable = int(SHARE_OF_MEMORY * memory_bytes() / limits.memory_bytes)
        self.n_workers = max(1, min(n_workers, affordable))
        self._limits = limits
        self._threads = ThreadPoolExecutor(self.n_workers, thread_name_prefix="decode")
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._children: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False

    def submit(
        self,
        path: Path,
        *,
        pictures: bool = True,
        sound: bool = True,
        keep: bool = True,
        max_side: int | None = None,
        start_seconds: float = 0.0,
        stop_seconds: float | None = 36.0,
        root: Path | None = None,
        follow_links: bool = False,
    ) -> Future[DecodedVideo]:
        """`media.decode.decode_video` in a child process.

        Its future raises `Rejected`, whatever the file does to its decoder, and `StartError` where no child can run.
        """
        options = {
            "pictures": pictures,
            "sound": sound,
            "keep": keep,
            "max_side": max_side,
            "start_seconds": start_seconds,
            "stop_seconds": stop_seconds,
            "follow_links": follow_links,
        }
        span = math.inf if stop_seconds is None else stop_seconds
        return self._threads.submit(self._run, "decode", path, root, options, span, _to_video)

    def probe(self, path: Path, *, root: Path | None = None, follow_links: bool = False) -> Future[Probe]:
        """`media.probe.probe` in a child process."""
        return self._threads.submit(self._run, "probe", path, root, {"follow_links": follow_links}, 0.0, _to_probe)

    def pids(self) -> list[int]:
        """Process numbers of the children that live now."""
        with self._lock:
            return sorted(child.process.pid for child in self._children)

    def close(self) -> None:
        """Kills the children; what was not finished raises `Rejected` or `CancelledError`."""
        with self._lock:
            self._closed = True
            children = list(self._children)
        for child in children:
            child.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            children = list(self._children)
        for child in children:
            self._discard(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(
        self, work: str, path: Path, root: Path | None, options: dict[str, Any], span: float, build: Callable[..., Any]
    ) -> Any:
        """One request, from a thread of ours; the child that answers it is free again afterwards, or replaced."""
        limits = self._limits
        request = {
            "work": work,
            "path": _as_text(path),
            "root": None if root is None else _as_text(root),
            "options": options,
            "cpu_seconds": limits.open_seconds + limits.realtime_factor * (min(span, limits.max_seconds) + 1),
        }
        for attempt in range(ATTEMPTS):
            child = self._take()
            try:
                child.get_ready()
                header, arrays = child.ask(request, limits)
                if header.get("rejected") == "out_of_memory":
                    self._discard(child)  # it ends by itself
                else:
                    self._idle.put(child)
            except StartError:
                self._discard(child)
                raise
            except TimeoutError:
                self._discard(child)
                raise Rejected("decoder_timeout", path, f"takes too long to decode: {child.patience}") from None
            except (wire.Closed, ConnectionError) as error:
                status = self._discard(child)
                if not child.isolation and status not in _FROM_OUTSIDE:
                    raise StartError(f"a decode process does not start: {child.last_words() or error}") from error
                if self._closed or status not in _FROM_OUTSIDE or attempt == ATTEMPTS - 1:
                    raise _crash(path, status, child.last_words(), error) from None
                continue
            return _result(path, header, arrays, build)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _take(self) -> _Child:
        with contextlib.suppress(queue.Empty):
            while True:
                child = self._idle.get_nowait()
                if child.process.poll() is None:
                    return child
                self._discard(child)  # died while it had nothing to do
        child = _Child(self._limits)
        with self._lock:
            self._children.add(child)
            closed = self._closed
        if closed:
            child.kill()
        return child

    def _discard(self, child: _Child) -> int:
        with self._lock:
            self._children.discard(child)
        return child.end()


class _Child:
    """One decode process and our end of its socket. It is started by a thread that lives as long as the pool:
    Linux ends a child together with the thread that started it."""

    def __init__(self, limits: Limits) -> None:
        ours, theirs = socket.socketpair()
        errors, their_errors = os.pipe()
        os.set_blocking(errors, False)
        os.set_blocking(their_errors, False)  # a child that prints more than we read loses it, and does not wait
        command = [sys.executable, "-P", "-m", "media.child", str(theirs.fileno()), str(os.getpid())]
        self.process = subprocess.Popen(
            [*command, json.dumps(asdict(limits))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=their_errors,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C in the terminal does not reach it
            env=_environment(),
        )
        theirs.close()
        os.close(their_errors)
        self._socket = ours
        self._errors = errors
        self._words = ""
        self.isolation: dict[str, str] = {}  # empty until the child is ready
        self.patience = ""

    def ask(self, request: dict[str, Any], limits: Limits) -> tuple[dict[str, Any], dict[str, Any]]:
        """The answer to one request.

        Raises:
            TimeoutError: it took too long; the child is in an unknown state.
            wire.Closed, ConnectionError: the child died.
        """
        wire.send(self._socket, request)
        begun = time.monotonic()
        allowed = limits.open_seconds + limits.realtime_factor
        self.patience = f"no end after {allowed:.0f} s"
        while True:
            header = wire.receive_header(self._socket, deadline=begun + allowed)
            if "at" not in header:
                break
            at = min(float(header["at"]), limits.max_seconds)
            allowed = limits.open_seconds + limits.realtime_factor * (at + 1)
            self.patience = f"at second {at:.1f} of the video after {allowed:.0f} s"
        seconds = limits.open_seconds + limits.memory_bytes / TRANSFER_BYTES_PER_SECOND
        deadline = time.monotonic() + seconds
        return header, wire.receive_arrays(self._socket, header, max_bytes=limits.memory_bytes, deadline=deadline)

    def get_ready(self) -> None:
        """Waits until the child has isolated itself and loaded its libraries.

        Raises:
            StartError: not within `START_SECONDS`.
            wire.Closed, ConnectionError: the child died.
        """
        if not self.isolation:
            try:
                header = wire.receive_header(self._socket, deadline=time.monotonic() + START_SECONDS)
            except TimeoutError as error:
                raise StartError(f"a decode process is not ready after {START_SECONDS:.0f} s") from error
            self.isolation = header["ready"]

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


def isolation() -> dict[str, str]:
    """What a decode process can keep itself from on this machine; for `doctor`."""
    child = _Child(DEFAULT_LIMITS)
    try:
        child.get_ready()
        return child.isolation
    finally:
        child.end()


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or less where its control group says so."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # absent, or the word "max"
            found = min(found, int(Path(limit).read_text()))
    return found


def _environment() -> dict[str, str]:
    """What a child needs to find its libraries, and nothing secret."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV", "HOME", "LANG", "TMPDIR")
    found = {name: os.environ[name] for name in kept if name in os.environ}
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    python = {"PYTHONPATH": os.pathsep.join(filter(None, places)), "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**found, **one_thread, **python}


def _as_text(path: Path) -> str:
    return os.fsencode(Path(path).absolute()).decode("latin-1")  # byte by byte: a name need not be valid UTF-8


def _result(path: Path, header: dict[str, Any], arrays: dict[str, Any], build: Callable[..., Any]) -> Any:
    if (reason := header.get("rejected")) in REJECTED:
        raise Rejected(reason, path, str(header.get("sentence", ""))[:2000])
    try:
        return build(**header["found"], **arrays)
    except (KeyError, TypeError) as error:
        raise Rejected("decoder_crashed", path, f"got no sensible answer from its decode process: {error}") from error


def _to_video(**found: Any) -> DecodedVideo:
    fields = {"frames": None, "samples": None, **found}
    fields["reasons"] = tuple(reason for reason in fields["reasons"] if reason in DEGRADED)
    return DecodedVideo(**fields)


def _to_probe(**found: Any) -> Probe:
    return Probe(**found)


def _crash(path: Path, status: int, last_words: str, error: Exception) -> Rejected:
    if status == -signal.SIGXCPU:
        return Rejected("decoder_timeout", path, "used more processor time to decode than allowed")
    how = f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
    return Rejected("decoder_crashed", path, f"ended its decode process, which {how} ({last_words or error})")
