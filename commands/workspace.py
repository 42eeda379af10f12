"""Where a run keeps its things, and the parts the commands share: its videos, its decoder, its trained streams."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream import streams
from tristream.commands.pretrained import places, random_sentence
from tristream.commands.screen import note, readable, warn
from tristream.dataset.listing import video_id_of
from tristream.dataset.manifest import Manifest, VideoRow, content_id, read_manifest
from tristream.dataset.videos_csv import cell_of
from tristream.errors import UsageError
from tristream.media.limits import DEFAULT_LIMITS, Limits
from tristream.media.reasons import Rejected
from tristream.store.atomic import write_bytes

if TYPE_CHECKING:
    import torch

    from tristream.media.sandbox.pool import DecodePool
    from tristream.store.cache import Cache
    from tristream.streams.config import DataConfig, SamplerConfig
    from tristream.streams.extraction import VideoResult
    from tristream.streams.flow_estimators import Estimators
    from tristream.streams.model import TrainedStream
    from tristream.streams.timings import Stages
    from tristream.streams.video import Decoder, Video


@dataclass(frozen=True)
class Workspace:
    """The folder of one run, and how files are read for it. Nothing is read or made until it is asked for.

    Attributes:
        run: what the run reads and writes.
        cache_dir: what need not be computed twice.
        keeps_flow: whether the cache keeps flow.
        weights_dir: files of pretrained weights.
        limits: how much of anything one video may use.
        follow_links: whether links may lead out of the data root.
    """

    run: Path
    cache_dir: Path
    keeps_flow: bool = True
    weights_dir: Path | None = None
    limits: Limits = DEFAULT_LIMITS
    follow_links: bool = False

    @property
    def manifest_path(self) -> Path:
        return self.run / "videos.csv"

    @property
    def fusion_dir(self) -> Path:
        return self.run / "fusion"

    def stream_dir(self, name: str) -> Path:
        """Checkpoint, configuration and metrics of one stream."""
        return self.run / "streams" / name

    def embeddings_dir(self, name: str, space_id: str) -> Path:
        """Parquet files of one stream in one embedding space."""
        return self.run / "embeddings" / name / space_id

    def windows_dir(self, name: str, space_id: str) -> Path:
        """Parquet files of the windows of one stream in one embedding space."""
        return self.run / "windows" / name / space_id

    def manifest(self, data: Path | None) -> Manifest:
        """The run's videos.

        Raises:
            UsageError: there is no videos.csv.
        """
        if not self.manifest_path.exists():
            raise UsageError(
                f"{self.manifest_path} does not exist; make it first: tristream index --run {self.run} --data DIR"
            )
        return read_manifest(self.manifest_path, root=data)

    def cache(self) -> Cache:
        """What need not be computed twice; a corrupt entry is named on stderr."""
        from tristream.store.cache import KINDS, Cache

        written = [kind for kind in KINDS if self.keeps_flow or kind != "flow"]
        return Cache(self.cache_dir, report=warn, written=written)

    def check_writable(self, *folders: Path) -> None:
        """Finds out before any work whether results could be kept; in the run and the cache where none is named.

        Raises:
            OSError: they could not.
        """
        for folder in folders or (self.run, self.cache_dir):
            probe = folder / ".tmp-writable"
            write_bytes(probe, b"")
            probe.unlink()

    def trained_names(self) -> list[str]:
        """Streams that have a checkpoint in this run."""
        return [
            name for name in streams.names() if (self.stream_dir(name) / "config.json").exists()
        ]

    def random_weights(self, names: Sequence[str]) -> dict[str, int]:
        """Trained streams that ran on random weights in place of pretrained ones, and the seeds."""
        from tristream.store.checkpoint import load_config
        from tristream.streams.model import CONFIG_FILE

        stored = {
            name: load_config(self.stream_dir(name) / "checkpoint", config_file=CONFIG_FILE)
            for name in names
        }
        seeds = {
            name: config.get("lineage", {}).get("random_weights") for name, config in stored.items()
        }
        return {name: seed for name, seed in seeds.items() if seed is not None}

    def load_streams(self, wanted: Sequence[str] | None) -> list[TrainedStream]:
        """The trained streams asked for; all there are where none are named.

        Raises:
            UsageError: none is trained, or one that is named is not.
        """
        from tristream.streams import model

        trained = self.trained_names()
        missing = [name for name in wanted or () if name not in trained]
        if missing or not trained:
            name = missing[0] if missing else "spatial"
            what = f"the stream '{name}' is not trained" if missing else "no stream is trained"
            raise UsageError(
                f"{what} in {self.run}; train it first: tristream train-stream {name} --run {self.run}"
            )
        loaded = [model.load(self.stream_dir(name)) for name in wanted or trained]
        for name, seed in self.random_weights([stream.name for stream in loaded]).items():
            warn(f"{name}: {random_sentence(seed)}")
        shared = model.shared_estimators(loaded, where=places(self.weights_dir, self.cache_dir))
        return [replace(stream, estimators=shared) for stream in loaded]


def chosen_streams(text: str | None) -> list[str] | None:
    """The streams of `--streams a,b`; None where the option is not given.

    Raises:
        UsageError: a name that is none.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in streams.names():
            raise UsageError(f"unknown stream '{name}'; available: {', '.join(streams.names())}")
    if not names:
        raise UsageError(f"--streams is empty; available: {', '.join(streams.names())}")
    return list(dict.fromkeys(names))


