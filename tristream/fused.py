"""Embedding tables of a run in the spaces of its current streams, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.errors import UsageError
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.store.embeddings import EmbeddingTable
    from tristream.streams.model import TrainedStream

STREAM_CONFIG = "config.json"  # beside a stream's weights


@dataclass(frozen=True)
class Head:
    """Decision of one stream's own softmax layer.

    Attributes:
        classes: its classes.
        logits: (n_videos, n_classes), NaN where the video lacks the stream.
        segment_labels: index of the most probable class of each segment of each video; None if it reads whole videos.
    """

    classes: tuple[str, ...]
    logits: np.ndarray
    segment_labels: list[list[int]] | None = None


@dataclass(frozen=True, eq=False)
class Fused:
    """Embeddings of the streams side by side, row by row with their videos.

    Attributes:
        rows: videos.
        X: (n_videos, F) float64; the block of a missing stream is NaN.
        masks: (n_videos, n_streams), True where the video has the stream.
        columns: {stream: slice}.
        spaces: {stream: space_id}.
        heads: {stream: its own decision}.
    """

    rows: list[VideoRow]
    X: np.ndarray
    masks: np.ndarray
    columns: dict[str, slice]
    spaces: dict[str, str]
    heads: dict[str, Head] = field(default_factory=dict)

    def of(self, name: str) -> np.ndarray:
        """Return one column of videos.csv."""
        return np.array([getattr(row, name) for row in self.rows])

    def only(self, names: Sequence[str]) -> Fused:
        """Return the same videos with a subset of the streams."""
        blocks = [self.X[:, self.columns[name]] for name in names]
        columns, start = {}, 0
        for name, block in zip(names, blocks, strict=True):
            columns[name] = slice(start, start + block.shape[1])
            start += block.shape[1]
        order = [list(self.columns).index(name) for name in names]
        spaces = {name: self.spaces[name] for name in names}
        heads = {name: self.heads[name] for name in names if name in self.heads}
        X = np.concatenate(blocks, axis=1)
        return Fused(self.rows, X, self.masks[:, order], columns, spaces, heads)


def has_embeddings(workspace: Workspace) -> bool:
    """True if every trained stream has embeddings in its current space."""
    spaces = trained_spaces(workspace, None)
    return all(workspace.embeddings_dir(name, space).exists() for name, space in spaces.items())


def fused_embeddings(
    workspace: Workspace, rows: Sequence[VideoRow], wanted: Sequence[str] | None
) -> Fused:
    """Return the embeddings of the run's streams, in the order of its tables.

    Raises:
        UsageError: a stream was trained but not embedded since, or no video has embeddings.
    """
    from tristream.fusion.concatenate import fuse_tables

    streams = workspace.load_streams(wanted)
    tables = read_tables(workspace, {trained.name: trained.space_id for trained in streams})
    by_id = {row.video_id: row for row in rows}
    video_ids = [video for video in next(iter(tables.values())).video_id if video in by_id]
    if not video_ids:
        raise UsageError(
            f"no video of {workspace.manifest_path} has embeddings; "
            f"run tristream embed --run {workspace.folder}"
        )
    tables = side_by_side(tables, video_ids, workspace.folder)
    X, masks, columns = fuse_tables(tables)
    spaces = {name: table.space_id for name, table in tables.items()}
    heads = {trained.name: _head(trained, tables[trained.name]) for trained in streams}
    return Fused([by_id[video] for video in video_ids], X, masks, columns, spaces, heads)


def _head(trained: TrainedStream, table: EmbeddingTable) -> Head:
    """Return the stored scores, or those of the stored embeddings in a table that is older than scores.

    Raises:
        UsageError: the scores cannot be computed from the embedding, and the table has none.
    """
    import torch

    if table.logits is not None:
        return Head(trained.classes, table.logits.astype(np.float64), table.segment_labels)
    if trained.config.aggregator.readout != "embedding":
        raise UsageError(
            f"the embeddings of '{trained.name}' have no scores, and its softmax layer reads segments; "
            "run tristream embed again"
        )
    logits = np.full((len(table), len(trained.classes)), np.nan)
    with torch.inference_mode():
        values = trained.model.classifier(torch.from_numpy(table.embedding[table.present]))
    logits[table.present] = values.double().numpy()
    return Head(trained.classes, logits)


def stored_readout(workspace: Workspace, name: str) -> str:
    """Return the read-out of a trained stream, read without loading a network."""
    stored: Any = _stored(workspace.stream_dir(name) / STREAM_CONFIG)
    return str(stored["config"]["aggregator"].get("readout", "embedding"))


def trained_spaces(workspace: Workspace, wanted: Sequence[str] | None) -> dict[str, str]:
    """Return {stream: space_id} of the checkpoints, read without loading a network.

    Raises:
        UsageError: none is trained, or one of `wanted` is not.
    """
    return {
        name: _stored(workspace.stream_dir(name) / STREAM_CONFIG)["space_id"]
        for name in workspace.check_trained(wanted)
    }


def read_tables(workspace: Workspace, spaces: Mapping[str, str]) -> dict[str, EmbeddingTable]:
    """Return the tables of whole videos in these spaces.

    Raises:
        UsageError: a stream was trained but not embedded since.
    """
    from tristream.store import embeddings

    tables = {}
    for name, space in spaces.items():
        folder = workspace.embeddings_dir(name, space)
        if not folder.exists():
            other = sorted(path.name for path in folder.parent.glob("*"))
            stale = (
                f" (there are embeddings of {other[0]}, of an earlier training)" if other else ""
            )
            raise UsageError(
                f"'{name}' has no embeddings in its space {space}{stale}; run tristream embed --run {workspace.folder}"
            )
        tables[name] = embeddings.read(folder)
    return tables


def side_by_side(
    tables: Mapping[str, EmbeddingTable], video_ids: Sequence[str], run: Path
) -> dict[str, EmbeddingTable]:
    """Return the rows of these videos, in this order, of every table.

    Raises:
        UsageError: a table lacks some of them.
    """
    aligned = {}
    for name, table in tables.items():
        place = {video: index for index, video in enumerate(table.video_id)}
        lost = [video for video in video_ids if video not in place]
        if lost:
            raise UsageError(
                f"embeddings disagree on videos: {len(lost)} of {len(video_ids)} are not in '{name}' (first: "
                f"{lost[0]}); embed every stream on the same videos.csv: tristream embed --run {run}"
            )
        aligned[name] = table.take([place[video] for video in video_ids])
    return aligned


def _stored(path: Path) -> dict[str, str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(
            f"{path} is damaged ({error}); train the stream again with --force"
        ) from error


def newest_windows(workspace: Workspace, names: Sequence[str]) -> dict[str, EmbeddingTable]:
    """Return the tables of windows that were written last, one per stream.

    Raises:
        UsageError: a stream has none.
    """
    from tristream.store import embeddings

    tables = {}
    for name in names:
        files = (workspace.folder / "windows" / name).glob("*/part-*.parquet")
        parts = sorted(files, key=lambda part: part.stat().st_mtime)
        if not parts:
            raise UsageError(
                f"{workspace.folder} has no windows of '{name}'; make them: tristream fuse --window 2 --hop 1 "
                f"--run {workspace.folder}"
            )
        tables[name] = embeddings.read(parts[-1].parent)
    return tables
