"""Embeddings of videos by trained streams: one decode per video, results in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tristream.forecast import Pace
from tristream.videos import contents, decode_pool, decoder, make_video
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.streams.backend import Backend
    from tristream.streams.extraction import VideoResult
    from tristream.streams.model import TrainedStream
    from tristream.streams.timings import Stages
    from tristream.streams.video import Video


def extract_rows(
    workspace: Workspace,
    rows: Sequence[VideoRow],
    trained: Sequence[TrainedStream],
    *,
    engine: Backend | None = None,
    force: bool = False,
    stages: Stages | None = None,
) -> Iterator[VideoResult]:
    """Embed each row, in order, with a progress bar.

    Args:
        workspace: of the run; its `reading.root` is the data root.
        rows: videos.
        trained: streams, all trained with the same [data] and [sampler] settings.
        engine: inference backend to use again; None: chosen by `workspace.compute`.
        force: compute even what is cached.
        stages: time per stage is added here.

    Raises:
        UsageError: streams that read videos differently, a device that does not exist.
        Missing: weights of a flow estimator that no place has.
    """
    from tristream.store.claims import Claims, in_turns
    from tristream.streams import flow_needs, model
    from tristream.streams.extraction import extract
    from tristream.streams.timings import Stages

    reading, progress = workspace.reading, workspace.progress
    stages = stages or Stages()
    pace, cache = Pace(len(rows), stages), workspace.cache()
    model.check_same_reading(trained)
    warn_of_estimated_flow(workspace, trained)
    content = contents(rows, reading, progress=progress, n_threads=workspace.compute.workers + 1)
    engine = engine or kept_engine(workspace)
    flow = model.shared_estimators(trained)
    flow.backend = engine
    bound = [stream.stream for stream in trained]
    flow.check(flow_needs.needed(bound, precomputed_flow=reading.flow_from is not None))
    title = f"embedding ({', '.join(stream.name for stream in trained)})"
    with decode_pool(workspace) as pool, progress.bar(title, len(rows)) as move:
        pool.check_decoder()
        decode = decoder(pool, reading)

        def work(part: Iterable[VideoRow]) -> Iterator[VideoResult]:
            videos: Iterator[Video] = (
                make_video(
                    row,
                    content[row.video_id],
                    trained,
                    decode=decode,
                    cache=cache,
                    flow_from=reading.flow_from,
                    estimators=flow,
                    stages=stages,
                )
                for row in part
            )
            for result in extract(
                videos,
                trained,
                cache=cache,
                backend=engine,
                n_threads=workspace.compute.workers + 1,
                force=force,
                stages=stages,
            ):
                move(note=pace.note())
                if result.rejected:
                    progress.warn(f"rejected: {result.rejected}")
                yield result

        with Claims(workspace.cache_dir) as claims:
            yield from in_turns(rows, work, claims, lambda row: content[row.video_id])


def kept_engine(workspace: Workspace) -> Backend:
    """Return an inference backend that prepares each network once."""
    from tristream.streams.backend import Kept

    return Kept(workspace.compute.engine(workspace.cache()))


def warn_of_estimated_flow(workspace: Workspace, trained: Sequence[TrainedStream]) -> None:
    """Warn where flow is estimated for a stream that was trained on precomputed flow."""
    for stream in trained:
        learned: str | Path | None = stream.lineage.get("flow_from")
        if learned and workspace.reading.flow_from is None:
            workspace.progress.warn(
                f"'{stream.name}' was trained on precomputed flow ({learned}); without "
                "--flow-from it is estimated now"
            )
