"""One embedding per video and trained stream, written as Parquet with a state for every video."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream.embeddings import Embeddings, embeddings_of
from tristream.extract import extract_rows, kept_engine
from tristream.files import write_json
from tristream.forecast import Forecast, forecast
from tristream.media.reasons import Rejected
from tristream.precision import in_precision
from tristream.status import Earlier, write_status
from tristream.videos import contents, decode_pool, expand_paths, given_rows, note_links
from tristream.workspace import Workspace, check_names

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.store.embeddings import EmbeddingTable
    from tristream.streams.extraction import VideoResult
    from tristream.streams.model import TrainedStream
    from tristream.streams.timings import Stages


@dataclass(frozen=True)
class EmbedOptions:
    """Choices of one embedding of a run.

    Attributes:
        streams: trained streams to use; None: all.
        precision: "float32" or "bf16" from now on; None: as chosen before.
        retry: only the videos that were rejected before.
        force: compute even what is cached.
    """

    streams: Sequence[str] | None = None
    precision: str | None = None
    retry: bool = False
    force: bool = False


@dataclass(frozen=True, eq=False)
class EmbedResult:
    """Result of embedding the videos of a run.

    Attributes:
        embeddings: of the videos that were embedded now.
        report: counts of states, spaces and seconds, as in lineage.json.
    """

    embeddings: Embeddings
    report: dict[str, Any]


class _Job:
    """Rows, streams and engine of one embedding."""

    def __init__(
        self,
        workspace: Workspace,
        options: EmbedOptions,
        data: Path | None,
        paths: Sequence[str | Path],
    ) -> None:
        self.options = options
        workspace.check_writable()
        manifest = workspace.manifest(data)
        self.workspace = workspace.reading_from(manifest.root)
        note_links(self.workspace, manifest.root)
        trained = workspace.load_streams(check_names(options.streams))
        rows = [*manifest.rows, *given_rows(expand_paths(paths), manifest.root)]
        rows = list({row.video_id: row for row in rows}.values())
        self.earlier = Earlier.read(workspace, rows, trained) if options.retry else None
        self.rows = rows if self.earlier is None else self.earlier.failed
        self.engine = kept_engine(workspace)
        self.trained = in_precision(self.workspace, options.precision, trained, self.rows, self.run)

    def run(
        self,
        rows: Sequence[VideoRow],
        trained: Sequence[TrainedStream],
        workspace: Workspace | None = None,
        stages: Stages | None = None,
    ) -> Iterator[VideoResult]:
        return extract_rows(
            workspace or self.workspace,
            rows,
            trained,
            engine=self.engine,
            force=self.options.force,
            stages=stages,
        )


def embed(
    workspace: Workspace,
    options: EmbedOptions | None = None,
    *,
    data: Path | None = None,
    paths: Sequence[str | Path] = (),
) -> EmbedResult:
    """Embed the videos of a run and write tables, status.csv, failures.csv and lineage.json.

    Args:
        workspace: of the run.
        options: streams, precision, retry, force.
        data: folder the paths of videos are relative to; None: the one that was indexed.
        paths: more video files, listed as long as they are given.

    Raises:
        UsageError: no videos.csv, no trained stream, nothing to retry.
        OSError: results cannot be written.
    """
    from tristream.streams.timings import Stages

    job = _Job(workspace, options or EmbedOptions(), data, paths)
    started, stages = time.monotonic(), Stages()
    results = list(job.run(job.rows, job.trained, stages=stages))
    embeddings = embeddings_of(job.trained, results)
    write_tables(workspace, embeddings.tables, replace=job.earlier is None)
    write_status(workspace, results, None if job.earlier is None else job.earlier.states)
    report = _report(job, results, embeddings, time.monotonic() - started, stages)
    lineage = {
        "limits": asdict(workspace.reading.limits),
        "streams": {stream.name: dict(stream.lineage) for stream in job.trained},
    }
    write_json(workspace.folder / "lineage.json", {**report, **lineage})
    note_states(workspace, results)
    return EmbedResult(embeddings, report)


def embed_files(
    workspace: Workspace, paths: Sequence[str | Path], *, streams: Sequence[str] | None = None
) -> Embeddings:
    """Return the embeddings of video files; nothing of the run is written.

    Args:
        workspace: of the run.
        paths: files, folders or patterns.
        streams: trained streams to use; None: all.
    """
    trained = workspace.load_streams(check_names(streams))
    root = workspace.data_root()
    rows = given_rows(expand_paths(paths), root)
    results = list(extract_rows(workspace.reading_from(root), rows, trained))
    note_states(workspace, results, stored=False)
    return embeddings_of(trained, results)


def forecast_embedding(
    workspace: Workspace,
    options: EmbedOptions | None = None,
    *,
    data: Path | None = None,
    paths: Sequence[str | Path] = (),
) -> Forecast:
    """Return the time, disk and memory that `embed` will take, measured on a few videos."""
    from tristream.streams.extraction import key_parts

    job = _Job(workspace, options or EmbedOptions(), data, paths)
    cache, keys = workspace.cache(), [key_parts(stream, job.engine) for stream in job.trained]
    longest, reading = job.trained[0].sampler.max_seconds, job.workspace.reading

    def is_done(row: VideoRow) -> bool:
        content = contents([row], reading)[row.video_id]
        return all(
            cache.path("segments", cache.key(content_id=content, flow="", **parts)).exists()
            for parts in keys
        )

    with decode_pool(job.workspace) as pool:

        def seconds_of(row: VideoRow) -> float:
            try:
                facts = pool.probe(
                    row.path, root=reading.inside(row.path), follow_links=reading.follow_links
                ).result()
            except Rejected:
                return 0.0
            return min(longest, facts.duration_seconds or longest)

        return forecast(
            job.rows,
            lambda rows, scratch: job.run(rows, job.trained, scratch),
            seconds_of,
            is_done,
            job.workspace,
            n_streams=len(job.trained),
        )


def write_tables(
    workspace: Workspace, tables: Mapping[str, EmbeddingTable], *, replace: bool = True
) -> None:
    """Write one Parquet file per stream into the folder of its space, replacing or joining others."""
    from tristream.store import embeddings

    for name, table in tables.items():
        if replace or len(table):
            embeddings.write(table, workspace.embeddings_dir(name, table.space_id), replace=replace)


def note_states(
    workspace: Workspace, results: Sequence[VideoResult], *, stored: bool = True
) -> None:
    """Report masked, degraded and rejected videos in a few lines; `stored`: in status.csv."""
    progress = workspace.progress
    absent: dict[str, list[str]] = {}
    reasons: list[str] = []
    for result in results:
        if not result.rejected:
            reasons += result.reasons
            for name, reason in result.absent.items():
                absent.setdefault(name, []).append(reason)
    note_masks(workspace, absent, len(results))
    masks = {reason for codes in absent.values() for reason in codes}
    for reason in sorted(set(reasons) - masks):
        progress.note(
            f"degraded: {reasons.count(reason)} of {len(results)} videos ({reason})"
            + ("; see status.csv" if stored else "")
        )
    n_rejected = sum(bool(result.rejected) for result in results)
    if n_rejected:
        hint = "; see failures.csv" if stored else ""
        progress.warn(f"{n_rejected} of {len(results)} videos were rejected{hint}")


def note_masks(workspace: Workspace, absent: Mapping[str, Sequence[str]], n_videos: int) -> None:
    """Report each masked stream and reason in one line, however many videos it concerns."""
    for name, reasons in sorted(absent.items()):
        for reason in sorted(set(reasons)):
            n = reasons.count(reason)
            workspace.progress.note(f"{name}: masked for {n} of {n_videos} videos ({reason})")


def _report(
    job: _Job,
    results: Sequence[VideoResult],
    embeddings: Embeddings,
    seconds: float,
    stages: Stages,
) -> dict[str, Any]:
    states = [result.status for result in results]
    return {
        "n_videos": len(results),
        **{state: states.count(state) for state in ("ok", "degraded", "rejected")},
        "rejected_videos": dict(embeddings.failures),
        "spaces": {stream.name: stream.space_id for stream in job.trained},
        "present": {name: int(t.present.sum()) for name, t in embeddings.tables.items()},
        "seconds": round(seconds, 2),
        "seconds_per_video": round(seconds / max(1, len(results)), 4),
        "stage_seconds": {stage: round(spent, 3) for stage, spent in stages.seconds.items()},
    }
