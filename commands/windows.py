"""What fuse and detect share about windows: files read in pieces, windows embedded, side by side in one matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream import streams
from tristream.commands import screen
from tristream.commands.workspace import Workspace, choose_device, contents, decode_pool
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.media.decode import DecodedVideo
    from tristream.media.sandbox.pool import DecodePool
    from tristream.streams.model import TrainedStream
    from tristream.streams.window_embeddings import WindowRows
    from tristream.streams.windows import WindowPlan


@dataclass
class FileSource:
    """A file that a process of the pool reads in order."""

    video_id: str
    path: Path
    content_id: str
    pool: DecodePool
    root: Path | None
    follow_links: bool
    pictures: bool
    sound: bool
    max_side: int

    def pieces(self) -> Iterator[DecodedVideo]:
        """Its pieces, from its beginning."""
        inside = (
            self.root if self.root is not None and self.path.is_relative_to(self.root) else None
        )
        return self.pool.stream(
            self.path,
            pictures=self.pictures,
            sound=self.sound,
            max_side=self.max_side,
            root=inside,
            follow_links=self.follow_links,
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
    """{stream: space_id of its windows}: another length, hop or grid of regions is another space."""
    from tristream.store.lineage import space_id

    return {
        s.name: space_id({"space": s.space_id, **plan.identity()}) if plan.seconds else s.space_id
        for s in trained
    }


def embed_windows(
    rows: Sequence[VideoRow],
    trained: Sequence[TrainedStream],
    plan: WindowPlan,
    workspace: Workspace,
    root: Path | None,
    *,
    device: str,
    workers: int,
    force: bool = False,
) -> list[WindowRows]:
    """Embeddings of the windows of each row, in order, with a progress bar."""
    from tristream.streams import compute
    from tristream.streams.window_embeddings import extract_windows

    wanted = [streams.stream_class(stream.name) for stream in trained]
    content = contents(rows, root or Path(), follow_links=workspace.follow_links)
    found = []
    title = f"windows of {plan.seconds:g} s"
    with decode_pool(workers, workspace.limits) as pool, screen.progress(title, len(rows)) as move:
        sources = (
            FileSource(row.video_id, row.path, content[row.video_id], pool, root, workspace.follow_links,
                       pictures=any(stream.needs_pictures for stream in wanted),
                       sound=any(stream.needs_sound for stream in wanted), max_side=trained[0].data.max_side_px)
            for row in rows
        )  # fmt: skip
        cache = workspace.cache()
        engine = compute.choose(
            "auto", device=choose_device(device, deterministic=False), cache=cache
        )
        for result in extract_windows(
            sources, trained, plan, cache=cache, backend=engine, n_threads=workers, force=force
        ):
            move()
            if result.rejected:
                screen.warn(f"rejected: {result.rejected}")
            found.append(result)
    return found


def side_by_side(results: Sequence[WindowRows], trained: Sequence[TrainedStream]) -> WindowSet:
    """All rows that have any stream, in one matrix."""
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
    kept = ~np.isnan(X).all(axis=1)

    def all_rows(values: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros(0, values[0].dtype if values else float), *values])[kept]

    return WindowSet(
        results=list(results),
        X=X[kept],
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
    """RUN/windows/<stream>/<space_id>/part-*.parquet; a region is a fragment of the video_id."""
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


def plan_of(window: float, hop: float | None, regions: str | None) -> WindowPlan:
    """The plan of --window, --hop and --regions.

    Raises:
        UsageError: regions that are not ROWSxCOLUMNS, or without windows.
        TristreamError: as `WindowPlan`.
    """
    from tristream.streams.windows import WindowPlan

    if not window:
        if hop or regions:
            raise UsageError(
                f"--{'hop' if hop else 'regions'} needs windows; give --window SECONDS too"
            )
        return WindowPlan()
    grid = (1, 1)
    if regions is not None:
        rows, _, columns = regions.partition("x")
        if not (rows.isdecimal() and columns.isdecimal()):
            raise UsageError(f"--regions {regions} is not ROWSxCOLUMNS, e.g. 4x6")
        grid = int(rows), int(columns)
    return WindowPlan(window, hop or window / 2, grid)


def plan_from(stored: dict[str, Any] | None) -> WindowPlan:
    """The plan that a detector was fitted with.

    Raises:
        UsageError: it was cut in another way than this program cuts.
    """
    from tristream.streams.windows import WindowPlan

    if stored is None:
        return WindowPlan()
    plan = WindowPlan(stored["window_seconds"], stored["hop_seconds"], tuple(stored["regions"]))
    if plan.identity() != stored:
        raise UsageError(
            f"the detector was fitted on windows {stored}, which this version of tristream cuts as {plan.identity()}; "
            "run tristream fuse again"
        )
    return plan
