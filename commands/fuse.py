"""tristream fuse: concatenate the streams, fit the SVM and the anomaly detector, say what each stream is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from commands import options, screen, settings
from commands.workspace import Workspace, chosen_streams, write_json

if TYPE_CHECKING:
    from fusion.ablation import Ablation
    from fusion.autoencoder import AutoencoderDetector
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
    normal_rows(fused, normal, "train")  # a label that is none is said before any work
    report: dict[str, Any] = {"streams": list(fused.columns), "n_videos": len(fused.rows), "spaces": fused.spaces}
    report["leaks"] = _say_leaks(fused)
    report["classification"] = _classify(workspace, fused, chosen, seed)
    report["detection"] = _detect(workspace, fused, chosen, normal, seed)
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


def normal_rows(fused: Fused, normal: str | None, split: str) -> tuple[np.ndarray, str]:
    """Which videos of a split count as normal, and the sentence that says by what.

    Raises:
        Mistake: a label that no training video has.
    """
    in_split = fused.of("split") == split
    if normal is not None:
        labels = [label.strip() for label in normal.split(",") if label.strip()]
        known = sorted({row.label for row in fused.rows if row.label})
        for label in labels:
            if label not in known:
                raise screen.Mistake(f"--normal: no video has the label '{label}'; there are {', '.join(known)}")
        return np.flatnonzero(in_split & np.isin(fused.of("label"), labels)), f"labels {', '.join(labels)}"
    said = np.array([row.anomaly is not None for row in fused.rows])
    if said[fused.of("split") == "train"].any():
        is_normal = np.array([row.anomaly == 0 for row in fused.rows])
        return np.flatnonzero(in_split & is_normal), "videos with anomaly = 0"
    return np.flatnonzero(in_split), f"all {split} videos (no --normal, no column anomaly)"


def fit_detector(fused: Fused, chosen: settings.Settings, normal: str | None, seed: int) -> AutoencoderDetector | None:
    """The autoencoder on normal training videos, its threshold from normal validation videos; or None."""
    from fusion.autoencoder import AutoencoderDetector

    train, by_what = normal_rows(fused, normal, "train")
    val, _ = normal_rows(fused, normal, "val")
    train, val = (rows[fused.masks[rows].any(axis=1)] for rows in (train, val))
    if len(train) < 2:
        screen.note(f"no anomaly detector: {len(train)} normal training videos ({by_what}); it needs 2 or more")
        return None
    detector = AutoencoderDetector(columns=fused.columns, random_state=seed, **chosen.detector.model_dump())
    detector.fit(fused.X[train], X_val=fused.X[val] if len(val) else None)
    screen.note(
        f"anomaly detector: normal are {by_what}, {len(train)} in train, {len(val)} in val; bottleneck "
        f"{detector.bottleneck_}, threshold {detector.threshold_.value:.3f} "
        f"(quantile {chosen.detector.quantile:g} of val)"
    )
    for remark in detector.remarks_:
        screen.warn(remark)
    return detector


def _detect(
    workspace: Workspace, fused: Fused, chosen: settings.Settings, normal: str | None, seed: int
) -> dict[str, Any] | None:
    """Fits and stores the detector; measures it where the test videos say what is abnormal."""
    from fusion import evaluate
    from store.checkpoint import save_artifact

    detector = fit_detector(fused, chosen, normal, seed)
    if detector is None:
        return None
    arrays, config = detector.to_arrays()
    save_artifact(workspace.fusion_dir / "detector", arrays, {**config, "spaces": fused.spaces})
    found: dict[str, Any] = {"bottleneck": detector.bottleneck_, "threshold": detector.threshold_.value}
    test = np.array([row.split == "test" and row.anomaly is not None for row in fused.rows]) & fused.masks.any(axis=1)
    abnormal = np.array([row.anomaly == 1 for row in fused.rows])[test]
    if not 0 < abnormal.sum() < test.sum():
        return found
    scores = detector.anomaly_score(fused.X[test])
    alarms = scores >= detector.threshold_.value
    found |= {
        "auroc": evaluate.auroc(abnormal, scores),
        "average_precision": evaluate.average_precision(abnormal, scores),
        "prevalence": float(abnormal.mean()),
        "equal_error_rate": evaluate.equal_error_rate(abnormal, scores),
        "hits": float(alarms[abnormal].mean()),
        "false_alarms": float(alarms[~abnormal].mean()),
    }
    screen.note(
        f"on {int(test.sum())} test videos ({int(abnormal.sum())} abnormal): AUROC {found['auroc']:.3f}, average "
        f"precision {found['average_precision']:.3f}, equal error rate {found['equal_error_rate']:.3f} (ROC "
        f"interpolation); at the threshold {100 * found['hits']:.0f} % of the abnormal and "
        f"{100 * found['false_alarms']:.0f} % of the normal alarm"
    )
    return found
