"""tristream fuse: concatenate the streams, fit the SVM and the anomaly detector, say what each stream is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from commands import fit_classifier, fit_detector, options, screen, settings
from commands.tables import read_tables, side_by_side
from commands.workspace import Workspace, chosen_streams, write_json

if TYPE_CHECKING:
    from media.manifest import VideoRow
    from store.embeddings import EmbeddingTable
    from streams.model import TrainedStream


@screen.command
def run(
    data: options.Data = None,
    run: options.Run = options.RUN,
    stream_list: options.Streams = None,
    normal: Annotated[
        str | None,
        typer.Option("--normal", metavar="LABEL,…", help="Labels that are normal, for the anomaly detector."),
    ] = None,
    preset: options.Preset = "light",
    config: options.ConfigFile = None,
    assignments: options.Set = None,
    seed: options.Seed = 0,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also show classes, confusions, hardest videos and rivals of the SVM.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Concatenate the streams, fit the linear SVM and the anomaly detector, and say what each stream is worth.

    The SVM learns on train and is measured on test: every stream, every pair and all of them, with 95 % intervals. The
    detector learns on normal training videos; its threshold comes from normal validation videos. Normal are the labels
    of --normal; without it, what the column anomaly says; without that, every training video.
    """
    workspace = Workspace(run, options.CACHE)
    workspace.check_writable(run)
    chosen = settings.load(preset, config, assignments or ())
    fused = fused_embeddings(workspace, workspace.manifest(data).rows, chosen_streams(stream_list))
    fit_detector.normal_rows(fused, normal, "train")  # a label that is none is said before any work
    report: dict[str, Any] = {"streams": list(fused.columns), "n_videos": len(fused.rows), "spaces": fused.spaces}
    report["leaks"] = _say_leaks(fused, chosen.fusion.min_cosine)
    report["classification"] = fit_classifier.classify(workspace, fused, chosen, seed, verbose=verbose)
    report["detection"] = fit_detector.detect(workspace, fused, chosen, normal, seed)
    write_json(workspace.fusion_dir / "report.json", report)
    screen.note(f"wrote {workspace.fusion_dir}; next: tristream predict FILE, tristream detect FILE, with --run {run}")
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


def fused_embeddings(workspace: Workspace, rows: Sequence[VideoRow], wanted: Sequence[str] | None) -> Fused:
    """The embeddings of the run's streams in the spaces of its checkpoints, in the order of videos.csv.

    Raises:
        Mistake: a stream was trained but not embedded since, or there are embeddings of none of the videos.
    """
    from fusion.concatenate import fuse_tables

    streams = workspace.load_streams(wanted)
    tables = read_tables(workspace, {trained.name: trained.space_id for trained in streams})
    by_id = {row.video_id: row for row in rows}
    kept = [video for video in next(iter(tables.values())).video_id if video in by_id]
    if not kept:
        raise screen.Mistake(
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
    from fusion.leaks import check_splits

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
