"""Videos → embeddings of their windows: decoded at most once, in constant memory, cached in blocks."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from tristream.media.decode import DecodedVideo
from tristream.media.reasons import Rejected
from tristream.store.cache import Cache
from tristream.streams.encoding import BatchFiller
from tristream.streams.extraction import key_parts, make_fillers
from tristream.streams.model import TrainedStream
from tristream.streams.window_cutter import WindowCutter
from tristream.streams.window_rows import BLOCK, Row, aggregate, load_block, store_block
from tristream.streams.windows import MEMBERSHIP

_AHEAD = 4  # windows of one video that are prepared while others are encoded


@runtime_checkable
class Source(Protocol):
    """Video that can be read in pieces."""

    video_id: str
    path: Path
    content_id: str

    def pieces(self) -> Iterator[DecodedVideo]:
        """Yield its pieces in order, from the beginning.

        Raises:
            Rejected: the video cannot be used.
        """


@dataclass(frozen=True, eq=False)
class Places:
    """Times and regions of rows of windows, in the order of time.

    Attributes:
        start_seconds, stop_seconds: of each row's window.
        region: number of each row's region in `WindowPlan.cells`.
        peak_motion: largest displacement in the row, px at the sampler's size; NaN for fewer than
            two frames.
    """

    start_seconds: Float64[np.ndarray, " n"]
    stop_seconds: Float64[np.ndarray, " n"]
    region: Int64[np.ndarray, " n"]
    peak_motion: Float64[np.ndarray, " n"]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Places:
        """Return those of some rows."""
        return cls(
            np.array([row.start_seconds for row in rows], np.float64),
            np.array([row.stop_seconds for row in rows], np.float64),
            np.array([row.region for row in rows], np.int64),
            np.array([row.peak_motion for row in rows], np.float64),
        )


@dataclass
class WindowRows:
    """Embeddings of the windows of one video; a row is one region of one window.

    Attributes:
        source: the video.
        places: times and regions of the rows.
        embeddings: {stream: (rows, E) float32}, NaN where absent.
        absent: {stream: reason of each row, "" where it is present}.
        reasons: stable codes of the file's defects.
        rejected: sentence that names the file, or "".
        rejected_reason: stable code, or "".
    """

    source: Source
    places: Places
    embeddings: Mapping[str, Float32[np.ndarray, "n _"]]
    absent: Mapping[str, list[str]]
    reasons: tuple[str, ...] = ()
    rejected: str = ""
    rejected_reason: str = ""

    @property
    def start_seconds(self) -> Float64[np.ndarray, " n"]:
        """Start of each row's window."""
        return self.places.start_seconds

    @property
    def stop_seconds(self) -> Float64[np.ndarray, " n"]:
        """End of each row's window."""
        return self.places.stop_seconds

    @property
    def region(self) -> Int64[np.ndarray, " n"]:
        """Number of each row's region in `WindowPlan.cells`."""
        return self.places.region

    @property
    def peak_motion(self) -> Float64[np.ndarray, " n"]:
        """Largest displacement in each row, px at the sampler's size."""
        return self.places.peak_motion

    def present(self, stream: str) -> Bool[np.ndarray, " n"]:
        """Return True for each row that has the stream."""
        return np.array([not reason for reason in self.absent[stream]], bool)


def extract_windows(
    sources: Iterable[Source],
    cutter: WindowCutter,
    *,
    cache: Cache,
    n_threads: int,
    force: bool = False,
) -> Iterator[WindowRows]:
    """Embed the windows of every video by every stream of the cutter, in order.

    Args:
        sources: drawn one by one.
        cutter: of the trained streams (`WindowCutter.for_streams`).
        cache: of segment embeddings.
        n_threads: videos that are read while the networks run.
        force: compute even what is in the cache.

    Raises:
        TristreamError: precomputed flow that is missing or does not fit a video.
    """
    trained, backend = cutter.trained, cutter.backend
    device = backend.device
    keys = {
        stream.name: {
            **key_parts(stream, backend),
            "plan": cutter.plan.identity(),
            "membership": MEMBERSHIP,
        }
        for stream in trained
    }
    fillers: dict[str, BatchFiller[tuple[_Job, Row]]] = make_fillers(trained, backend)
    passing: deque[_Job] = deque()

    def settle(name: str, finished: Iterable[tuple[tuple[_Job, Row], np.ndarray]]) -> None:
        for (job, row), embedding in finished:
            row.embedding[name] = embedding
            job.move_on(trained, cache, device)

    for job, rows in _ahead(sources, cutter, cache, keys, n_threads, force=force):
        passing.append(job)
        for row in rows:
            job.open.append(row)
            for name in list(row.segments):
                settle(name, fillers[name].add((job, row), row.segments.pop(name)))
            job.move_on(trained, cache, device)
        job.is_read = True
        job.move_on(trained, cache, device)
        while passing and passing[0].is_closed:
            yield passing.popleft().result(trained)
    for name, filler in fillers.items():
        settle(name, filler.finish())
    for job in passing:
        yield job.result(trained)