def choose_device(name: str, *, deterministic: bool) -> torch.device:
    """The device called `name`; "auto" is a GPU where there is one.

    Raises:
        UsageError: no such device on this machine.
    """
    from tristream.streams.compute import Compute

    return Compute(name, deterministic=deterministic).torch_device()


@contextlib.contextmanager
def decode_pool(n_workers: int, limits: Limits = DEFAULT_LIMITS) -> Iterator[DecodePool]:
    """Decode processes, and OpenCV kept to one thread in this one: parallelism comes from several videos at once."""
    import cv2

    from tristream.media.sandbox.pool import SHARE_OF_MEMORY, DecodePool

    cv2.setNumThreads(1)
    with DecodePool(n_workers, limits=limits) as pool:
        if pool.n_workers < n_workers:
            note(
                f"{pool.n_workers} instead of {n_workers} decode processes: each may use {limits.memory_bytes >> 20} "
                f"MiB, all of them {SHARE_OF_MEMORY:.0%} of this machine's memory"
            )
        yield pool


def say_links(root: Path, follow_links: bool) -> None:
    """Says where the data root is in truth, and so what may be read, when links may lead out of it."""
    if follow_links:
        note(f"links are followed wherever they lead; the data root is {Path(root).resolve()}")


def decoder(pool: DecodePool, root: Path | None, *, follow_links: bool = False) -> Decoder:
    """What decodes one video in a process of the pool, and waits for it."""

    def decode(
        path: Path, *, pictures: bool, sound: bool, max_side: int, stop_seconds: float
    ) -> Any:
        inside = root if root is not None and path.is_relative_to(root) else None
        return pool.submit(
            path, pictures=pictures, sound=sound, max_side=max_side, stop_seconds=stop_seconds, root=inside,
            follow_links=follow_links,
        ).result()  # fmt: skip

    return decode


def make_video(
    row: VideoRow,
    content: str,
    *,
    decode: Decoder,
    cache: Cache,
    data: DataConfig,
    sampler: SamplerConfig,
    stream_names: Sequence[str],
    flow_from: Path | None = None,
    estimators: Estimators | None = None,
    stages: Stages | None = None,
) -> Video:
    """A video as the streams see it; what none of them needs is not decoded."""
    from tristream.streams.video import FlowSource, Video, View

    wanted = [streams.stream_class(name) for name in stream_names]
    return Video(
        row.video_id,
        row.path,
        content,
        decode=decode,
        cache=cache,
        view=View(
            data,
            sampler,
            pictures=any(stream.needs_pictures for stream in wanted),
            sound=any(stream.needs_sound for stream in wanted),
        ),
        flow_source=FlowSource(estimators, flow_from),
        stages=stages,
    )


def contents(
    rows: Sequence[VideoRow], root: Path | None, *, follow_links: bool = False
) -> dict[str, str]:
    """video_id → sha256 of the bytes as they are now.

    A file that cannot be read, or must not, gets a name under which nothing is cached: decoding says what is wrong.
    """
    found = {}
    for row in rows:
        inside = root if root is not None and row.path.is_relative_to(root) else None
        try:
            found[row.video_id] = content_id(row.path, root=inside, follow_links=follow_links)
        except (Rejected, OSError):
            found[row.video_id] = f"unreadable {row.video_id}"
    return found


def given_rows(paths: Sequence[Path], root: Path | None) -> list[VideoRow]:
    """Paths of the command line as rows: relative to the data root where they lie inside, absolute elsewhere."""
    rows = []
    for path in paths:
        path = path.absolute()
        video_id = video_id_of(path, root)
        rows.append(
            VideoRow(video_id=video_id, path=path, label="", split="unlabelled", group="", anomaly=None, fold="",
                     content_id="")
        )  # fmt: skip
    return rows


STATUS = ("video_id", "status", "reasons", "absent_streams")


def write_status(
    run: Path, results: Sequence[VideoResult], states: Mapping[str, Sequence[str]] | None = None
) -> None:
    """status.csv: one state for each video; failures.csv: those that were rejected, and why.

    Args:
        run: the folder of the run.
        results: of the videos that were looked at now.
        states: video_id → what the row of status.csv said before, for videos that were not; their order stays.
    """
    rows = {
        result.video.video_id: [
            result.video.video_id,
            result.status,
            result.rejected_reason or " ".join(sorted({*result.reasons, *result.absent.values()})),
            " ".join(f"{name}:{reason}" for name, reason in sorted(result.absent.items())),
        ]
        for result in results
    }
    write_csv(run / "status.csv", STATUS, list({**(states or {}), **rows}.values()))
    failures = [[r.video.video_id, r.rejected_reason, r.rejected] for r in results if r.rejected]
    write_csv(run / "failures.csv", ["video_id", "reason", "sentence"], failures)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A CSV that a spreadsheet opens and does not obey; names stand in it as in videos.csv (`dataset.videos_csv`)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([cell if _is_number(cell) else cell_of(cell) for cell in map(str, row)])
    write_bytes(path, buffer.getvalue().encode())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def write_json(path: Path, value: Any) -> None:
    """JSON for people and programs."""
    write_bytes(path, (json.dumps(readable(value), indent=1, ensure_ascii=False) + "\n").encode())


def say_absent(absent: dict[str, list[str]], n_videos: int) -> None:
    """One line for each stream and reason, however many videos it is about."""
    for name, reasons in sorted(absent.items()):
        for reason in sorted(set(reasons)):
            n = reasons.count(reason)
            note(f"{name}: masked for {n} of {n_videos} videos ({reason})")
