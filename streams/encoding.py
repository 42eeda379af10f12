"""Segments through an encoder in batches of one fixed size, so that no row depends on how many others there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float

from streams.backends import Backend, Embedding, Network, Precision
from streams.segments import Segments
from streams.stream import Encoder

Key = TypeVar("Key")


def encode(encoder: Encoder, segments: Segments, *, batch_size: int, backend: Backend) -> Float[np.ndarray, "S D"]:
    """Segment embeddings of one video, float32."""
    filler: BatchFiller[None] = BatchFiller(encoder, batch_size, backend)
    [(_, embedding)] = [*filler.add(None, segments), *filler.finish()]
    return embedding


class BatchFiller(Generic[Key]):
    """Collects segments of many videos until a batch is full, starts it, and hands the rows back to their videos.

    Args:
        encoder: its weights must not change any more.
        batch_size: as configured; the engine may choose a smaller one. Every batch has exactly that many rows; only the
            last one is padded.
        backend: what runs it; prepared when the first batch is there.
        precision: of its arithmetic.
    """

    def __init__(
        self, encoder: Encoder, batch_size: int, backend: Backend, *, precision: Precision = "float32"
    ) -> None:
        self._encoder = encoder
        self._precision = precision
        self._backend = backend
        self._network: Network | None = None
        self._busy_before = 0.0  # it may have worked for others
        self._batch_size = backend.batch_size(batch_size)
        self._waiting: list[np.ndarray] = []  # pieces of segments, together less than a batch
        self._n_waiting = 0
        self._in_flight: deque[tuple[Future[np.ndarray], int]] = deque()  # and how many of its rows are no padding
        self._open: deque[tuple[Key, int, list[np.ndarray]]] = deque()  # videos with rows still to come, in order

    def add(self, key: Key, segments: Segments) -> Iterator[tuple[Key, Float[np.ndarray, "S D"]]]:
        """Takes a video in; yields (key, (S, D) float32) of each video, in order, whose last row is there by now."""
        self._open.append((key, len(segments), []))
        first = 0
        while first < len(segments):
            last = min(len(segments), first + self._batch_size - self._n_waiting)
            self._waiting.append(segments.read(first, last))
            self._n_waiting += last - first
            first = last
            if self._n_waiting == self._batch_size:
                self._start()
                yield from self._finished(wait=False)

    def finish(self) -> Iterator[tuple[Key, Float[np.ndarray, "S D"]]]:
        """Runs what is left, and waits for all of it."""
        if self._n_waiting:
            self._start()
        yield from self._finished(wait=True)

    def finished(self) -> Iterator[tuple[Key, Float[np.ndarray, "S D"]]]:
        """The videos that became complete since the last look; waits for nothing."""
        yield from self._finished(wait=False)

    @property
    def busy_seconds(self) -> float:
        """What the network has computed for since this began to use it."""
        return 0.0 if self._network is None else self._network.busy_seconds - self._busy_before

    def _start(self) -> None:
        rows = np.concatenate(self._waiting)
        if len(rows) < self._batch_size:
            rows = np.concatenate([rows, np.repeat(rows[-1:], self._batch_size - len(rows), axis=0)])
        if self._network is None:
            self._network = self._backend.compile(
                Embedding(self._encoder),  # type: ignore[arg-type]
                rows,
                precision=self._precision,
            )
            self._busy_before = self._network.busy_seconds
        self._in_flight.append((self._network.submit(rows), self._n_waiting))
        self._waiting, self._n_waiting = [], 0

    def _finished(self, *, wait: bool) -> Iterator[tuple[Key, np.ndarray]]:
        """Hands out what is there, in order. How much is under way is bounded by the engine, which holds us back."""
        while self._in_flight and (wait or self._in_flight[0][0].done()):
            future, n_rows = self._in_flight.popleft()
            done = future.result()[:n_rows]
            while self._open and len(done):
                key, n, pieces = self._open[0]
                missing = n - sum(map(len, pieces))
                pieces.append(done[:missing])
                done = done[missing:]
                if sum(map(len, pieces)) < n:
                    break
                self._open.popleft()
                yield key, np.concatenate(pieces)