@dataclass(eq=False)
class _Job:
    """Video in progress; rows leave it block by block, so it holds few segment embeddings at any time."""

    source: Source
    keys: Mapping[str, Mapping[str, Any]]
    reasons: tuple[str, ...] = ()
    rejected: Rejected | None = None
    is_read: bool = False
    is_closed: bool = False
    open: deque[Row] = field(default_factory=deque)
    done: list[Row] = field(default_factory=list)
    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)
    n_blocks: int = 0

    def move_on(self, trained: Sequence[TrainedStream], cache: Cache, device: torch.device) -> None:
        """Aggregate and store the blocks that are complete."""
        while not self.is_closed:
            if len(self.open) < BLOCK and not self.is_read:
                return
            block = list(itertools.islice(self.open, BLOCK))
            if not all(row.is_complete(trained) for row in block):
                return
            is_last = self.is_read and len(self.open) < BLOCK
            if self.rejected is None and not (block and all(row.from_cache for row in block)):
                reasons = self.reasons if is_last else ()
                store_block(
                    cache,
                    self.keys,
                    self.source.content_id,
                    self.n_blocks,
                    block,
                    is_last=is_last,
                    reasons=reasons,
                )
            for stream in trained:
                self.parts.setdefault(stream.name, []).append(aggregate(block, stream, device))
            for row in block:
                self.open.popleft()
                row.embedding.clear()
                self.done.append(row)
            self.n_blocks += 1
            self.is_closed = is_last

    def result(self, trained: Sequence[TrainedStream]) -> WindowRows:
        """Return the result of the video."""
        assert self.is_closed
        rows = self.done
        embeddings = {stream.name: np.concatenate(self.parts[stream.name]) for stream in trained}
        absent = {
            stream.name: [row.absent.get(stream.name, "") for row in rows] for stream in trained
        }
        sentence, reason = "", ""
        if self.rejected is not None:
            sentence, reason = str(self.rejected), self.rejected.reason
        elif not any(np.isfinite(values).any() for values in embeddings.values()):
            why = sorted({why for reasons in absent.values() for why in reasons}) or [
                "nothing_in_range"
            ]
            sentence = f"{self.source.video_id} can be used by none of the requested streams ({', '.join(why)})"
            reason = why[0]
        if sentence:
            rows = []
            embeddings = {name: values[:0] for name, values in embeddings.items()}
            absent = {name: [] for name in absent}
        return WindowRows(
            source=self.source,
            places=Places.of(rows),
            embeddings=embeddings,
            absent=absent,
            reasons=self.reasons,
            rejected=sentence,
            rejected_reason=reason,
        )


def _ahead(
    sources: Iterable[Source],
    cutter: WindowCutter,
    cache: Cache,
    keys: Mapping[str, Mapping[str, Any]],
    n_threads: int,
    *,
    force: bool,
) -> Iterator[tuple[_Job, Iterator[Row]]]:
    """Yield every video and its rows, prepared by threads: a few videos at a time, a few windows of each."""
    stop = threading.Event()
    started: deque[tuple[_Job, queue.Queue[Any], threading.Thread]] = deque()

    def work(job: _Job, out: queue.Queue[Any]) -> None:
        def put(thing: Any) -> bool:
            while not stop.is_set():
                try:
                    out.put(thing, timeout=0.1)
                except queue.Full:
                    continue
                return True
            return False

        try:
            for row in _rows(job, cutter, cache, force=force):
                if not put(row):
                    return
            put(None)
        except BaseException as error:  # raised again in the consumer
            put(error)

    def rows_of(out: queue.Queue[Any]) -> Iterator[Row]:
        while (row := out.get()) is not None:
            if isinstance(row, BaseException):
                raise row
            yield row

    waiting = iter(sources)
    try:
        while True:
            while len(started) < n_threads and (source := next(waiting, None)) is not None:
                flow = cutter.flow_source(source.video_id)
                own = {name: {**parts, "flow": flow} for name, parts in keys.items()}
                job = _Job(source, own if flow else keys)
                out = queue.Queue[Any](maxsize=_AHEAD * len(cutter.plan.cells()))
                thread = threading.Thread(target=work, args=(job, out), daemon=True)
                thread.start()
                started.append((job, out, thread))
            if not started:
                return
            job, out, _ = started.popleft()
            yield job, rows_of(out)
    finally:
        stop.set()
        for _, _, thread in started:
            thread.join()


def _rows(job: _Job, cutter: WindowCutter, cache: Cache, *, force: bool) -> Iterator[Row]:
    """Yield the rows of one video: from the cache as far as possible, the rest cut from the file."""
    source, n_known = job.source, 0
    for number in itertools.count() if not force else ():
        loaded = load_block(cache, job.keys, source.content_id, number)
        if loaded is None:
            break
        rows, is_last, job.reasons = loaded
        yield from rows
        n_known += len(rows)
        if is_last:
            return
    try:
        yield from itertools.islice(_cut(job, cutter), n_known, None)
    except Rejected as rejected:
        job.rejected = rejected


def _cut(job: _Job, cutter: WindowCutter) -> Iterator[Row]:
    feed, reasons = cutter.begin(job.source.video_id, job.source.path), set[str]()
    for piece in job.source.pieces():
        reasons |= set(piece.reasons)
        yield from itertools.chain.from_iterable(feed.add(piece))
    yield from itertools.chain.from_iterable(feed.finish())
    job.reasons = tuple(sorted(reasons - {"no_audio", "silent_audio", "no_video"}))
