"""Encoding of segments in batches of one fixed size: no row depends on the number of others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float

from tristream.media.machine import n_cores
from tristream.streams.backend import Backend, Embedding, Network, Precision
from tristream.streams.segments import Segments
from tristream.streams.stream import Encoder

# Threads that make batches; each holds one. One thread makes 600 flow stacks a second; eight cores embed 200 of them
# (motion CNN), a GPU 2,000.
MAX_MAKERS, MAX_MAKERS_FOR_A_GPU = 2, 4

Key = TypeVar("Key")
Part = tuple[Segments, int, int]  # the rows first … last − 1 are in a batch


def encode(
    encoder: Encoder, segments: Segments, *, batch_size: int, backend: Backend
) -> Float[np.ndarray, "S D"]:
    """Return the segment embeddings of one video, float32."""
    filler: BatchFiller[None] = BatchFiller(encoder, batch_size, backend)
    [(_, embedding)] = [*filler.add(None, segments), *filler.finish()]
    return embedding


class BatchFiller(Generic[Key]):
    """Fill batches with segments of many videos, encode them and return the rows video by video.

    Threads of its own make the batches; the caller is blocked while enough are in progress.

    Args:
        encoder: its weights must not change afterwards.
        batch_size: as configured; the engine may choose a smaller one. Every batch has exactly that many rows; only the
            last one is padded.
        backend: engine; it compiles the encoder with the first batch.
        precision: of its arithmetic.
    """

    def __init__(
        self,
        encoder: Encoder,
        batch_size: int,
        backend: Backend,
        *,
        precision: Precision = "float32",
    ) -> None:
        self._encoder = encoder
        self._precision = precision
        self._backend = backend
        self._network: Network | None = None
        self._busy_before = 0.0  # by earlier users of a kept network
        self._batch_size = backend.batch_size(batch_size)
        self._waiting: list[Part] = []  # together less than a batch
        self._n_waiting = 0
        self._n_makers = min(
            MAX_MAKERS if backend.device.type == "cpu" else MAX_MAKERS_FOR_A_GPU, n_cores()
        )
        self._makers = ThreadPoolExecutor(self._n_makers, thread_name_prefix="segments")
        # Future of a batch's submission (its result is the future of the rows), number of rows without padding.
        self._in_flight: deque[tuple[Future[Future[np.ndarray]], int]] = deque()
        self._open: deque[tuple[Key, int, list[np.ndarray]]] = (
            deque()
        )  # videos with missing rows, in order

    def add(self, key: Key, segments: Segments) -> Iterator[tuple[Key, Float[np.ndarray, "S D"]]]:
        """Add a video; yield (key, (S, D) float32) of each video that is complete, in order."""
        self._open.append((key, len(segments), []))
        first = 0
        while first < len(segments):
            last = min(len(segments), first + self._batch_size - self._n_waiting)
            self._waiting.append((segments, first, last))
            self._n_waiting += last - first
            first = last
            if self._n_waiting == self._batch_size:
                self._start()
                yield from self._finished(wait=False)

    def finish(self) -> Iterator[tuple[Key, Float[np.ndarray, "S D"]]]:
        """Encode the rest, padded, and wait for all results."""
        if self._n_waiting:
            self._start()
        yield from self._finished(wait=True)

    def finished(self) -> Iterator[tuple[Key, Float[np.ndarray, "S D"]]]:
        """Yield the videos that have become complete, without waiting."""
        yield from self._finished(wait=False)

    @property
    def busy_seconds(self) -> float:
        """Seconds that the network has computed for this filler."""
        return 0.0 if self._network is None else self._network.busy_seconds - self._busy_before

    def _start(self) -> None:
        parts, n_rows = self._waiting, self._n_waiting
        self._waiting, self._n_waiting = [], 0
        if self._network is None:
            rows = _make_batch(parts, self._batch_size)
            network = self._network = self._backend.compile(
                Embedding(self._encoder),  # type: ignore[arg-type]
                rows,
                precision=self._precision,
            )
            self._busy_before = network.busy_seconds
            started = self._makers.submit(network.submit, rows)
        else:
            started = self._makers.submit(_submit, self._network, parts, self._batch_size)
        self._in_flight.append((started, n_rows))
        if len(self._in_flight) > self._n_makers:
            batch, _ = self._in_flight[-1 - self._n_makers]
            batch.result()  # wait until the network has accepted it

    def _finished(self, *, wait: bool) -> Iterator[tuple[Key, np.ndarray]]:
        """Yield the videos whose results are available, in order."""
        while self._in_flight and (wait or _is_done(self._in_flight[0][0])):
            future, n_rows = self._in_flight.popleft()
            done = future.result().result()[:n_rows]
            while self._open and len(done):
                key, n, pieces = self._open[0]
                missing = n - sum(map(len, pieces))
                pieces.append(done[:missing])
                done = done[missing:]
                if sum(map(len, pieces)) < n:
                    break
                self._open.popleft()
                yield key, np.concatenate(pieces)


def _submit(network: Network, parts: Sequence[Part], batch_size: int) -> Future[np.ndarray]:
    return network.submit(_make_batch(parts, batch_size))


def _make_batch(parts: Sequence[Part], batch_size: int) -> np.ndarray:
    """Return a batch: all parts, and the last row repeated until it is full."""
    read = [segments.read(first, last) for segments, first, last in parts]
    rows = read[0] if len(read) == 1 else np.concatenate(read)
    if len(rows) < batch_size:
        rows = np.concatenate([rows, np.repeat(rows[-1:], batch_size - len(rows), axis=0)])
    return rows


def _is_done(future: Future[Future[np.ndarray]]) -> bool:
    return future.done() and (future.exception() is not None or future.result().done())
