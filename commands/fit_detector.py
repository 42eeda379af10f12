"""The anomaly half of tristream fuse: fits the detector on normal videos, stores it, measures it beside rivals."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream import streams
from tristream.commands import screen, settings
from tristream.commands.detector_store import StoredDetector, fit_stored, thinned, threshold_words
from tristream.commands.workspace import Workspace, decode_pool, decoder, make_video
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.commands.fuse import Fused
    from tristream.dataset.manifest import VideoRow

MAX_RIVAL_ROWS = 2000  # normal rows that the plain rivals learn from; more are thinned evenly


def normal_rows(rows: Sequence[VideoRow], normal: str | None, split: str) -> tuple[np.ndarray, str]:
    """Which videos of a split count as normal, and the sentence that says by what.

    Raises:
        UsageError: a label that no training video has.
    """
    in_split = np.array([row.split == split for row in rows], bool)
    if normal is not None:
        labels = [label.strip() for label in normal.split(",") if label.strip()]
        known = sorted({row.label for row in rows if row.label})
        for label in labels:
            if label not in known:
                raise UsageError(
                    f"--normal: no video has the label '{label}'; there are {', '.join(known) or 'no labels'}"
                )
        is_normal = np.array([row.label in labels for row in rows], bool)
        return np.flatnonzero(in_split & is_normal), f"labels {', '.join(labels)}"
    if any(row.anomaly is not None and row.split == "train" for row in rows):
        is_normal = np.array([row.anomaly == 0 for row in rows], bool)
        return np.flatnonzero(in_split & is_normal), "videos with anomaly = 0"
    return np.flatnonzero(in_split), f"all {split} videos (no --normal, no column anomaly)"


def check_kind(chosen: settings.Settings) -> None:
    """Refuses a detector that there is not.

    Raises:
        UsageError: there is none of that name, or it needs a library that is not installed.
    """
    from tristream.fusion.anomaly.detectors import check_kind

    try:
        check_kind(chosen.detector.kind)
    except (ValueError, ImportError) as error:
        raise UsageError(f"[detector] kind = '{chosen.detector.kind}': {error}") from error


def detect(
    workspace: Workspace,
    fused: Fused,
    chosen: settings.Settings,
    normal: str | None,
    seed: int,
    *,
    workers: int,
) -> dict[str, Any] | None:
    """Fits and stores the detector of whole videos; measures it where the test videos say what is abnormal."""
    from tristream.streams.windows import WindowPlan

    train, by_what = normal_rows(fused.rows, normal, "train")
    val, _ = normal_rows(fused.rows, normal, "val")
    train, val = (rows[fused.masks[rows].any(axis=1)] for rows in (train, val))
    if len(train) < 2:
        screen.note(
            f"no anomaly detector: {len(train)} normal training videos ({by_what}); it needs 2 or more"
        )
        return None
    ids = [fused.rows[row].video_id for row in train]
    stored = fit_stored(
        fused.X[train], fused.X[val], ids, fused.columns, chosen.detector, plan=WindowPlan(), spaces=fused.spaces,
        seed=seed,
    )  # fmt: skip
    if len(val):
        stored.val_scores = stored.detector.anomaly_score(fused.X[val])
        stored.set_rule(*chosen.detector.rule())
    else:
        stored.val_scores = stored.detector.anomaly_score(fused.X[train])
    say_fit(stored, by_what, len(train), len(val), "videos")
    stored.save(workspace)
    found: dict[str, Any] = {
        "kind": stored.kind,
        "bottleneck": getattr(stored.detector, "bottleneck_", None),
        "threshold": stored.detector.threshold_.value,
    }
    test = np.flatnonzero(
        np.array([row.split == "test" and row.anomaly is not None for row in fused.rows])
        & fused.masks.any(axis=1)
    )
    abnormal = np.array([fused.rows[row].anomaly == 1 for row in test], bool)
    if not has_both(abnormal):
        return found
    scores = stored.detector.anomaly_score(fused.X[test])
    alarms = scores >= stored.detector.threshold_.value
    found |= measured(abnormal, scores)
    found |= {
        "hits": float(alarms[abnormal].mean()),
        "false_alarms": float(alarms[~abnormal].mean()),
    }
    rivals = {stored.kind: scores}
    for kind, rival in fit_rivals(
        fused.X[train], fused.X[val], fused.columns, chosen, seed, but=stored.kind
    ).items():
        rivals[kind] = rival(fused.X[test])
    peaks = peak_motion(workspace, [fused.rows[row] for row in test], list(fused.columns), workers)
    if np.isfinite(peaks).all():
        rivals["max |flow|"] = peaks
    found["rivals"] = show_rivals(
        rivals, abnormal, f"{len(test)} test videos, {int(abnormal.sum())} abnormal"
    )
    screen.note(
        f"at the threshold {100 * found['hits']:.0f} % of the abnormal and "
        f"{100 * found['false_alarms']:.0f} % of the normal alarm"
    )
    return found


def say_fit(stored: StoredDetector, by_what: str, n_train: int, n_val: int, what: str) -> None:
    """What the detector learned from, and what is odd about it."""
    screen.note(
        f"anomaly detector ({stored.kind}): normal are {by_what}, {n_train} {what} in train, {n_val} in val; "
        + threshold_words(stored.detector.threshold_, what=what)
    )
    for remark in stored.detector.remarks_:
        screen.warn(remark)


def has_both(abnormal: np.ndarray) -> bool:
    """Whether there are normal and abnormal test videos to tell apart; says so where there is one kind only."""
    n_abnormal = int(abnormal.sum())
    if len(abnormal) and n_abnormal in (0, len(abnormal)):
        kind = "abnormal" if n_abnormal else "normal"
        screen.note(
            f"all {len(abnormal)} test videos whose column anomaly says something are {kind}: how well the detector "
            "tells them apart is not measured, that needs both kinds"
        )
    return 0 < n_abnormal < len(abnormal)


def measured(abnormal: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """How well scores tell abnormal from normal."""
    from tristream.fusion import evaluate

    return {
        "auroc": evaluate.auroc(abnormal, scores),
        "average_precision": evaluate.average_precision(abnormal, scores),
        "prevalence": float(np.mean(abnormal)),
        "equal_error_rate": evaluate.equal_error_rate(abnormal, scores),
        "fpr_at_95_tpr": evaluate.false_positive_rate_at_tpr(abnormal, scores),
    }


def fit_rivals(
    X: np.ndarray,
    X_val: np.ndarray,
    columns: dict[str, slice],
    chosen: settings.Settings,
    seed: int,
    *,
    but: str,
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The detectors that always stand beside the chosen one, fitted on the same normal rows: name → scores of rows."""
    from tristream.fusion.anomaly import detectors

    rows = X[thinned(len(X), MAX_RIVAL_ROWS)]
    found = {}
    for kind in ("autoencoder", "pca", "knn"):
        if kind != but:
            rival = detectors.build(
                kind, columns=columns, seed=seed, **chosen.detector.autoencoder()
            )
            found[kind] = rival.fit(rows, X_val=X_val if len(X_val) else None).anomaly_score
    return found


