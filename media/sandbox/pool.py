"""Pool of decode processes with limits: the parent survives whatever a file does to its decoder."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from tristream.errors import MachineError, TristreamError
from tristream.media import ffmpeg
from tristream.media.decode import PATIENCE_SECONDS, DecodedVideo
from tristream.media.limits import DEFAULT_LIMITS, Limits
from tristream.media.machine import memory_bytes
from tristream.media.probe import Probe
from tristream.media.reasons import DEGRADED, REJECTED, Rejected
from tristream.media.sandbox import protocol
from tristream.media.sandbox.process import START_SECONDS, Child

SHARE_OF_MEMORY = 0.6  # of the machine, for all children together
START_ATTEMPTS = 5  # for a child that is killed from outside before it is ready
# For a file during which its child was killed from outside; a file that crashes its decoder gets one.
ATTEMPTS = 8
_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP}


class StartError(MachineError):
    """A decode process did not start, or must not be used; not the fault of a file."""


class DecodePool:
    """Long-lived decode processes; `submit` may be called from any thread. A context manager that leaves no process.

    Args:
        n_workers: at most; fewer if they could use more than `SHARE_OF_MEMORY` of the machine's memory.
        limits: per file.
    """

    def __init__(self, n_workers: int, *, limits: Limits = DEFAULT_LIMITS) -> None:
        if n_workers < 1:
            raise TristreamError(f"{n_workers} decode workers; at least 1 is needed")
        affordable = int(SHARE_OF_MEMORY * memory_bytes() / limits.memory_bytes)
        self.n_workers = max(1, min(n_workers, affordable))
        self._limits = limits
        self._threads = ThreadPoolExecutor(self.n_workers, thread_name_prefix="decode")
        self._idle: queue.LifoQueue[Child] = queue.LifoQueue()
        self._children: set[Child] = set()
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
        """Run `media.decode.decode_video` in a child process.

        Its future raises `Rejected`, whatever the file does to its decoder, and `StartError` if no child can run.
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

    def probe(
        self, path: Path, *, root: Path | None = None, follow_links: bool = False
    ) -> Future[Probe]:
        """Run `media.probe.probe` in a child process."""
        return self._threads.submit(
            self._run, "probe", path, root, {"follow_links": follow_links}, 0.0, _to_probe
        )

    def stream(
        self,
        path: Path,
        *,
        pictures: bool = True,
        sound: bool = True,
        max_side: int | None = None,
        chunk_seconds: float = 1.0,
        root: Path | None = None,
        follow_links: bool = False,
    ) -> Iterator[DecodedVideo]:
        """Run `media.chunks.decode_chunks` in a child process, which waits until the next piece is requested.

        It occupies one process of the pool from the first piece to the last.

        Raises:
            Rejected, StartError: as the future of `submit`; possibly after some pieces.
        """
        limits = self._limits
        options = {
            "pictures": pictures,
            "sound": sound,
            "max_side": max_side,
            "chunk_seconds": chunk_seconds,
        }
        request = {
            "work": "stream",
            "path": _as_text(path),
            "root": None if root is None else _as_text(root),
            "options": {**options, "follow_links": follow_links},
            "cpu_seconds": limits.open_seconds
            + limits.realtime_factor * (PATIENCE_SECONDS + chunk_seconds),
        }
        child = self._threads.submit(self._take).result()  # by a thread that outlives it: see Child
        finished = False
        try:
            for header, arrays in child.stream(request, limits):
                if "piece" in header:
                    yield _result(path, {"found": header["piece"]}, arrays, _to_video)
                    continue
                finished = header.get("rejected") != "out_of_memory"
                if "rejected" in header:
                    _result(path, header, arrays, _to_video)
        except TimeoutError:
            raise Rejected(
                "decoder_timeout", path, f"takes too long to decode: {child.patience}"
            ) from None
        except (protocol.Closed, ConnectionError) as error:
            status = self._discard(child)
            raise _crash(path, status, child.last_words(), error) from None
        finally:
            if finished:
                self._idle.put(child)
            else:
                self._discard(child)

    def check_decoder(self) -> str:
        """Return the version of the FFmpeg that decodes; the process started for it then serves the first file.

        Raises:
            StartError: no process can be started, or its FFmpeg is known to be unsafe.
        """

        def look() -> (
            str
        ):  # in a thread of the pool: a process ends with the thread that started it
            child = self._take()
            self._idle.put(child)
            return child.ffmpeg

        return self._threads.submit(look).result()

    def pids(self) -> list[int]:
        """Process ids of the running children."""
        with self._lock:
            return sorted(child.process.pid for child in self._children)

    def close(self) -> None:
        """Kill the children; unfinished futures raise `Rejected` or `CancelledError`."""
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

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(
        self,
        work: str,
        path: Path,
        root: Path | None,
        options: dict[str, Any],
        span: float,
        build: Callable[..., Any],
    ) -> Any:
        """Run one request in a thread of the pool; its child is idle again afterwards, or replaced."""
        limits = self._limits
        request = {
            "work": work,
            "path": _as_text(path),
            "root": None if root is None else _as_text(root),
            "options": options,
            "cpu_seconds": limits.open_seconds
            + limits.realtime_factor * (min(span, limits.max_seconds) + 1),
        }
        for attempt in range(ATTEMPTS):
            child = self._take()
            try:
                header, arrays = child.ask(request, limits)
            except TimeoutError:
                self._discard(child)
                raise Rejected(
                    "decoder_timeout", path, f"takes too long to decode: {child.patience}"
                ) from None
            except (protocol.Closed, ConnectionError) as error:
                status = self._discard(child)
                if self._closed or status not in _FROM_OUTSIDE or attempt == ATTEMPTS - 1:
                    raise _crash(path, status, child.last_words(), error) from None
                continue
            if header.get("rejected") == "out_of_memory":
                self._discard(child)  # it ends by itself
            else:
                self._idle.put(child)
            return _result(path, header, arrays, build)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _take(self) -> Child:
        """Return a child that is ready for a request.

        Raises:
            StartError: no child can be started.
        """
        for attempt in range(START_ATTEMPTS):
            child = self._idle_child() or self._start()
            try:
                child.get_ready()
                break
            except TimeoutError as error:
                self._discard(child)
                raise StartError(
                    f"a decode process is not ready after {START_SECONDS:.0f} s"
                ) from error
            except (protocol.Closed, ConnectionError) as error:
                status = self._discard(child)
                if self._closed or status not in _FROM_OUTSIDE or attempt == START_ATTEMPTS - 1:
                    raise StartError(
                        f"a decode process does not start: {child.last_words() or error}"
                    ) from error
        if wrong := ffmpeg.fault(child.ffmpeg):
            self._discard(child)
            raise StartError(wrong)
        return child

    def _idle_child(self) -> Child | None:
        with contextlib.suppress(queue.Empty):
            while True:
                child = self._idle.get_nowait()
                if child.process.poll() is None:
                    return child
                self._discard(child)  # ended while it was idle
        return None

    def _start(self) -> Child:
        child = Child(self._limits)
        with self._lock:
            self._children.add(child)
            closed = self._closed
        if closed:
            child.kill()
        return child

    def _discard(self, child: Child) -> int:
        with self._lock:
            self._children.discard(child)
        return child.end()


