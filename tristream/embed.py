"""One embedding per video and trained stream, written as Parquet with a state for every video."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream.embeddings import Embeddings, embeddings_of
from tristream.errors import UsageError
from tristream.extract import extract_rows, kept_engine
from tristream.files import write_json
from tristream.forecast import Forecast, forecast
from tristream.media.reasons import Rejected
from tristream.part_writer import PartWriter, Tally
from tristream.precision import in_precision
from tristream.status import Earlier
from tristream.videos import contents, decode_pool, expand_paths, given_rows, note_links
from tristream.workspace import Workspace, check_names

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
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
        shard: (k, n): only part k of n, 1 ≤ k ≤ n, by the contents of the files; parts may be embedded at
            once by several machines with one run folder.
    """

    streams: Sequence[str] | None = None
    precision: str | None = None
    retry: bool = False
    force: bool = False
    shard: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class EmbedResult:
    """Result of embedding the videos of a run.

    Attributes:
        report: counts of states, spaces and seconds, as in lineage.json.
        folders: {stream: folder of its tables}.
        tally: names and states of the videos that were embedded now.
    """

    report: dict[str, Any]
    folders: Mapping[str, Path]
    tally: Tally

    @cached_property
    def embeddings(self) -> Embeddings:
        """Embeddings of the videos that were embedded now, read from the tables when first used."""
        from tristream.store import embeddings

        tables = {}
        for name, folder in self.folders.items():
            table = embeddings.read(folder)
            place = {video: row for row, video in enumerate(table.video_id)}
            tables[name] = table.take([place[video] for video in self.tally.video_ids])
        return Embeddings(tables, self.tally.failures, self.tally.sentences)


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
        if options.shard is not None:
            if options.retry:
                raise UsageError("retry is for the whole run; leave out the shard")
            self.rows = rows_of_shard(rows, *options.shard)
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

    Tables and states are written while it runs, in parts of at most 1,000 videos.

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
    states = None if job.earlier is None else job.earlier.states
    shard = "" if job.options.shard is None else "{}-of-{}".format(*job.options.shard)
    parts = PartWriter(
        workspace, job.trained, replace=states is None and not shard, states=states, shard=shard
    )
    for result in job.run(job.rows, job.trained, stages=stages):
        parts.add(result)
    parts.close()
    report = _report(job, parts, time.monotonic() - started, stages)
    lineage = {
        "limits": asdict(workspace.reading.limits),
        "streams": {stream.name: dict(stream.lineage) for stream in job.trained},
    }
    origin = f"status/{shard}.json" if shard else "lineage.json"
    write_json(workspace.folder / origin, {**report, **lineage})
    note_tally(workspace, parts.tally)
    folders = {stream.name: parts.folder_of(stream) for stream in job.trained}
    return EmbedResult(report, folders, parts.tally)


def rows_of_shard(rows: Sequence[VideoRow], k: int, n: int) -> list[VideoRow]:
    """Return part k of n of some videos, by a hash of their contents: the same for every stream.

    Raises:
        UsageError: k is not between 1 and n.
    """
    if not 1 <= k <= n:
        raise UsageError(f"shard {k}/{n}: the first number must be between 1 and the second")

    def place(row: VideoRow) -> int:
        key = (row.content_id or row.video_id).encode(errors="surrogateescape")
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") % n

    return [row for row in rows if place(row) == k - 1]


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
    note_states(workspace, results)
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


def note_states(workspace: Workspace, results: Sequence[VideoResult]) -> None:
    """Report masked, degraded and rejected videos of results that are not stored, in a few lines."""
    tally = Tally()
    for result in results:
        tally.add(result)
    note_tally(workspace, tally, stored=False)


def note_tally(workspace: Workspace, tally: Tally, *, stored: bool = True) -> None:
    """Report masked, degraded and rejected videos in a few lines; `stored`: in status.csv."""
    progress = workspace.progress
    for (name, reason), n in sorted(tally.masks.items()):
        progress.note(f"{name}: masked for {n} of {tally.n_videos} videos ({reason})")
    masks = {reason for _, reason in tally.masks}
    for reason, n in sorted(tally.reasons.items()):
        if reason not in masks:
            progress.note(
                f"degraded: {n} of {tally.n_videos} videos ({reason})"
                + ("; see status.csv" if stored else "")
            )
    if tally.failures:
        hint = "; see failures.csv" if stored else ""
        progress.warn(f"{len(tally.failures)} of {tally.n_videos} videos were rejected{hint}")


def _report(job: _Job, parts: PartWriter, seconds: float, stages: Stages) -> dict[str, Any]:
    tally = parts.tally
    return {
        "n_videos": tally.n_videos,
        **{state: tally.states[state] for state in ("ok", "degraded", "rejected")},
        "rejected_videos": dict(tally.failures),
        "spaces": {stream.name: stream.space_id for stream in job.trained},
        "present": {stream.name: parts.n_present[stream.name] for stream in job.trained},
        "seconds": round(seconds, 2),
        "seconds_per_video": round(seconds / max(1, tally.n_videos), 4),
        "stage_seconds": {stage: round(spent, 3) for stage, spent in stages.seconds.items()},
    }
