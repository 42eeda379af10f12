"""Follow a live source: alarm on silence, reconnection with back-off, late pieces dropped."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from tristream.errors import TristreamError
from tristream.media.decode import DecodedVideo
from tristream.media.limits import DEFAULT_LIMITS, Limits
from tristream.media.live.source import LiveSource
from tristream.media.reasons import DEGRADED
from tristream.media.sandbox import protocol
from tristream.media.sandbox.process import Child

SILENCE_SECONDS = 20.0  # without a frame until the alarm (as in Frigate)
BACK_OFF_SECONDS = (1.0, 60.0)  # before the first new attempt; doubled up to the maximum
MAX_LAG_SECONDS = 10.0  # of waiting pieces; older ones are dropped


@dataclass(frozen=True)
class Piece:
    """Next stretch of the source.

    Attributes:
        video: frames and audio, on the clock of the connection.
        offset_seconds: to add to its times for seconds since the very first piece.
        is_new: True if it does not continue the piece before: another connection, or dropped pieces.
    """

    video: DecodedVideo
    offset_seconds: float
    is_new: bool


@dataclass(frozen=True)
class Notice:
    """Message about the source itself.

    Attributes:
        kind: 'opened', 'no_frames', 'lost', 'reconnecting', 'recovered', 'dropped' or 'ended'.
        at_seconds: since the very first piece.
        words: a sentence.
        value: the seconds or frames in the sentence.
    """

    kind: str
    at_seconds: float
    words: str
    value: float = 0.0


class Follower:
    """Pieces and notices of a live source in order, until it ends or `close` is called; a context manager.

    Args:
        source: to be followed.
        pictures, sound, max_side: as in `decode_video`.
        chunk_seconds: length of a piece.
        limits: of its decode process.
        silence_seconds: without a frame until the alarm; a network source or a camera is then opened again, a file or a
            pipe is waited for.
        back_off: seconds before the first and at most before any new attempt.
        max_lag_seconds: of pieces that wait unread; older ones are dropped and counted. None: `MAX_LAG_SECONDS` for a
            network source or a camera, no limit for a file or a pipe, which wait for the reader.
        keep_trying: try again, with back-off, if a network source or a camera does not answer at the start. A source
            that answers with something that cannot be followed is an error at once.
    """

    def __init__(
        self,
        source: LiveSource,
        *,
        pictures: bool = True,
        sound: bool = True,
        max_side: int | None = None,
        chunk_seconds: float = 1.0,
        limits: Limits = DEFAULT_LIMITS,
        silence_seconds: float = SILENCE_SECONDS,
        back_off: tuple[float, float] = BACK_OFF_SECONDS,
        max_lag_seconds: float | None = None,
        keep_trying: bool = True,
    ) -> None:
        self._source = source
        self._options = {
            "pictures": pictures,
            "sound": sound,
            "max_side": max_side,
            "chunk_seconds": chunk_seconds,
        }
        self._limits = limits
        self._silence = silence_seconds
        self._back_off = back_off
        self._keep_trying = keep_trying and source.kind in ("network", "camera")
        self._max_lag = (
            max_lag_seconds if max_lag_seconds is not None or source.waits else MAX_LAG_SECONDS
        )
        self._waiting: deque[Piece | Notice] = deque()
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._ended = False
        self._failure: BaseException | None = None
        self._child: Child | None = None
        self._began: float | None = None  # time.monotonic of the first piece
        self._end = 0.0  # of the newest piece, on the common clock
        self._dropped_before_next = False
        self.n_dropped_frames = 0
        self._thread = threading.Thread(target=self._work, name="follow", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the decode process and all waiting."""
        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        if (child := self._child) is not None:
            child.kill()
        self._thread.join()

    def __iter__(self) -> Iterator[Piece | Notice]:
        """Yield pieces and notices in order; wait for more.

        Raises:
            TristreamError: the source could not be opened, and will not be by waiting.
        """
        while True:
            with self._changed:
                while not self._waiting and not self._ended and not self._closed.is_set():
                    self._changed.wait()
                if not self._waiting:
                    if self._failure is not None:
                        raise self._failure
                    return
                thing = self._waiting.popleft()
                self._changed.notify_all()
            yield thing

    def _work(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # raised again by __iter__
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _follow(self) -> None:
        """Follow one connection after the other."""
        pause = self._back_off[0]
        while True:
            why, n_pieces, may_come = self._connect()
            if self._closed.is_set():
                return
            if why == "" and self._source.address == "-":
                self._notice("ended", "the standard input has ended")
                return
            if n_pieces:
                pause = self._back_off[0]
            elif self._began is None and not (may_come and self._keep_trying):
                raise TristreamError(f"{self._source.shown} {why or 'holds nothing'}")
            self._notice("lost", f"{self._source.shown}: {why or 'the source has ended'}")
            self._notice("reconnecting", f"opening it again in {pause:.0f} s", pause)
            if self._closed.wait(pause):
                return
            pause = min(2 * pause, self._back_off[1])

    def _connect(self) -> tuple[str, int, bool]:
        """Follow one connection to its end.

        Returns:
            Why it ended, the number of its pieces, and True if a source that has sent nothing may do so later.
        """
        # The child's standard input is empty; it inherits ours under another number.
        stdin = os.dup(sys.stdin.fileno()) if self._source.address == "-" else None
        allowed: dict[str, Any] = {"network": self._source.kind == "network"}
        if self._source.kind == "camera":
            allowed["device"] = self._source.address
        child = self._child = Child(
            self._limits, allowed=allowed, pass_fds=() if stdin is None else (stdin,)
        )
        n_pieces, offset = 0, 0.0
        messages: _Messages | None = None
        try:
            child.get_ready()
            messages = _Messages(child, self._request(stdin), self._limits)
            while True:
                header, arrays = self._next(messages)
                if "piece" not in header:
                    may_come = header.get("rejected") == "not_reachable"
                    return str(header.get("sentence", ""))[:500], n_pieces, may_come
                video = _video(header["piece"], arrays)
                if not len(video.start_seconds) and video.samples is None:
                    continue
                if not n_pieces:
                    offset = self._join(video)
                self._put(Piece(video, offset, not n_pieces))
                n_pieces += 1
        except _Silence:
            return f"no frame for {self._silence:g} s", n_pieces, True
        except (protocol.Closed, ConnectionError, TimeoutError) as error:
            return f"its decode process ended ({child.last_words() or error})", n_pieces, False
        finally:
            self._child = None
            child.end()
            if stdin is not None:
                os.close(stdin)
            if messages is not None:
                messages.close()

    def _next(self, messages: _Messages) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the next message; raise an alarm if none comes in time.

        Raises:
            _Silence: none came, and the source is not waited for.
        """
        silent = False
        while True:
            message = messages.next(self._silence)
            if self._closed.is_set():
                raise protocol.Closed("closed by us")
            if message is not None:
                if silent and "piece" in message[0]:
                    self._notice("recovered", f"{self._source.shown}: frames again")
                return message
            if not silent:
                self._notice(
                    "no_frames",
                    f"ALARM {self._source.shown}: no frame for {self._silence:g} s",
                    self._silence,
                )
                silent = True
            if not self._source.waits:
                raise _Silence

    def _request(self, stdin: int | None) -> dict[str, Any]:
        # FFmpeg's timeout is longer than ours, so that silence is an alarm before it is an error of FFmpeg.
        patience = 1.5 * self._silence + 1
        options = {
            **self._options,
            "source": asdict(self._source),
            "open_seconds": patience,
            "stdin": stdin,
        }
        budget = self._limits.open_seconds + self._limits.realtime_factor * (self._silence + 10)
        return {
            "work": "follow",
            "path": "",
            "root": None,
            "options": options,
            "cpu_seconds": budget,
        }

    def _join(self, video: DecodedVideo) -> float:
        """Return the offset of a new connection on the common clock: by elapsed time, never before the last piece."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
            self._notice("opened", f"following {self._source.shown}")
            return 0.0
        at = max(now - self._began, self._end)
        self._notice(
            "recovered",
            f"{self._source.shown}: frames again after {at - self._end:.1f} s",
            at - self._end,
        )
        return at - _first(video)

    def _put(self, piece: Piece) -> None:
        video = piece.video
        last = max([*video.stop_seconds[-1:].tolist(), video.samples_stop_seconds])
        with self._changed:
            self._end = last + piece.offset_seconds
            if self._max_lag is None:
                while (
                    sum(isinstance(thing, Piece) for thing in self._waiting) >= 2
                    and not self._closed.is_set()
                ):
                    self._changed.wait(0.5)
            else:
                self._drop_late(piece)
            if self._dropped_before_next:
                piece, self._dropped_before_next = replace(piece, is_new=True), False
            self._waiting.append(piece)
            self._changed.notify_all()

    def _drop_late(self, newest: Piece) -> None:
        """Drop waiting pieces if they lag too far behind the present."""
        pieces = [thing for thing in self._waiting if isinstance(thing, Piece)]
        if not pieces or self._max_lag is None:
            return
        lag = self._end - (pieces[0].offset_seconds + _first(pieces[0].video))
        if lag <= self._max_lag:
            return
        n_frames = sum(len(piece.video.start_seconds) for piece in pieces)
        notices = [thing for thing in self._waiting if isinstance(thing, Notice)]
        self._waiting.clear()
        self._waiting.extend(notices)
        self.n_dropped_frames += n_frames
        self._dropped_before_next = True
        at = newest.offset_seconds + _first(newest.video)
        words = f"{n_frames} frames dropped: they waited for over {self._max_lag:g} s ({self.n_dropped_frames} in all)"
        self._waiting.append(Notice("dropped", at, words, n_frames))

    def _notice(self, kind: str, words: str, value: float = 0.0) -> None:
        at = 0.0 if self._began is None else time.monotonic() - self._began
        with self._changed:
            self._waiting.append(Notice(kind, at, words, value))
            self._changed.notify_all()


class _Silence(Exception):
    """No message for too long."""


class _Messages:
    """Messages of a child, read by a thread, so that waiting can end before a message comes."""

    def __init__(self, child: Child, request: dict[str, Any], limits: Limits) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._read, args=(child, request, limits), daemon=True
        )
        self._thread.start()

    def next(self, seconds: float) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the next message, or None if none comes within so many seconds."""
        try:
            message = self._queue.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(message, BaseException):
            raise message
        return message

    def close(self) -> None:
        """End the thread after the child has ended."""
        self._closed.set()
        self._thread.join()

    def _put(self, thing: Any) -> None:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(thing, timeout=0.1)
                return

    def _read(self, child: Child, request: dict[str, Any], limits: Limits) -> None:
        patient = replace(limits, open_seconds=1e9)  # the follower limits the waiting
        try:
            for message in child.stream(request, patient):
                self._put(message)
        except (OSError, ValueError) as error:  # its socket is closed at its end
            self._put(ConnectionError(str(error)))


def _video(header: dict[str, Any], arrays: dict[str, Any]) -> DecodedVideo:
    fields = {"frames": None, "samples": None, **header, **arrays}
    fields["reasons"] = tuple(reason for reason in fields["reasons"] if reason in DEGRADED)
    try:
        return DecodedVideo(**fields)
    except TypeError as error:
        raise protocol.Closed(f"not a valid piece: {error}") from error


def _first(video: DecodedVideo) -> float:
    begins = video.start_seconds[:1].tolist() + (
        [video.samples_start_seconds] if video.samples is not None else []
    )
    return float(min(begins))
