"""Embeddings of videos by several streams, as arrays, tensors and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from tristream.results import SegmentLabel

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import torch

    from tristream.store.embeddings import EmbeddingTable
    from tristream.streams.extraction import VideoResult
    from tristream.streams.model import TrainedStream


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Video embeddings of several streams over the same videos in one order.

    Attributes:
        tables: {stream: table}; a video that lacks the stream has a mask and a reason.
        failures: {video_id: reason code} of rejected videos, which have no row.
        sentences: {video_id: reason in words}.
        segments: {video_id: {stream: label of each segment}}, of streams whose softmax layer reads segments.
    """

    tables: Mapping[str, EmbeddingTable]
    failures: Mapping[str, str] = field(default_factory=dict)
    sentences: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[str, Mapping[str, tuple[SegmentLabel, ...]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.video_ids)

    @property
    def streams(self) -> list[str]:
        """Names of the streams, in column order."""
        return list(self.tables)

    @property
    def video_ids(self) -> list[str]:
        """video_id of each row."""
        return list(next(iter(self.tables.values())).video_id) if self.tables else []

    @property
    def spaces(self) -> dict[str, str]:
        """{stream: space_id}."""
        return {name: table.space_id for name, table in self.tables.items()}

    @cached_property
    def masks(self) -> Bool[np.ndarray, "n_videos n_streams"]:
        """True where the video has the stream."""
        return np.stack([table.present for table in self.tables.values()], axis=1)

    def reasons(self, video_id: str) -> dict[str, str]:
        """Return {stream: reason code} of the streams that a video lacks."""
        row = self.video_ids.index(video_id)
        return {
            name: table.reason[row] for name, table in self.tables.items() if not table.present[row]
        }

    def numpy(self) -> dict[str, Float32[np.ndarray, "n_videos D"]]:
        """Return {stream: embeddings}; the row of a video that lacks the stream is NaN."""
        return {name: table.embedding for name, table in self.tables.items()}

    def torch(self) -> dict[str, torch.Tensor]:
        """Return {stream: float32 tensor (n_videos, D)}, NaN where the stream is missing."""
        import torch

        return {name: torch.from_numpy(table.embedding) for name, table in self.tables.items()}

    def arrow(self) -> dict[str, pa.Table]:
        """Return {stream: table} in the schema of the run's Parquet files."""
        return {name: table.to_arrow() for name, table in self.tables.items()}

    def pandas(self) -> pd.DataFrame:
        """Return one row per video and one column per (stream, dimension), NaN where missing."""
        import pandas as pd

        frames = {
            name: pd.DataFrame(table.embedding, index=pd.Index(self.video_ids, name="video_id"))
            for name, table in self.tables.items()
        }
        return pd.concat(frames, axis=1, names=["stream", "dimension"])


def fuse_tables(
    embeddings: Embeddings | Mapping[str, EmbeddingTable],
) -> tuple[Float64[np.ndarray, "n F"], Bool[np.ndarray, "n n_streams"], dict[str, slice]]:
    """Return the streams side by side.

    Returns:
        X: one row per video; the block of a missing stream is NaN.
        masks: True where the video has the stream.
        columns: {stream: slice of X's columns}.

    Raises:
        TristreamError: tables over different videos.
    """
    from tristream.fusion import concatenate

    tables = embeddings.tables if isinstance(embeddings, Embeddings) else embeddings
    return concatenate.fuse_tables(tables)


def tables_of(
    trained: Sequence[TrainedStream], results: Sequence[VideoResult]
) -> dict[str, EmbeddingTable]:
    """Return {stream: table} of the videos that were not rejected, all in one order."""
    from tristream.store.embeddings import EmbeddingTable
    from tristream.store.lineage import versions

    usable = [result for result in results if not result.rejected]
    tables = {}
    for stream in trained:
        present = np.array([stream.name in result.embeddings for result in usable], bool)
        values = np.full((len(usable), stream.model.embedding_dim), np.nan, np.float32)
        times = np.full((len(usable), 2), np.nan)
        for row in np.flatnonzero(present):
            values[row] = usable[row].embeddings[stream.name]
            segments = usable[row].segments[stream.name]
            times[row] = segments.start_seconds.min(), segments.stop_seconds.max()
        scores = [result.scores.get(stream.name) for result in usable]
        logits = np.full((len(usable), len(stream.classes)), np.nan, np.float32)
        for row in np.flatnonzero(present):
            if (own := scores[row]) is not None:
                logits[row] = own.logits
        of_segments = [own.segment_labels if own else None for own in scores]
        has_logits = all(scores[row] is not None for row in np.flatnonzero(present))
        reads_segments = stream.config.aggregator.readout != "embedding"
        lineage: dict[str, Any] = {**stream.lineage, "space": stream.segment_identity()}
        tables[stream.name] = EmbeddingTable(
            stream=stream.name,
            space_id=stream.space_id,
            video_id=[result.video.video_id for result in usable],
            content_id=[result.video.content_id for result in usable],
            present=present,
            reason=[result.absent.get(stream.name, "") for result in usable],
            start_seconds=times[:, 0],
            stop_seconds=times[:, 1],
            embedding=values,
            lineage={**lineage, "versions": versions()},
            logits=logits if has_logits else None,
            segment_labels=[[] if labels is None else labels.tolist() for labels in of_segments]
            if has_logits and reads_segments
            else None,
        )
    return tables


def embeddings_of(trained: Sequence[TrainedStream], results: Sequence[VideoResult]) -> Embeddings:
    """Return the results of an extraction as embeddings; rejected videos are its failures."""
    rejected = [result for result in results if result.rejected]
    return Embeddings(
        tables=tables_of(trained, results),
        failures={r.video.video_id: r.rejected_reason for r in rejected},
        sentences={r.video.video_id: str(r.rejected) for r in rejected},
        segments={
            r.video.video_id: {s.name: labels for s in trained if (labels := _segment_labels(s, r))}
            for r in results
        },
    )


def _segment_labels(stream: TrainedStream, result: VideoResult) -> tuple[SegmentLabel, ...]:
    """Return the labels that a stream gave the segments of a video; none if it reads whole videos only."""
    scores = result.scores.get(stream.name)
    if scores is None or scores.segment_labels is None or scores.segment_probabilities is None:
        return ()
    segments = result.segments[stream.name]
    columns = (
        segments.start_seconds,
        segments.stop_seconds,
        scores.segment_labels,
        scores.segment_probabilities,
    )
    return tuple(
        SegmentLabel(float(start), float(stop), stream.classes[label], float(probability))
        for start, stop, label, probability in zip(*columns, strict=True)
    )
