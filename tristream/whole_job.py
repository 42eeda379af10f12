"""The whole job in one call: index, train every stream that the files have, embed, fuse, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tristream.embed import embed
from tristream.errors import UsageError
from tristream.fuse import FuseOptions, fuse
from tristream.index import IndexOptions, index
from tristream.make_report import report
from tristream.train_all import train_all
from tristream.train_stream import TrainOptions
from tristream.workspace import Workspace


@dataclass(frozen=True)
class JobOptions:
    """Choices of a whole job.

    Attributes:
        list_file: CSV of the videos; None: DATA/videos.csv, else folders of classes.
        preset, assignments: settings of training and fusion, as in `TrainOptions`.
        epochs: of every phase of every training; None: as the preset has it.
        normal: labels that are normal for the anomaly detector; as in `FuseOptions`.
        window_seconds: length of the windows that the detector scores; 0: whole videos.
        from_run: run whose trained streams are taken; None: they are trained here.
        seed: random seed.
    """

    list_file: Path | None = None
    preset: str = "light"
    assignments: Sequence[str] = ()
    epochs: int | None = None
    normal: Sequence[str] | None = None
    window_seconds: float = 0.0
    from_run: Workspace | None = None
    seed: int = 0


@dataclass(frozen=True)
class JobResult:
    """Result of a whole job.

    Attributes:
        streams: that were trained or taken.
        skipped: {stream: reason} of the others.
        verdict: sentences about accuracy, streams and anomalies.
        report: HTML file.
        n_rejected: videos that could not be used.
    """

    streams: tuple[str, ...]
    skipped: dict[str, str]
    verdict: str
    report: Path
    n_rejected: int

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON."""
        return {
            "streams": list(self.streams),
            "skipped": self.skipped,
            "verdict": self.verdict,
            "report": str(self.report),
            "n_rejected": self.n_rejected,
        }


def run_job(workspace: Workspace, data: str | Path, options: JobOptions | None = None) -> JobResult:
    """Run every step on a folder of videos; what is done already is not done again.

    Class folders give a classifier of actions, and a detector whose normal videos are all training
    videos or those of `normal`. An interrupted job resumes where it stopped.

    Args:
        workspace: of the run.
        data: folder of the videos.
        options: settings.

    Raises:
        UsageError: no videos; no labels and no run to take trained streams from.
    """
    options = options or JobOptions()
    chosen = IndexOptions(list_file=options.list_file, seed=options.seed)
    rows = index(workspace, data, chosen).manifest.rows
    is_labelled = len({row.label for row in rows if row.split == "train" and row.label}) > 1
    if options.from_run is None and not is_labelled:
        raise UsageError(
            f"{data} has no two classes to train on (a folder per class, or a list with labels); "
            "streams trained elsewhere can be used: --from RUN"
        )
    given = TrainOptions(
        preset=options.preset, assignments=tuple(options.assignments), seed=options.seed
    )
    trained = train_all(workspace, given, epochs=options.epochs, from_run=options.from_run)
    embedded = embed(workspace)
    fuse(
        workspace,
        FuseOptions(
            streams=list(trained.results),
            normal=options.normal,
            window_seconds=options.window_seconds,
            preset=options.preset,
            assignments=_shared(options.assignments),
            seed=options.seed,
        ),
    )
    written = report(workspace)
    return JobResult(
        tuple(trained.results),
        trained.skipped,
        _verdict(workspace),
        written.path,
        embedded.report["rejected"],
    )


def _shared(assignments: Sequence[str]) -> tuple[str, ...]:
    """Return the settings of the decision."""
    return tuple(word for word in assignments if word.startswith(("fusion.", "detector.")))


def _verdict(workspace: Workspace) -> str:
    """Return the verdict of the report as plain text."""
    from tristream.report import collect, verdict

    return " ".join(part.striptags() for part in verdict.verdict(collect.collect(workspace.folder)))