def show_rivals(
    scores: Mapping[str, np.ndarray], abnormal: np.ndarray, what: str
) -> dict[str, dict[str, float]]:
    """A table of detectors; returns it."""
    found = {name: measured(abnormal, values) for name, values in scores.items()}
    screen.table(
        f"What is abnormal? {what}",
        ["detector", "AUROC", "average precision", "equal error rate", "FPR at 95 % TPR"],
        [
            [name, f"{m['auroc']:.3f}", f"{m['average_precision']:.3f}", f"{m['equal_error_rate']:.3f}",
             f"{m['fpr_at_95_tpr']:.3f}"]
            for name, m in found.items()
        ],
        caption=f"prevalence {np.mean(abnormal):.3f}: the average precision of chance; equal error rate by "
        "interpolation of the ROC curve",
    )  # fmt: skip
    return found


def peak_motion(
    workspace: Workspace, rows: Sequence[VideoRow], names: Sequence[str], workers: int
) -> np.ndarray:
    """Largest displacement of any pixel in each video: the plainest anomaly score; NaN without pictures."""
    from tristream.media.reasons import Rejected
    from tristream.streams.segments import Absent

    found = np.full(len(rows), np.nan)
    seeing = [name for name in names if streams.stream_class(name).needs_pictures]
    if not seeing:
        return found
    trained = workspace.load_streams(seeing)[0]
    root, cache = workspace.manifest(None).root, workspace.cache()
    with (
        decode_pool(workers, workspace.limits) as pool,
        screen.progress("motion of test videos", len(rows)) as move,
    ):
        decode = decoder(pool, root, follow_links=workspace.follow_links)
        for n, row in enumerate(rows):
            video = make_video(
                row, row.content_id, decode=decode, cache=cache, data=trained.data, sampler=trained.sampler,
                stream_names=seeing,
            )  # fmt: skip
            with contextlib.suppress(Absent, Rejected):  # it stays NaN
                found[n] = video.peak_motion.max()
            video.forget()
            move()
    return found
