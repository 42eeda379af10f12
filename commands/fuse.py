"""tristream fuse: concatenate the streams, fit the SVM and the anomaly detector, say what each stream is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from tristream.commands import (
    fit_classifier,
    fit_detector,
    fit_windows,
    options,
    screen,
    settings,
    windows,
)
from tristream.commands.tables import read_tables, side_by_side
from tristream.commands.workspace import Workspace, chosen_streams, write_json
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.store.embeddings import EmbeddingTable
    from tristream.streams.model import TrainedStream


@screen.command
def run(
    data: options.Data = None,
    run: options.Run = options.RUN,
    stream_list: options.Streams = None,
    normal: Annotated[
        str | None,
        typer.Option(
            "--normal", metavar="LABEL,…", help="Labels that are normal, for the anomaly detector."
        ),
    ] = None,
    preset: options.Preset = "light",
    config: options.ConfigFile = None,
    assignments: options.Set = None,
    window: Annotated[
        float,
        typer.Option(
            "--window",
            min=0,
            help="Fit the detector on windows of so many seconds; 0: whole videos.",
        ),
    ] = 0.0,
    hop: Annotated[
        float | None,
        typer.Option("--hop", help="Seconds from one window to the next; default: half a window."),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(
            "--regions", metavar="ROWSxCOLUMNS", help="Cells each window's picture is cut into."
        ),
    ] = None,
    frame_labels: Annotated[
        Path | None,
        typer.Option(
            "--frame-labels",
            metavar="FILE.json",
            help="{video_id: [[start, stop], …]}, seconds: the truth.",
        ),
    ] = None,
    follow_links: options.FollowLinks = False,
    cache: options.CacheDir = options.CACHE,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    seed: options.Seed = 0,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Also show classes, confusions, hardest videos and rivals of the SVM."
        ),
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Concatenate the streams, fit the linear SVM and the anomaly detector, and say what each stream is worth.

    The SVM learns on train and is measured on test: every stream, every pair and all of them, with 95 % intervals. The
    detector learns on normal training videos; its threshold comes from normal validation videos. Normal are the labels
    of --normal; without it, what the column anomaly says; without that, every training video. With --window the
    detector learns on windows of the videos instead, and says when and why a video is abnormal (timelines.json).
    """
    chosen = settings.load(preset, config, assignments or ())
    workspace = Workspace(run, cache, limits=chosen.limits.to_limits(), follow_links=follow_links)
    workspace.check_writable(run)
    plan = windows.plan_of(window, hop, regions)
    rows = workspace.manifest(data).rows
    fit_detector.normal_rows(
        rows, normal, "train"
    )  # what is no label, no detector or no table is said before any work
    fit_detector.check_kind(chosen)
    labels = fit_windows.read_labels(frame_labels, rows)
    report: dict[str, Any] = {}
    if plan.seconds and not has_embeddings(workspace):
        screen.note(
            "no classifier: the videos have no embeddings (tristream embed); windows are embedded here"
        )
    else:
        fused = fused_embeddings(workspace, rows, chosen_streams(stream_list))
        report |= {
            "streams": list(fused.columns),
            "n_videos": len(fused.rows),
            "spaces": fused.spaces,
        }
        report["random_weights"] = workspace.random_weights(list(fused.columns))
        report["leaks"] = _say_leaks(fused, chosen.fusion.min_cosine)
        report["classification"] = fit_classifier.classify(
            workspace, fused, chosen, seed, verbose=verbose
        )
    if plan.seconds:
        report["detection"] = fit_windows.detect_windows(
            workspace, rows, chosen_streams(stream_list), plan, chosen, normal, labels=labels, seed=seed,
            device=device, workers=workers,
        )  # fmt: skip
    else:
        report["detection"] = fit_detector.detect(
            workspace, fused, chosen, normal, seed, workers=workers
        )
    write_json(workspace.fusion_dir / "report.json", report)
    screen.note(
        f"wrote {workspace.fusion_dir}; next: tristream report, predict FILE or detect FILE, with --run {run}"
    )
    screen.emit(report, as_json=as_json)
    return screen.OK


@dataclass(frozen=True)
class Head:
    """What the softmax layer that a stream was trained with says of the videos.

    Attributes:
        classes: it was trained to tell apart.
        logits: (n, classes), NaN throughout where a video lacks the stream.
    """

    classes: tuple[str, ...]
    logits: np.ndarray


@dataclass(frozen=True)
class Fused:
    """Embeddings of a run's videos side by side, and what videos.csv says of them.

    Attributes:
        rows: of videos.csv, those that have embeddings.
        X, masks, columns: as `fuse_tables` gives them.
        spaces: {stream: space_id}.
        heads: {stream: its own decision}.
    """

    rows: list[VideoRow]
    X: np.ndarray
    masks: np.ndarray
    columns: dict[str, slice]
    spaces: dict[str, str]
    heads: dict[str, Head] = field(default_factory=dict)

    def of(self, name: str) -> np.ndarray:
        """One column of videos.csv."""
        return np.array([getattr(row, name) for row in self.rows])


def has_embeddings(workspace: Workspace) -> bool:
    """Whether `embed` has been run since the streams were trained."""
    trained = workspace.load_streams(None)
    return all(
        workspace.embeddings_dir(stream.name, stream.space_id).exists() for stream in trained
    )


def fused_embeddings(
    workspace: Workspace, rows: Sequence[VideoRow], wanted: Sequence[str] | None
) -> Fused:
    """The embeddings of the run's streams in the spaces of its checkpoints, in the order of videos.csv.

    Raises:
        UsageError: a stream was trained but not embedded since, or there are embeddings of none of the videos.
    """
    from tristream.fusion.concatenate import fuse_tables

    streams = workspace.load_streams(wanted)
    tables = read_tables(workspace, {trained.name: trained.space_id for trained in streams})
    by_id = {row.video_id: row for row in rows}
    kept = [video for video in next(iter(tables.values())).video_id if video in by_id]
    if not kept:
        raise UsageError(
            f"no video of {workspace.manifest_path} has embeddings; run tristream embed --run {workspace.run}"
        )
    tables = side_by_side(tables, kept, workspace.run)
    X, masks, columns = fuse_tables(tables)
    spaces = {name: table.space_id for name, table in tables.items()}
    heads = {trained.name: _own_decision(trained, tables[trained.name]) for trained in streams}
    return Fused([by_id[video] for video in kept], X, masks, columns, spaces, heads)


def _own_decision(trained: TrainedStream, table: EmbeddingTable) -> Head:
    import torch

    logits = np.full((len(table), len(trained.classes)), np.nan)
    with torch.inference_mode():
        found = trained.model.classifier(torch.from_numpy(table.embedding[table.present]))
    logits[table.present] = found.double().numpy()
    return Head(trained.classes, logits)


def _say_leaks(fused: Fused, min_cosine: float) -> list[str]:
    from tristream.fusion.action.leaks import check_splits

    leaks = check_splits(
        video_ids=list(fused.of("video_id")),
        splits=list(fused.of("split")),
        labels=list(fused.of("label")),
        groups=list(fused.of("group")),
        content_ids=list(fused.of("content_id")),
        embeddings=fused.X,
        columns=fused.columns,
        min_cosine=min_cosine,
    )
    for leak in leaks:
        screen.warn(leak.words)
    return [leak.words for leak in leaks]
