"""tristream fuse: concatenate the streams, fit the SVM and the anomaly detector, say what each stream is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from commands import fit_detector, options, screen, settings
from commands.workspace import Workspace, chosen_streams, write_json

if TYPE_CHECKING:
    from fusion.ablation import Ablation
    from fusion.intervals import Estimate
    from media.manifest import VideoRow
    from store.embeddings import EmbeddingTable


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
    report["leaks"] = _say_leaks(fused)
    report["classification"] = _classify(workspace, fused, chosen, seed)
    report["detection"] = fit_detector.detect(workspace, fused, chosen, normal, seed)
    write_json(workspace.fusion_dir / "report.json", report)
    screen.note(f"wrote {workspace.fusion_dir}; next: tristream predict FILE, tristream detect FILE, with --run {run}")
    screen.emit(report, as_json=as_json)
    return screen.OK


@dataclass(frozen=True)
class Fused:
    """Embeddings of a run's videos side by side, and what videos.csv says of them.

    Attributes:
        rows: of videos.csv, those that have embeddings.
        X, masks, columns: as `fuse_tables` gives them.
        spaces: {stream: space_id}.
    """

    rows: list[VideoRow]
    X: np.ndarray
    masks: np.ndarray
    columns: dict[str, slice]
    spaces: dict[str, str]

    def of(self, name: str) -> np.ndarray:
        """One column of videos.csv."""
        return np.array([getattr(row, name) for row in self.rows])


def fused_embeddings(workspace: Workspace, rows: Sequence[VideoRow], wanted: Sequence[str] | None) -> Fused:
    """The embeddings of the run's streams in the spaces of its checkpoints, in the order of videos.csv.

    Raises:
        Mistake: a stream was trained but not embedded since, or there are embeddings of none of the videos.
    """
    from fusion.concatenate import fuse_tables
    from store import embeddings

    tables: dict[str, EmbeddingTable] = {}
    for trained in workspace.load_streams(wanted):
        name, space = trained.name, trained.space_id
        folder = workspace.embeddings_dir(name, space)
        if not folder.exists():
            other = sorted(path.name for path in folder.parent.glob("*"))
            stale = f" (there are embeddings of {other[0]}, of an earlier training)" if other else ""
            raise screen.Mistake(
                f"'{name}' has no embeddings in its space {space}{stale}; run tristream embed --run {workspace.run}"
            )
        tables[name] = embeddings.read(folder)
    by_id = {row.video_id: row for row in rows}
    kept = [video for video in next(iter(tables.values())).video_id if video in by_id]
    if not kept:
        raise screen.Mistake(
            f"no video of {workspace.manifest_path} has embeddings; run tristream embed --run {workspace.run}"
        )
    for name, table in tables.items():
        place = {video: index for index, video in enumerate(table.video_id)}
        lost = [video for video in kept if video not in place]
        if lost:
            raise screen.Mistake(
                f"embeddings disagree on videos: {len(lost)} of {len(kept)} are not in '{name}' (first: {lost[0]}); "
                f"embed every stream on the same videos.csv: tristream embed --run {workspace.run}"
            )
        tables[name] = table.take([place[video] for video in kept])
    X, masks, columns = fuse_tables(tables)
    spaces = {name: table.space_id for name, table in tables.items()}
    return Fused([by_id[video] for video in kept], X, masks, columns, spaces)


def _say_leaks(fused: Fused) -> list[str]:
    from fusion.leaks import check_splits

    leaks = check_splits(
        video_ids=list(fused.of("video_id")),
        splits=list(fused.of("split")),
        labels=list(fused.of("label")),
        groups=list(fused.of("group")),
        content_ids=list(fused.of("content_id")),
    )
    for leak in leaks:
        screen.warn(leak.words)
    return [leak.words for leak in leaks]


def _classify(workspace: Workspace, fused: Fused, chosen: settings.Settings, seed: int) -> dict[str, Any] | None:
    """Fits and stores the SVM, prints the table of streams; None where there are no two classes to tell apart."""
    from fusion.ablation import ablate
    from store.checkpoint import save_artifact

    labels, splits = fused.of("label"), fused.of("split")
    n_classes = len({label for label, split in zip(labels, splits, strict=True) if split == "train" and label})
    n_test = sum(split == "test" and label != "" for label, split in zip(labels, splits, strict=True))
    if n_classes < 2 or not n_test:
        screen.note(f"no classifier: {n_classes} class(es) in train, {n_test} labelled videos in test")
        return None
    found = ablate(
        fused.X,
        masks=fused.masks,
        columns=fused.columns,
        labels=labels,
        splits=splits,
        groups=fused.of("group"),
        l2=chosen.fusion.l2,
        reading=chosen.fusion.reading,
        seed=seed,
    )
    arrays, config = found.svm.to_arrays()
    config |= {"spaces": fused.spaces, "settings": chosen.to_json()["fusion"]}
    save_artifact(workspace.fusion_dir / "svm", arrays, config)
    show_ablation(found, n_classes)
    return _classification(found)


def show_ablation(found: Ablation, n_classes: int) -> None:
    """Accuracy of every subset of streams, and sentences on what helps."""
    rows = [
        ["+".join(r.streams), f"{100 * r.train_top1:.1f}", percent(r.test_top1), f"{100 * r.mean_class:.1f}",
         percent(r.test_top5) if r.test_top5 else "-"]
        for r in found.subsets
    ]  # fmt: skip
    n_test = found.subsets[-1].test_top1.n
    screen.table(
        f"Accuracy of the linear SVM, % [95 % interval]; {n_test} test videos, {n_classes} classes, "
        f"chance {100 / n_classes:.1f}",
        ["streams", "train top-1", "test top-1", "mean of classes", "test top-5"],
        rows,
        caption=f"hinge loss, l2 = {found.svm.l2:g} read as {found.svm.reading}: C = {found.svm.C_:.6g}; train is "
        "flattered: the BiGRU has fitted those videos",
    )
    for gain in found.gains:
        screen.note(
            f"without {gain.stream}: {points(gain.retrained)} retrained, {points(gain.withheld)} withheld at test"
        )
    screen.note(found.presence.words)
    for sentence in found.words:
        screen.warn(sentence)


def percent(estimate: Estimate) -> str:
    """An accuracy in %, with its interval."""
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(gain: Estimate) -> str:
    """What is lost without a stream, in points of accuracy."""
    value, low, high = (0.0 - round(100 * part, 1) for part in (gain.value, gain.high, gain.low))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}] points"


def _classification(found: Ablation) -> dict[str, Any]:
    def plain(estimate: Estimate | None) -> Any:
        return None if estimate is None else _finite(vars(estimate))

    return {
        "C": found.svm.C_,
        "reading": found.svm.reading,
        "subsets": {
            "+".join(r.streams): {
                "train_top1": r.train_top1,
                "test_top1": plain(r.test_top1),
                "test_top5": plain(r.test_top5),
                "mean_class": r.mean_class,
            }
            for r in found.subsets
        },
        "gains": {g.stream: {"retrained": plain(g.retrained), "withheld": plain(g.withheld)} for g in found.gains},
        "complete": plain(found.complete),
        "presence": {"accuracy": plain(found.presence.accuracy), "words": found.presence.words},
        "words": list(found.words),
    }


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """NaN is not JSON."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}
