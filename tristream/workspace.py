"""The folder of a run and the conditions of work on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tristream import streams
from tristream.errors import UsageError
from tristream.paths import CACHE, RUN, expanded
from tristream.progress import SILENT, Progress
from tristream.store.atomic import write_bytes
from tristream.streams.compute import Compute
from tristream.streams.reading import Reading

if TYPE_CHECKING:
    from tristream.dataset.manifest import Manifest
    from tristream.store.cache import Cache
    from tristream.streams.model import TrainedStream


__all__ = ["Compute", "HasWorkspace", "Reading", "Workspace", "check_names", "stream_names"]


class HasWorkspace(Protocol):
    """A run: anything with a workspace."""

    @property
    def workspace(self) -> Workspace: ...


@dataclass(frozen=True)
class Workspace:
    """Folder of one run and the conditions of work on it. Nothing is read or written before it is used.

    Attributes:
        folder: what the run reads and writes.
        cache_dir: results that need not be computed twice; shared between runs.
        keeps_flow: keep optical flow, the largest part of the cache.
        weights_dir: files of pretrained weights, searched first.
        reading: limits, links and precomputed flow of the videos that are read.
        compute: device, inference backend and processes.
        progress: receiver of notes, warnings and progress bars; silent by default.
    """

    folder: Path = RUN
    cache_dir: Path = CACHE
    keeps_flow: bool = True
    weights_dir: Path | None = None
    reading: Reading = field(default_factory=Reading)
    compute: Compute = field(default_factory=Compute)
    progress: Progress = SILENT

    @classmethod
    def of(cls, run: str | Path | Workspace | HasWorkspace) -> Workspace:
        """Return the workspace of a run, or a default one in the folder `run`."""
        if isinstance(run, str | Path):
            return cls(Path(run))
        return run if isinstance(run, Workspace) else run.workspace

    def __post_init__(self) -> None:
        for name in ("folder", "cache_dir", "weights_dir"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, expanded(value))

    @property
    def manifest_path(self) -> Path:
        return self.folder / "videos.csv"

    @property
    def fusion_dir(self) -> Path:
        return self.folder / "fusion"

    def stream_dir(self, name: str) -> Path:
        """Checkpoint, configuration and metrics of one stream."""
        return self.folder / "streams" / name

    def embeddings_dir(self, name: str, space_id: str) -> Path:
        """Parquet files of one stream in one embedding space."""
        return self.folder / "embeddings" / name / space_id

    def windows_dir(self, name: str, space_id: str) -> Path:
        """Parquet files of the windows of one stream in one embedding space."""
        return self.folder / "windows" / name / space_id

    def manifest(self, data: Path | None = None) -> Manifest:
        """Return the videos of the run.

        Args:
            data: folder the paths of videos are relative to; None: the one that was indexed.

        Raises:
            UsageError: there is no videos.csv.
        """
        from tristream.dataset.manifest import read_manifest

        if not self.manifest_path.exists():
            raise UsageError(
                f"{self.manifest_path} does not exist; make it first: "
                f"tristream index --run {self.folder} --data DIR"
            )
        return read_manifest(self.manifest_path, root=data)

    def data_root(self) -> Path | None:
        """Return the folder the run's videos lie in; None if the run has no videos.csv."""
        return self.manifest().root if self.manifest_path.exists() else None

    def reading_from(self, root: Path | None) -> Workspace:
        """Return the workspace with this data root."""
        return replace(self, reading=replace(self.reading, root=root))

    def cache(self) -> Cache:
        """Return the cache; it warns of corrupt entries."""
        from tristream.store.cache import KINDS, Cache

        written = [kind for kind in KINDS if self.keeps_flow or kind != "flow"]
        return Cache(self.cache_dir, report=self.progress.warn, written=written)

    def check_writable(self, *folders: Path) -> None:
        """Raise OSError now if results could not be written later to `folders` (default: run and cache)."""
        for folder in folders or (self.folder, self.cache_dir):
            probe = folder / ".tmp-writable"
            write_bytes(probe, b"")
            probe.unlink()

    def trained_names(self) -> list[str]:
        """Return the streams that have a checkpoint in this run."""
        return [
            name for name in streams.names() if (self.stream_dir(name) / "config.json").exists()
        ]

    def random_weights(self, names: Sequence[str]) -> dict[str, int]:
        """Return {stream: seed} of trained streams that used random in place of pretrained weights."""
        from tristream.store.checkpoint import load_config
        from tristream.streams.model import CONFIG_FILE

        stored = {
            name: load_config(self.stream_dir(name) / "checkpoint", config_file=CONFIG_FILE)
            for name in names
        }
        seeds = {n: config.get("lineage", {}).get("random_weights") for n, config in stored.items()}
        return {name: seed for name, seed in seeds.items() if seed is not None}

    def check_trained(self, wanted: Sequence[str] | None) -> list[str]:
        """Return the streams in `wanted`, or all trained ones for None.

        Raises:
            UsageError: none is trained, or one of `wanted` is not.
        """
        trained = self.trained_names()
        missing = [name for name in wanted or () if name not in trained]
        if missing or not trained:
            name = missing[0] if missing else "spatial"
            what = f"the stream '{name}' is not trained" if missing else "no stream is trained"
            raise UsageError(
                f"{what} in {self.folder}; train it first: "
                f"tristream train-stream {name} --run {self.folder}"
            )
        return list(wanted or trained)

    def load_streams(self, wanted: Sequence[str] | None = None) -> list[TrainedStream]:
        """Load the trained streams in `wanted`, or all for None.

        Raises:
            UsageError: none is trained, or one of `wanted` is not.
        """
        from tristream.pretrained import places, random_sentence
        from tristream.streams import model

        loaded = [model.load(self.stream_dir(name)) for name in self.check_trained(wanted)]
        for name, seed in self.random_weights([stream.name for stream in loaded]).items():
            self.progress.warn(f"{name}: {random_sentence(seed)}")
        shared = model.shared_estimators(loaded, where=places(self.weights_dir, self.cache_dir))
        return [replace(stream, estimators=shared) for stream in loaded]


def stream_names() -> list[str]:
    """Return the names of the available streams."""
    return streams.names()


def check_names(names: Sequence[str] | None) -> list[str] | None:
    """Return the stream names without duplicates; None stays None.

    Raises:
        UsageError: an unknown name, or no name.
    """
    if names is None:
        return None
    for name in names:
        if name not in streams.names():
            raise UsageError(f"unknown stream '{name}'; available: {', '.join(streams.names())}")
    if not names:
        raise UsageError(f"--streams is empty; available: {', '.join(streams.names())}")
    return list(dict.fromkeys(names))
