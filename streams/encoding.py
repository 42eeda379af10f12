"""Segments through an encoder in batches of one fixed size, so that no row depends on how many others there are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float

from streams.segments import Segments
from streams.stream import Encoder

Key = TypeVar("Key")


def encode(encoder: Encoder, segments: Segments, *, batch_size: int, device: torch.device) -> Float[np.ndarray, "S D"]:
    """Segment embeddings of one video, float32."""
    filler: BatchFiller[None] = BatchFiller(encoder, batch_size, device)
    [(_, embedding)] = [*filler.add(None, segments), *filler.finish()]
    return embedding


class BatchFiller(Generic[Key]):
    """Collects segments of many videos until a batch is full, runs it, and hands the rows back to their videos.

    Args:
        encoder: put on `device` and into eval mode.
        batch_size: every forward pass has exactly this many rows; only the last one is padded.
        device: where to run.
    """

    def __init__(self, encoder: Encoder, batch_size: int, device: torch.device) -> None:
        self._encoder = encoder.to(device).eval()  # type: ignore[attr-defined]
        self._batch_size = batch_size
        self._device = device
        self._waiting: list[np.ndarray] = []  # pieces of segments, together less than a batch
        self._n_waiting = 0
        self._open: list[tuple[Key, int, list[np.ndarray]]] = []  # videos with rows still to come, in order

    def add(self, key: Key, segments: Segments) -> Iterator[tuple[Key, np.ndarray]]:
        """Takes a video in; yields (key, (S, D) float32) of each video, in order, whose last row is done by that."""
        self._open.append((key, len(segments), []))
        first = 0
        while first < len(segments):
            last = min(len(segments), first + self._batch_size - self._n_waiting)
            self._waiting.append(segments.read(first, last))
            self._n_waiting += last - first
            first = last
            if self._n_waiting == self._batch_size:
                yield from self._run()

    def finish(self) -> Iterator[tuple[Key, np.ndarray]]:
        """Runs what is left."""
        if self._n_waiting:
            yield from self._run()

    def _run(self) -> Iterator[tuple[Key, np.ndarray]]:
        rows = np.concatenate(self._waiting)
        if len(rows) < self._batch_size:
            rows = np.concatenate([rows, np.repeat(rows[-1:], self._batch_size - len(rows), axis=0)])
        with torch.inference_mode():
            done = self._encoder.embed(torch.from_numpy(rows).to(self._device)).float().cpu().numpy()
        done = done[: self._n_waiting]
        self._waiting, self._n_waiting = [], 0
        while self._open and len(done):
            key, n, pieces = self._open[0]
            missing = n - sum(map(len, pieces))
            pieces.append(done[:missing])
            done = done[missing:]
            if sum(map(len, pieces)) < n:
                return
            self._open.pop(0)
            yield key, np.concatenate(pieces)