def isolation() -> dict[str, str]:
    """Return the isolation that a decode process achieves on this machine; for `doctor`."""
    child = Child(DEFAULT_LIMITS)
    try:
        child.get_ready()
        return child.isolation
    finally:
        child.end()


def _as_text(path: Path) -> str:
    return os.fsencode(Path(path).absolute()).decode(
        "latin-1"
    )  # byte by byte: names may be invalid UTF-8


def _result(
    path: Path, header: dict[str, Any], arrays: dict[str, Any], build: Callable[..., Any]
) -> Any:
    if (reason := header.get("rejected")) in REJECTED:
        raise Rejected(reason, path, str(header.get("sentence", ""))[:2000])
    try:
        return build(**header["found"], **arrays)
    except (KeyError, TypeError) as error:
        raise Rejected(
            "decoder_crashed", path, f"got no valid answer from its decode process: {error}"
        ) from error


def _to_video(**answer: Any) -> DecodedVideo:
    fields = {"frames": None, "samples": None, **answer}
    fields["reasons"] = tuple(reason for reason in fields["reasons"] if reason in DEGRADED)
    return DecodedVideo(**fields)


def _to_probe(**answer: Any) -> Probe:
    return Probe(**answer)


def _crash(path: Path, status: int, last_words: str, error: Exception) -> Rejected:
    if status == -signal.SIGXCPU:
        return Rejected("decoder_timeout", path, "used more processor time to decode than allowed")
    how = (
        f"ended with status {status}"
        if status >= 0
        else f"was ended by {signal.Signals(-status).name}"
    )
    return Rejected(
        "decoder_crashed", path, f"ended its decode process, which {how} ({last_words or error})"
    )
