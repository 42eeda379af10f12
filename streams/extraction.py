"""Videos → segment embeddings → video embeddings: each decoded once, overlapped, cached, with one state."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int

from tristream.media.reasons import Rejected
from tristream.store.cache import Cache
from tristream.store.lineage import versions
from tristream.streams.backend import Backend
from tristream.streams.encoding import BatchFiller
from tristream.streams.model import TrainedStream, pad
from tristream.streams.reader import Reading
from tristream.streams.segments import Absent, Footage, Segments
from tristream.streams.stream import Stream
from tristream.streams.timings import Stages
from tristream.streams.video import Video

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class SegmentEmbeddings:
    """Segment embeddings of one video and their times.

    Attributes:
        embedding: (S, D) float32; no rows if the video does not have the stream.
        start_seconds: of each segment.
        stop_seconds: of each segment.
        absent: stable reason why there are none, or "".
        reasons: stable codes of the video's defects.
    """

    embedding: Float[np.ndarray, "S D"]
    start_seconds: Float[np.ndarray, " S"]
    stop_seconds: Float[np.ndarray, " S"]
    absent: str = ""
    reasons: tuple[str, ...] = ()

    def to_entry(self) -> dict[str, np.ndarray]:
        """Return arrays for the cache."""
        notes = json.dumps([self.absent, *self.reasons]).encode()
        return {
            "embedding": self.embedding,
            "start_seconds": self.start_seconds,
            "stop_seconds": self.stop_seconds,
            "notes": np.frombuffer(notes, np.uint8),
        }

    @classmethod
    def from_entry(cls, entry: Mapping[str, np.ndarray]) -> SegmentEmbeddings:
        """Return the embeddings that `to_entry` wrote."""
        absent, *reasons = json.loads(entry["notes"].tobytes())
        return cls(
            entry["embedding"],
            entry["start_seconds"],
            entry["stop_seconds"],
            absent,
            tuple(reasons),
        )


@dataclass(frozen=True)
class Scores:
    """Results of a stream's own softmax layer for one video.

    Attributes:
        logits: of the video.
        segment_labels: most probable class of each segment; None if the layer reads the video embedding alone.
        segment_probabilities: of these classes.
    """

    logits: Float[np.ndarray, " K"]
    segment_labels: Int[np.ndarray, " S"] | None = None
    segment_probabilities: Float[np.ndarray, " S"] | None = None

    @classmethod
    def of(cls, reading: Reading) -> Scores:
        """Return those of a reading of a single video."""
        logits = reading.logits[0].float().cpu().numpy()
        if reading.step_logits is None:
            return cls(logits)
        probabilities, labels = reading.step_logits[0].float().softmax(dim=1).max(dim=1)
        return cls(logits, labels.int().cpu().numpy(), probabilities.cpu().numpy())


@dataclass(frozen=True)
class VideoResult:
    """Result of extracting one video.

    Attributes:
        video: the video.
        embeddings: {stream: video embedding (E,) float32} of the streams it has.
        segments: {stream: its segment embeddings and their times}.
        absent: {stream: stable reason} of the streams it does not have.
        reasons: stable codes of its defects.
        rejected: sentence that names the file, or "".
        rejected_reason: stable code, or "".
        scores: {stream: results of its softmax layer} of the streams it has.
    """

    video: Video
    embeddings: Mapping[str, Float[np.ndarray, " E"]]
    segments: Mapping[str, SegmentEmbeddings]
    absent: Mapping[str, str]
    reasons: tuple[str, ...]
    rejected: str = ""
    rejected_reason: str = ""
    scores: Mapping[str, Scores] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """State of the video: ok, degraded or rejected."""
        return "rejected" if self.rejected else "degraded" if self.reasons or self.absent else "ok"


def in_order(work: Callable[[In], Out], things: Iterable[In], *, n_threads: int) -> Iterator[Out]:
    """Yield `work` of each thing, in order; only a few are in progress, so memory stays flat."""
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for thing in things:
                waiting.append(pool.submit(work, thing))
                if len(waiting) > n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def gather_footage(
    videos: Sequence[Video], stream: Stream, *, n_threads: int
) -> Iterator[tuple[Video, Footage | Absent | Rejected]]:
    """Yield the footage of each video, in order, or the reason why there is none."""

    def work(video: Video) -> tuple[Video, Footage | Absent | Rejected]:
        try:
            return video, stream.footage(video)
        except (Absent, Rejected) as why:
            return video, why
        finally:
            video.forget()

    return in_order(work, videos, n_threads=n_threads)


def encode_videos(
    videos: Iterable[Video],
    trained: TrainedStream,
    *,
    cache: Cache,
    backend: Backend,
    n_threads: int,
) -> Iterator[tuple[Video, Float[np.ndarray, "S D"] | Absent | str]]:
    """Yield the segment embeddings of each video, in order, from the cache if possible, or why there are none.

    A text is the sentence of a rejected file.
    """
    for result in extract(videos, [trained], cache=cache, backend=backend, n_threads=n_threads):
        if trained.name in result.embeddings:
            yield result.video, result.segments[trained.name].embedding
        elif trained.name in result.absent:
            yield result.video, Absent(result.absent[trained.name])
        else:
            yield result.video, result.rejected


def extract(
    videos: Iterable[Video],
    trained: Sequence[TrainedStream],
    *,
    cache: Cache,
    backend: Backend,
    n_threads: int,
    force: bool = False,
    stages: Stages | None = None,
) -> Iterator[VideoResult]:
    """Yield the video embeddings of every video by every stream, in order.

    A video is decoded at most once, and not at all if the cache holds all its segment embeddings. While the networks
    run on one video, the next ones are decoded and cut; batches are filled across videos.

    Args:
        videos: drawn one by one.
        trained: streams.
        cache: of segment embeddings.
        backend: runs the networks.
        n_threads: videos that are decoded and cut while the networks run.
        force: compute even what is in the cache.
        stages: the time spent is added to it.
    """
    stages = stages or Stages()
    keys = {stream.name: key_parts(stream, backend) for stream in trained}
    fillers: dict[str, BatchFiller[_Job]] = make_fillers(trained, backend)
    passing: deque[_Job] = deque()  # in order; a video waits here until its segments are encoded

    def settle(stream: TrainedStream, finished: Iterable[tuple[_Job, np.ndarray]]) -> None:
        for job, embedding in finished:
            key, segments, reasons = job.todo.pop(stream.name)
            result = SegmentEmbeddings(
                embedding, segments.start_seconds, segments.stop_seconds, reasons=reasons
            )
            with stages.spent("write"):
                cache.put("segments", key, result.to_entry())
            job.done[stream.name] = result

    def finished() -> Iterator[VideoResult]:
        while passing and not passing[0].todo:
            yield _finish(passing.popleft(), trained, backend.device, stages)
        stages.seconds["encode"] = sum(filler.busy_seconds for filler in fillers.values())

    for job in in_order(
        lambda video: _prepare(video, trained, keys, cache, force), videos, n_threads=n_threads
    ):
        passing.append(job)
        for stream in trained:
            filler = fillers[stream.name]
            settle(
                stream,
                filler.add(job, job.todo[stream.name][1])
                if stream.name in job.todo
                else filler.finished(),
            )
        yield from finished()
    for stream in trained:
        settle(stream, fillers[stream.name].finish())
    yield from finished()


def _prepare(
    video: Video,
    trained: Sequence[TrainedStream],
    keys: Mapping[str, Mapping[str, object]],
    cache: Cache,
    force: bool,
) -> _Job:
    """Load what is cached of a video, and cut the segments of the other streams."""
    job = _Job(video)
    for stream in trained:
        key = cache.key(content_id=video.content_id, flow=video.flow_source(), **keys[stream.name])
        entry = None if force else cache.get("segments", key)
        if entry is not None:
            job.done[stream.name] = SegmentEmbeddings.from_entry(entry)
            continue
        try:
            footage = stream.stream.footage(video)
            job.todo[stream.name] = (
                key,
                stream.stream.cut(footage),
                video.reasons(footage.reasons),
            )
        except Absent as absent:
            job.done[stream.name] = _nothing(absent.reason, video.reasons())
            cache.put("segments", key, job.done[stream.name].to_entry())
        except Rejected as rejected:
            job.rejected = rejected
            job.todo.clear()
            break
    video.forget()
    return job


@dataclass
class _Job:
    """Video in progress: finished streams, and segments that are still to be encoded."""

    video: Video
    done: dict[str, SegmentEmbeddings]
    todo: dict[str, tuple[str, Segments, tuple[str, ...]]]
    rejected: Rejected | None = None

    def __init__(self, video: Video) -> None:
        self.video, self.done, self.todo = video, {}, {}


def _finish(
    job: _Job, trained: Sequence[TrainedStream], device: torch.device, stages: Stages
) -> VideoResult:
    """Aggregate one video at a time: its embedding does not depend on others."""
    embeddings, scores = {}, {}
    for stream in trained:
        segments = job.done.get(stream.name)
        if job.rejected is None and segments is not None and not segments.absent:
            sequence, length = pad([segments.embedding])
            with torch.inference_mode(), stages.spent("aggregate"):
                reading = stream.model.read(sequence.to(device), length)
                embeddings[stream.name] = reading.embedding[0].float().cpu().numpy()
                scores[stream.name] = Scores.of(reading)
    absent = {name: segments.absent for name, segments in job.done.items() if segments.absent}
    reasons = {reason for segments in job.done.values() for reason in segments.reasons} | set(
        absent.values()
    )
    if job.rejected is not None:
        return VideoResult(job.video, {}, {}, {}, (), str(job.rejected), job.rejected.reason)
    if not embeddings and trained:
        why = ", ".join(f"{name}: {reason}" for name, reason in sorted(absent.items()))
        sentence = f"{job.video.video_id} can be used by none of the requested streams ({why})"
        return VideoResult(
            job.video, {}, job.done, absent, (), sentence, sorted(absent.values())[0]
        )
    return VideoResult(
        job.video, embeddings, job.done, absent, tuple(sorted(reasons)), scores=scores
    )


def _nothing(reason: str, reasons: tuple[str, ...]) -> SegmentEmbeddings:
    none = np.zeros(0)
    return SegmentEmbeddings(np.zeros((0, 0), np.float32), none, none, reason, reasons)


def make_fillers(trained: Sequence[TrainedStream], backend: Backend) -> dict[str, BatchFiller[Any]]:
    """Return {stream: filler of its encoder}; the models are moved to the backend's device."""
    fillers: dict[str, BatchFiller[Any]] = {}
    for stream in trained:
        stream.model.to(backend.device).eval()
        fillers[stream.name] = BatchFiller(
            stream.model.encoder,
            stream.config.encode_batch_size,
            backend,
            precision=stream.precision,
        )
    return fillers


def key_parts(stream: TrainedStream, backend: Backend) -> dict[str, object]:
    """Return everything but the video that determines the bits of a segment embedding."""
    return {
        "segments": stream.segment_identity(),
        "batch_size": backend.batch_size(stream.config.encode_batch_size),
        **backend.identity(),
        "versions": versions(),
    }
