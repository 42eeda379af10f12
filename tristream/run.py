"""A run: one folder, and every step of the job as a method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tristream.errors import UsageError
from tristream.paths import CACHE, RUN
from tristream.progress import SILENT, Progress
from tristream.streams.compute import Compute
from tristream.streams.reading import Reading
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import Manifest
    from tristream.embeddings import Embeddings
    from tristream.live import Alarm, LiveEvent, Notice
    from tristream.make_report import Written
    from tristream.results import Detection, Prediction, Results, WindowedDetection
    from tristream.similar import Similar
    from tristream.state import State
    from tristream.train_all import AllTrained
    from tristream.train_stream import TrainResult
    from tristream.whole_job import JobResult

Options = TypeVar("Options")
Paths = Sequence[str | Path]


class Run:
    """One run: videos, trained streams, embeddings and decisions in one folder.

        run = Run("runs/default")
        run.index("my_videos")
        run.train_stream("temporal", preset="light")
        run.embed()
        run.fuse(normal=["walk"])
        run.predict(["clip.mp4"])

    Keyword arguments of the methods are the fields of the options class named in their docstring.

    Args:
        folder: what the run reads and writes.
        cache: results that need not be computed twice; shared between runs.
        keeps_flow: keep optical flow, the largest part of the cache.
        weights_dir: files of pretrained weights, searched first.
        reading: limits, links and precomputed flow.
        compute: device, inference backend and processes.
        progress: receiver of notes and bars: `Notebook()`, or silent by default.
    """

    def __init__(
        self,
        folder: str | Path = RUN,
        *,
        cache: str | Path = CACHE,
        keeps_flow: bool = True,
        weights_dir: str | Path | None = None,
        reading: Reading | None = None,
        compute: Compute | None = None,
        progress: Progress = SILENT,
    ) -> None:
        from tristream import environment

        environment.prepare()
        self.workspace = Workspace(
            folder=Path(folder),
            cache_dir=Path(cache),
            keeps_flow=keeps_flow,
            weights_dir=None if weights_dir is None else Path(weights_dir),
            reading=reading or Reading(),
            compute=compute or Compute(),
            progress=progress,
        )

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.workspace.folder

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def run(self, data: str | Path, **options: Any) -> JobResult:
        """Do the whole job: index, train every stream that the files have, embed, fuse, report.

        Args:
            data: folder that holds the videos, one folder per class.
            options: fields of `tristream.whole_job.JobOptions`.

        Raises:
            UsageError: no videos; no labels and no run to take trained streams from.
        """
        from tristream.whole_job import JobOptions, run_job

        if "from_run" in options:
            options["from_run"] = Workspace.of(options["from_run"])
        return run_job(self.workspace, data, _options(JobOptions, options))

    def index(self, data: str | Path, **options: Any) -> Manifest:
        """Write videos.csv from a labelled folder, a list or official lists.

        Args:
            data: folder that holds the videos.
            options: fields of `tristream.index.IndexOptions`.

        Raises:
            UsageError: no such folder, no videos, two lists.
            ManifestError: a list with problems.
        """
        from tristream.index import IndexOptions, index

        return index(self.workspace, data, _options(IndexOptions, options)).manifest

    def train_stream(
        self, name: str, *, data: str | Path | None = None, **options: Any
    ) -> TrainResult:
        """Train one stream.

        Args:
            name: of the stream: "spatial", "temporal" or "audio".
            data: folder the paths of videos are relative to; None: the one that was indexed.
            options: fields of `tristream.train_stream.TrainOptions`.

        Raises:
            UsageError: an unknown stream or setting, a split without labels, missing weights.
            TrainingDiverged: the loss is not finite.
        """
        from tristream.train_stream import TrainOptions, train_stream

        chosen = _options(TrainOptions, options)
        return train_stream(self.workspace, name, chosen, data=_path(data))

    def train_all(
        self, *, epochs: int | None = None, data: str | Path | None = None, **options: Any
    ) -> AllTrained:
        """Train every stream that the files have.

        Args:
            epochs: of every phase; None: as the settings have it.
            data: folder the paths of videos are relative to; None: the one that was indexed.
            options: fields of `tristream.train_stream.TrainOptions`.

        Raises:
            UsageError: no stream can be used, with the reason of each.
        """
        from tristream.train_all import train_all
        from tristream.train_stream import TrainOptions

        chosen = _options(TrainOptions, options)
        return train_all(self.workspace, chosen, epochs=epochs, data=_path(data))

    def take_stream(self, name: str, run: str | Path | Run) -> TrainResult:
        """Copy a trained stream from another run."""
        from tristream.train_stream import take_stream

        return take_stream(self.workspace, name, Workspace.of(run))

    def embed(
        self, paths: Paths | None = None, *, data: str | Path | None = None, **options: Any
    ) -> Embeddings:
        """Return embeddings: of all videos of the run, written as Parquet, or of `paths` alone.

        Args:
            paths: files, folders or patterns; nothing of the run is written for them.
            data: folder the paths of videos are relative to; None: the one that was indexed.
            options: fields of `tristream.embed.EmbedOptions`; of them only `streams` with `paths`.

        Raises:
            UsageError: no videos.csv, no trained stream.
        """
        from tristream.embed import EmbedOptions, embed, embed_files

        chosen = _options(EmbedOptions, options)
        if paths is None:
            return embed(self.workspace, chosen, data=_path(data)).embeddings
        if chosen != replace(EmbedOptions(), streams=chosen.streams) or data is not None:
            raise UsageError("with paths, embed takes `streams` only")
        return embed_files(self.workspace, _list(paths), streams=chosen.streams)

    def fuse(self, *, data: str | Path | None = None, **options: Any) -> dict[str, Any]:
        """Fit the SVM and the anomaly detector; return the report.

        Args:
            data: folder the paths of videos are relative to; None: the one that was indexed.
            options: fields of `tristream.fuse.FuseOptions`.

        Raises:
            UsageError: no embeddings, an unknown label, detector or setting.
        """
        from tristream.fuse import FuseOptions, fuse

        return fuse(self.workspace, _options(FuseOptions, options), data=_path(data))

    def cross_validate(self, *, data: str | Path | None = None, **options: Any) -> dict[str, Any]:
        """Test every labelled video once, by streams that have not seen its group; return the report.

        Args:
            data: folder the paths of videos are relative to; None: the one that was indexed.
            options: fields of `tristream.cross_validate.CrossValidateOptions`.

        Raises:
            UsageError: no column fold, fewer groups than folds, an unknown stream or setting.
        """
        from tristream.cross_validate import CrossValidateOptions, cross_validate

        return cross_validate(
            self.workspace, _options(CrossValidateOptions, options), data=_path(data)
        )

    def predict(self, paths: Paths, **options: Any) -> Results[Prediction]:
        """Return the action in video files; rejected files are in `.failures`.

        Args:
            paths: files, folders or patterns.
            options: fields of `tristream.predict.PredictOptions`; `more_runs` may be runs or folders.

        Raises:
            UsageError: no classifier, a stream trained since.
            TristreamError: a rejection limit that the validation videos cannot support.
        """
        from tristream.predict import PredictOptions, predict

        if "more_runs" in options:
            options["more_runs"] = tuple(Workspace.of(run) for run in options["more_runs"])
        return predict(self.workspace, _list(paths), _options(PredictOptions, options))

    def detect(
        self, paths: Paths, *, save: str | Path | None = None, **rule: Any
    ) -> Results[Detection] | Results[WindowedDetection]:
        """Return anomaly scores of video files; events if the detector scores windows.

        Args:
            paths: files, folders or patterns.
            save: folder for a clip and a picture of each event.
            rule: one field of `tristream.detect.ThresholdRule`.

        Raises:
            UsageError: no detector, a stream trained since.
            TristreamError: a threshold that the validation scores cannot support.
        """
        from tristream.detect import ThresholdRule, detect

        chosen = _options(ThresholdRule, rule)
        return detect(self.workspace, _list(paths), chosen, save=_path(save))

    def follow(self, source: str, **options: Any) -> Iterator[Notice | Alarm | LiveEvent]:
        """Yield alarms, events and notices of a live source until it ends.

        Args:
            source: growing file, pipe ("-"), camera device or URL.
            options: fields of `tristream.live.FollowOptions`.
        """
        from tristream.live import FollowOptions, follow

        return follow(self.workspace, source, _options(FollowOptions, options))

    def similar(self, video: str | Path, **options: Any) -> Results[Similar]:
        """Return the videos of the run that are most similar to one video.

        Args:
            video: video_id of the run, or any file.
            options: `n_videos`, `streams`, `split`.
        """
        from tristream.similar import similar

        return similar(self.workspace, video, **options)

    def report(self, **options: Any) -> Written:
        """Write the report as one HTML file.

        Args:
            options: fields of `tristream.make_report.ReportOptions`.
        """
        from tristream.make_report import ReportOptions, report

        return report(self.workspace, _options(ReportOptions, options))

    def state(self) -> State:
        """Return what the run holds, what is out of date, and the next command."""
        from tristream.state import state

        return state(self.workspace)


def _options(kind: type[Options], given: dict[str, Any]) -> Options:
    """Return an options object.

    Raises:
        UsageError: a field that it does not have.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise UsageError(f"unknown option '{name}'; available: {', '.join(known)}")
    return kind(**given)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _list(paths: Paths | str | Path) -> list[str | Path]:
    """Return the paths as a list; one path alone is a list of one."""
    return [paths] if isinstance(paths, str | Path) else list(paths)
