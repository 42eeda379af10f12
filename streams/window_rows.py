"""Rows of windows: segments and embeddings of one region of one window, and their cache entries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from tristream.store.cache import Cache
from tristream.streams.encoding import BatchFiller
from tristream.streams.model import TrainedStream, pad
from tristream.streams.segments import Segments

BLOCK = 64  # rows in one cache entry


@dataclass(eq=False)
class Row:
    """Region of one window in progress: segments to encode, then their embeddings.

    Attributes:
        start_seconds, stop_seconds: of the window.
        region: number in `WindowPlan.cells`.
        peak_motion: largest displacement, px at the sampler's size; NaN for fewer than two frames.
        segments: {stream: input of its encoder}, until it has been encoded.
        embedding: {stream: segment embeddings (S, D)}.
        absent: {stream: stable reason} of the streams it does not have.
        from_cache: read from the cache.
    """

    start_seconds: float
    stop_seconds: float
    region: int
    peak_motion: float = np.nan
    segments: dict[str, Segments] = field(default_factory=dict)
    embedding: dict[str, np.ndarray] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    from_cache: bool = False

    def is_complete(self, trained: Sequence[TrainedStream]) -> bool:
        """Return True if every stream has encoded it or is absent."""
        return all(
            stream.name in self.embedding or stream.name in self.absent for stream in trained
        )


def embed_now(rows: Sequence[Row], fillers: Mapping[str, BatchFiller[Any]]) -> None:
    """Encode rows at once, for a live source; the results are those of full batches.

    Args:
        rows: with segments to be encoded.
        fillers: {stream: filler of its encoder} (`streams.extraction.make_fillers`), kept between calls.
    """
    for row in rows:
        for name, filler in fillers.items():
            if (segments := row.segments.pop(name, None)) is not None:
                [(_, row.embedding[name])] = [*filler.add(row, segments), *filler.finish()]


def aggregate(
    rows: Sequence[Row], stream: TrainedStream, device: torch.device
) -> Float32[np.ndarray, "n E"]:
    """Return the embedding of every row, aggregated one at a time; NaN where the stream is absent."""
    embeddings = np.full((len(rows), stream.model.embedding_dim), np.nan, np.float32)
    for n, row in enumerate(rows):
        if stream.name in row.embedding:
            sequence, length = pad([row.embedding[stream.name]])
            with torch.inference_mode():
                embeddings[n] = (
                    stream.model.aggregate(sequence.to(device), length)[0].float().cpu().numpy()
                )
    return embeddings


def store_block(
    cache: Cache,
    keys: Mapping[str, Mapping[str, Any]],
    content_id: str,
    number: int,
    rows: Sequence[Row],
    *,
    is_last: bool,
    reasons: Sequence[str],
) -> None:
    """Write one entry for each stream: the segment embeddings of these rows."""
    for name, parts in keys.items():
        pieces = [row.embedding.get(name, np.zeros((0, 0), np.float32)) for row in rows]
        width = max((piece.shape[1] for piece in pieces), default=0)
        pieces = [
            np.zeros((0, width), np.float32),
            *(piece.reshape(len(piece), width) for piece in pieces),
        ]
        notes = {"absent": [row.absent.get(name, "") for row in rows], "reasons": list(reasons)}
        windows = [
            (row.start_seconds, row.stop_seconds, row.peak_motion, row.region) for row in rows
        ]
        entry = {
            "embedding": np.concatenate(pieces),
            "n_segments": np.array([len(piece) for piece in pieces[1:]], np.int64),
            "windows": np.array(windows, np.float64).reshape(-1, 4),
            "is_last": np.array([is_last]),
            "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8),
        }
        cache.put("segments", cache.key(content_id=content_id, block=number, **parts), entry)


def load_block(
    cache: Cache, keys: Mapping[str, Mapping[str, Any]], content_id: str, number: int
) -> tuple[list[Row], bool, tuple[str, ...]] | None:
    """Return rows of `store_block`, True if they are the last, and reasons; None without all entries."""
    rows: list[Row] = []
    is_last, reasons = False, ()
    for name, parts in keys.items():
        entry = cache.get("segments", cache.key(content_id=content_id, block=number, **parts))
        if entry is None:
            return None
        notes = json.loads(entry["notes"].tobytes())
        is_last, reasons = bool(entry["is_last"][0]), tuple(notes["reasons"])
        pieces = np.split(entry["embedding"], np.cumsum(entry["n_segments"]))
        for n, (start, stop, peak, region) in enumerate(entry["windows"].tolist()):
            if n == len(rows):
                rows.append(Row(start, stop, int(region), peak, from_cache=True))
            if notes["absent"][n]:
                rows[n].absent[name] = notes["absent"][n]
            else:
                rows[n].embedding[name] = pieces[n]
    return rows, is_last, reasons
