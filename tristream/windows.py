"""Windows of videos: files read in pieces, windows embedded, side by side in one matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.errors import UsageError
from tristream.extract import warn_of_estimated_flow
from tristream.videos import contents, decode_pool
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.media.decode import DecodedVideo
    from tristream.media.sandbox.pool import DecodePool
    from tristream.streams.model import TrainedStream
    from tristream.streams.reading import Reading
    from tristream.streams.window_cutter import DecodeOptions
    from tristream.streams.window_embeddings import WindowRows
    from tristream.streams.windows import WindowPlan


@dataclass
class FileSource:
    """File that a process of the pool reads in order."""

    video_id: str
    path: Path
    content_id: str
    pool: DecodePool
    reading: Reading
    decode_options: DecodeOptions

    def pieces(self) -> Iterator[DecodedVideo]:
        """Yield its pieces from the beginning."""
        return self.pool.stream(
            self.path,
            **self.decode_options,
            root=self.reading.inside(self.path),
            follow_links=self.reading.follow_links,
        )


@dataclass(frozen=True, eq=False)
class WindowSet:
    """Rows of windows side by side.

    Attributes:
        results: one for each video, rejected ones included.
        X: (rows, F), a missing block NaN; a row that has no stream at all is left out.
        columns: {stream: slice}.
        video_id: of each row.
        start_seconds, stop_seconds, region, peak_motion: of each row.
    """

    results: list[WindowRows]
    X: np.ndarray
    columns: dict[str, slice]
    video_id: np.ndarray
    start_seconds: np.ndarray
    stop_seconds: np.ndarray
    region: np.ndarray
    peak_motion: np.ndarray

    @property
    def rejected(self) -> list[WindowRows]:
        return [result for result in self.results if result.rejected]


def window_spaces(trained: Sequence[TrainedStream], plan: WindowPlan) -> dict[str, str]:
    """Return {stream: space_id of its windows}; length, hop and regions are part of the space."""
    from tristream.store.lineage import space_id

    return {
        s.name: space_id({"space": s.space_id, **plan.identity()}) if plan.seconds else s.space_id
        for s in trained
    }


def embed_windows(
    workspace: Workspace,
    rows: Sequence[VideoRow],
    trained: Sequence[TrainedStream],
    plan: WindowPlan,
    *,
    force: bool = False,
) -> list[WindowRows]:
    """Embed the windows of each row, in order, with a progress bar.

    Args:
        workspace: of the run; its `reading.root` is the data root.
        rows: videos.
        trained: streams, all trained with the same [data] and [sampler] settings.
        plan: length, hop and regions of the windows.
        force: compute even what is cached.

    Raises:
        UsageError: streams that read videos differently.
    """
    from tristream.streams.window_cutter import WindowCutter
    from tristream.streams.window_embeddings import extract_windows

    cache = workspace.cache()
    cutter = WindowCutter.for_streams(
        trained,
        plan,
        backend=workspace.compute.engine(cache),
        flow_from=workspace.reading.flow_from,
    )
    warn_of_estimated_flow(workspace, trained)
    content = contents(rows, workspace.reading)
    results = []
    title = f"windows of {plan.seconds:g} s"
    with decode_pool(workspace) as pool, workspace.progress.bar(title, len(rows)) as move:
        sources = (
            FileSource(
                row.video_id,
                row.path,
                content[row.video_id],
                pool,
                workspace.reading,
                cutter.decode_options,
            )
            for row in rows
        )
        for result in extract_windows(
            sources, cutter, cache=cache, n_threads=workspace.compute.workers, force=force
        ):
            move()
            if result.rejected:
                workspace.progress.warn(f"rejected: {result.rejected}")
            results.append(result)
    return results


def side_by_side(results: Sequence[WindowRows], trained: Sequence[TrainedStream]) -> WindowSet:
    """Return all rows that have any stream, in one matrix."""
    columns, start = {}, 0
    for stream in trained:
        columns[stream.name] = slice(start, start + stream.model.embedding_dim)
        start = columns[stream.name].stop
    usable = [result for result in results if not result.rejected]
    blocks = [
        np.concatenate([r.embeddings[name] for name in columns], axis=1).astype(np.float64)
        for r in usable
    ]
    X = np.concatenate([np.zeros((0, start)), *blocks])
    usable_rows = ~np.isnan(X).all(axis=1)

    def all_rows(values: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros(0, values[0].dtype if values else float), *values])[
            usable_rows
        ]

    return WindowSet(
        results=list(results),
        X=X[usable_rows],
        columns=columns,
        video_id=all_rows([np.full(len(r.region), r.source.video_id, object) for r in usable]),
        start_seconds=all_rows([r.start_seconds for r in usable]),
        stop_seconds=all_rows([r.stop_seconds for r in usable]),
        region=all_rows([r.region for r in usable]),
        peak_motion=all_rows([r.peak_motion for r in usable]),
    )


def write_windows(
    workspace: Workspace,
    results: Sequence[WindowRows],
    trained: Sequence[TrainedStream],
    plan: WindowPlan,
) -> None:
    """Write RUN/windows/<stream>/<space_id>/part-*.parquet; a region is a fragment of the video_id."""
    from tristream.store import embeddings
    from tristream.store.embeddings import EmbeddingTable
    from tristream.store.lineage import versions

    names = [cell.name for cell in plan.cells()]
    usable = [result for result in results if not result.rejected]
    ids = [r.source.video_id + names[region] for r in usable for region in r.region]
    content = [r.source.content_id for r in usable for _ in r.region]
    for stream in trained:
        space = window_spaces([stream], plan)[stream.name]
        reason = [why for r in usable for why in r.absent[stream.name]]
        present = np.array([not why for why in reason], bool)
        nothing = np.zeros((0, stream.model.embedding_dim), np.float32)
        table = EmbeddingTable(
            stream=stream.name,
            space_id=space,
            video_id=ids,
            content_id=content,
            present=present,
            reason=reason,
            start_seconds=np.concatenate([np.zeros(0), *(r.start_seconds for r in usable)]),
            stop_seconds=np.concatenate([np.zeros(0), *(r.stop_seconds for r in usable)]),
            embedding=np.concatenate([nothing, *(r.embeddings[stream.name] for r in usable)]),
            lineage={**stream.lineage, "space": stream.segment_identity(), "windows": plan.identity(),
                     "versions": versions()},
        )  # fmt: skip
        embeddings.write(table, workspace.windows_dir(stream.name, space), replace=True)


def window_plan(
    seconds: float, hop_seconds: float | None = None, regions: tuple[int, int] | None = None
) -> WindowPlan:
    """Return the plan of windows; 0 seconds: whole videos.

    Args:
        seconds: length of a window.
        hop_seconds: from one window to the next; None: half a window.
        regions: rows and columns that each frame is cut into.

    Raises:
        UsageError: a hop or regions without windows.
        TristreamError: as `WindowPlan`.
    """
    from tristream.streams.windows import WindowPlan

    if not seconds:
        if hop_seconds or regions:
            option = "--hop" if hop_seconds else "--regions"
            raise UsageError(f"{option} needs windows; give --window SECONDS too")
        return WindowPlan()
    return WindowPlan(seconds, hop_seconds or seconds / 2, regions or (1, 1))


def stored_plan(stored: dict[str, Any] | None) -> WindowPlan:
    """Return the plan that a detector was fitted with.

    Raises:
        UsageError: this version cuts such windows differently.
    """
    from tristream.streams.windows import WindowPlan

    if stored is None:
        return WindowPlan()
    plan = WindowPlan(stored["window_seconds"], stored["hop_seconds"], tuple(stored["regions"]))
    if plan.identity() != stored:
        raise UsageError(
            f"the detector was fitted on windows {stored}, which this version of tristream cuts "
            f"as {plan.identity()}; run tristream fuse again"
        )
    return plan
