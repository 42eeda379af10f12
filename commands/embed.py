"""tristream embed: every video → one embedding per trained stream, in Parquet."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tristream.commands import options, screen, settings
from tristream.commands.forecast import forecast
from tristream.commands.pace import Pace
from tristream.commands.precision import in_precision
from tristream.commands.retry import Earlier
from tristream.commands.workspace import (
    Workspace,
    choose_device,
    chosen_streams,
    contents,
    decode_pool,
    decoder,
    given_rows,
    make_video,
    say_absent,
    say_links,
    write_json,
    write_status,
)
from tristream.errors import UsageError
from tristream.media.reasons import Rejected

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.store.embeddings import EmbeddingTable
    from tristream.streams.backend import Backend
    from tristream.streams.extraction import VideoResult
    from tristream.streams.model import TrainedStream
    from tristream.streams.timings import Stages
    from tristream.streams.video import Video


@screen.command
def run(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="More videos, beside those of videos.csv.")
    ] = None,
    data: options.Data = None,
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    stream_list: options.Streams = None,
    flow_from: options.FlowFrom = None,
    no_flow_cache: options.NoFlowCache = False,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    follow_links: options.FollowLinks = False,
    retry: Annotated[
        str | None,
        typer.Option(
            "--retry", metavar="failed", help="Only the videos that were rejected the last time."
        ),
    ] = None,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    backend: options.Backend = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="float32 or bf16, of this run from now on; bf16 is measured and said first.",
        ),
    ] = None,
    workers: options.Workers = options.WORKERS,
    deterministic: options.Deterministic = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only say what it will take: time, disk and memory, from a few seconds.",
        ),
    ] = False,
    as_json: options.Json = False,
    force: options.Force = False,
) -> int:
    """Turn every video of RUN/videos.csv, and any given, into one embedding per trained stream.

    Each video is decoded once for all streams; what was computed before comes from the cache. A video without a stream
    (no sound, one picture) gets a row that says so, not zeros. A broken file is named and left out; the rest goes on.
    """
    if retry not in (None, "failed"):
        raise UsageError(f"--retry {retry} is unknown; it can be: failed")
    limits = settings.limits(config, assignments or ())
    workspace = Workspace(
        run,
        cache,
        keeps_flow=not no_flow_cache,
        weights_dir=weights_dir,
        limits=limits,
        follow_links=follow_links,
    )
    workspace.check_writable()
    manifest = workspace.manifest(data)
    say_links(manifest.root, follow_links)
    trained = workspace.load_streams(chosen_streams(stream_list))
    rows = [*manifest.rows, *given_rows(paths or [], manifest.root)]
    rows = list({row.video_id: row for row in rows}.values())
    known = Earlier.read(workspace, rows, trained) if retry else None
    rows = rows if known is None else known.failed
    from tristream.streams import compute
    from tristream.streams.backend import Kept
    from tristream.streams.timings import Stages

    chosen_device = choose_device(device, deterministic=deterministic)
    embed = functools.partial(
        results_of, root=manifest.root, device=device, workers=workers, force=force, flow_from=flow_from,
        engine=Kept(compute.choose(backend, device=chosen_device, cache=workspace.cache())),
    )  # fmt: skip
    trained = in_precision(
        precision, trained, rows, workspace, functools.partial(embed, workspace=workspace)
    )
    if dry_run:
        return _say_forecast(rows, trained, workspace, embed, as_json=as_json)
    started, stages = time.monotonic(), Stages()
    results = list(embed(rows, trained, workspace, stages=stages))
    tables = tables_of(trained, results)
    write_tables(workspace, tables, replace=known is None)
    write_status(run, results, None if known is None else known.states)
    report = _report(trained, results, tables, time.monotonic() - started, stages)
    lineage = {
        "limits": asdict(limits),
        "streams": {stream.name: dict(stream.lineage) for stream in trained},
    }
    write_json(run / "lineage.json", {**report, **lineage})
    say(results)
    screen.note(f"wrote {run / 'embeddings'}; next: tristream fuse --run {run}")
    screen.emit(report, as_json=as_json)
    return screen.SOME_REJECTED if any(result.rejected for result in results) else screen.OK


def results_of(
    rows: Sequence[VideoRow],
    trained: Sequence[TrainedStream],
    workspace: Workspace,
    root: Path | None,
    *,
    device: str,
    workers: int,
    backend: str = "auto",
    deterministic: bool = False,
    force: bool = False,
    flow_from: Path | None = None,
    engine: Backend | None = None,
    stages: Stages | None = None,
) -> Iterator[VideoResult]:
    """Embeddings of each row, in order, with a progress bar.

    Args:
        engine: what the networks run on, where it is there already, instead of `backend` on `device`.
        stages: where the time went is added here.
        (the others): as the options of the command.
    """
    from tristream.store.claims import Claims, in_turns
    from tristream.streams import compute, flow_needs, model
    from tristream.streams.backend import Kept
    from tristream.streams.extraction import extract
    from tristream.streams.timings import Stages

    stages = stages or Stages()
    pace = Pace(len(rows), stages)
    cache, names = workspace.cache(), [stream.name for stream in trained]
    _check_same_reading(trained)
    _say_precomputed(trained, flow_from)
    content = contents(rows, root, follow_links=workspace.follow_links)
    if engine is None:
        chosen = choose_device(device, deterministic=deterministic)
        engine = Kept(compute.choose(backend, device=chosen, cache=cache))
    flow = model.shared_estimators(trained)
    flow.backend = engine
    bound = [stream.stream for stream in trained]
    flow.check(flow_needs.needed(bound, precomputed_flow=flow_from is not None))
    title = f"embedding ({', '.join(names)})"
    with decode_pool(workers, workspace.limits) as pool, screen.progress(title, len(rows)) as move:
        pool.check_decoder()
        decode = decoder(pool, root, follow_links=workspace.follow_links)

        def work(some: Iterable[VideoRow]) -> Iterator[VideoResult]:
            videos: Iterator[Video] = (
                make_video(row, content[row.video_id], decode=decode, cache=cache, data=trained[0].data,
                           sampler=trained[0].sampler, stream_names=names, flow_from=flow_from, estimators=flow,
                           stages=stages)
                for row in some
            )  # fmt: skip
            for result in extract(
                videos,
                trained,
                cache=cache,
                backend=engine,
                n_threads=workers + 1,
                force=force,
                stages=stages,
            ):
                move(note=pace.note())
                if result.rejected:
                    screen.warn(f"rejected: {result.rejected}")
                yield result

        with Claims(workspace.cache_dir) as claims:
            yield from in_turns(rows, work, claims, lambda row: content[row.video_id])


def _say_forecast(
    rows: Sequence[VideoRow],
    trained: Sequence[TrainedStream],
    workspace: Workspace,
    embed: functools.partial[Iterator[VideoResult]],
    *,
    as_json: bool,
) -> int:
    """What embedding all rows will take, from a few seconds of it; nothing of the run is written."""
    from tristream.streams.extraction import key_parts

    root, engine = embed.keywords["root"], embed.keywords["engine"]
    cache, keys = workspace.cache(), [key_parts(stream, engine) for stream in trained]
    most = trained[0].sampler.max_seconds

    def is_done(row: VideoRow) -> bool:
        content = contents([row], None)[row.video_id]
        return all(
            cache.path("segments", cache.key(content_id=content, flow="", **parts)).exists()
            for parts in keys
        )

    with decode_pool(embed.keywords["workers"], workspace.limits) as pool:

        def seconds_of(row: VideoRow) -> float:
            inside = root if row.path.is_relative_to(root) else None
            try:
                found = pool.probe(
                    row.path, root=inside, follow_links=workspace.follow_links
                ).result()
            except Rejected:
                return 0.0
            return min(most, found.duration_seconds or most)

        found = forecast(rows, lambda some, there: embed(some, trained, there), seconds_of, is_done, workspace,
                         n_streams=len(trained))  # fmt: skip
    screen.note(found.sentence())
    screen.emit(asdict(found), as_json=as_json)
    return screen.OK


def _check_same_reading(trained: Sequence[TrainedStream]) -> None:
    """One decode serves all streams, so they must have been trained on videos read in one way."""
    first = trained[0]
    for other in trained[1:]:
        if (other.data, other.sampler) != (first.data, first.sampler):
            raise UsageError(
                f"'{first.name}' and '{other.name}' were trained with different [data] or [sampler] settings; train "
                "one of them again with those of the other, or embed them one by one with --streams"
            )


def _say_precomputed(trained: Sequence[TrainedStream], flow_from: Path | None) -> None:
    """Flow of another kind than a stream has learned from gives other embeddings, silently."""
    for stream in trained:
        learned = stream.lineage.get("flow_from")
        if learned and flow_from is None:
            screen.warn(
                f"'{stream.name}' was trained on precomputed flow ({learned}); without --flow-from it is estimated now"
            )


def tables_of(
    trained: Sequence[TrainedStream], results: Sequence[VideoResult]
) -> dict[str, EmbeddingTable]:
    """{stream: table} of the videos that were not rejected, all in one order."""
    import numpy as np

    from tristream.store.embeddings import EmbeddingTable
    from tristream.store.lineage import versions

    kept = [result for result in results if not result.rejected]
    tables = {}
    for stream in trained:
        present = np.array([stream.name in result.embeddings for result in kept], bool)
        values = np.full((len(kept), stream.model.embedding_dim), np.nan, np.float32)
        times = np.full((len(kept), 2), np.nan)
        for row in np.flatnonzero(present):
            values[row] = kept[row].embeddings[stream.name]
            looked_at = kept[row].segments[stream.name]
            times[row] = looked_at.start_seconds.min(), looked_at.stop_seconds.max()
        tables[stream.name] = EmbeddingTable(
            stream=stream.name,
            space_id=stream.space_id,
            video_id=[result.video.video_id for result in kept],
            content_id=[result.video.content_id for result in kept],
            present=present,
            reason=[result.absent.get(stream.name, "") for result in kept],
            start_seconds=times[:, 0],
            stop_seconds=times[:, 1],
            embedding=values,
            lineage={**stream.lineage, "space": stream.segment_identity(), "versions": versions()},
        )
    return tables


def write_tables(
    workspace: Workspace, tables: dict[str, EmbeddingTable], *, replace: bool = True
) -> None:
    """One Parquet file for each stream in the folder of its space; it replaces those that were there, or joins them."""
    from tristream.store import embeddings

    for name, table in tables.items():
        if replace or len(table):
            embeddings.write(table, workspace.embeddings_dir(name, table.space_id), replace=replace)


def say(results: Sequence[VideoResult], *, stored: bool = True) -> None:
    """What became of the videos, in a few lines; `stored`: the run has a status.csv of them."""
    absent: dict[str, list[str]] = {}
    reasons: list[str] = []
    for result in results:
        if not result.rejected:
            reasons += result.reasons
            for name, reason in result.absent.items():
                absent.setdefault(name, []).append(reason)
    say_absent(absent, len(results))
    masks = {reason for found in absent.values() for reason in found}
    for reason in sorted(set(reasons) - masks):
        screen.note(
            f"degraded: {reasons.count(reason)} of {len(results)} videos ({reason})"
            + ("; see status.csv" if stored else "")
        )
    n_rejected = sum(bool(result.rejected) for result in results)
    if n_rejected:
        where = "; see failures.csv" if stored else ""
        screen.warn(f"{n_rejected} of {len(results)} videos were rejected{where}")


def _report(
    trained: Sequence[TrainedStream],
    results: Sequence[VideoResult],
    tables: dict[str, EmbeddingTable],
    seconds: float,
    stages: Stages,
) -> dict[str, object]:
    states = [result.status for result in results]
    return {
        "n_videos": len(results),
        **{state: states.count(state) for state in ("ok", "degraded", "rejected")},
        "rejected_videos": {r.video.video_id: r.rejected_reason for r in results if r.rejected},
        "spaces": {stream.name: stream.space_id for stream in trained},
        "present": {name: int(table.present.sum()) for name, table in tables.items()},
        "seconds": round(seconds, 2),
        "seconds_per_video": round(seconds / max(1, len(results)), 4),
        "stage_seconds": {stage: round(spent, 3) for stage, spent in stages.seconds.items()},
    }
