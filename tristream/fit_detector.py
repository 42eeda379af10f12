"""The anomaly half of tristream fuse: fits the detector on normal videos, stores it, measures it beside rivals."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream import streams
from tristream.errors import UsageError
from tristream.fused import Fused
from tristream.progress import Progress
from tristream.settings import Settings
from tristream.stored_detector import StoredDetector, fit_stored, thinned, threshold_words
from tristream.videos import decode_pool, decoder, make_video
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow

MAX_RIVAL_ROWS = 2000  # normal rows that the plain rivals learn from; more are thinned evenly


def normal_rows(
    rows: Sequence[VideoRow], normal: Sequence[str] | None, split: str
) -> tuple[np.ndarray, str]:
    """Return the normal videos of a split, and words for the criterion.

    Raises:
        UsageError: a label that no video has.
    """
    in_split = np.array([row.split == split for row in rows], bool)
    if normal is not None:
        labels = _normal_labels(normal, sorted({row.label for row in rows if row.label}))
        is_normal = np.array([row.label in labels for row in rows], bool)
        return np.flatnonzero(in_split & is_normal), f"labels {', '.join(labels)}"
    if any(row.anomaly is not None and row.split == "train" for row in rows):
        is_normal = np.array([row.anomaly == 0 for row in rows], bool)
        return np.flatnonzero(in_split & is_normal), "videos with anomaly = 0"
    return np.flatnonzero(in_split), f"all {split} videos (no --normal, no column anomaly)"


def _normal_labels(given: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the labels that are given, each whole if it exists, else as a list with commas."""
    labels: list[str] = []
    for text in given:
        labels += (
            [text] if text in known else [part.strip() for part in text.split(",") if part.strip()]
        )
    for label in labels:
        if label not in known:
            raise UsageError(
                f"--normal: no video has the label '{label}'; there are "
                f"{', '.join(known) or 'no labels'}"
            )
    return list(dict.fromkeys(labels))


def check_kind(chosen: Settings) -> None:
    """Raise UsageError for an unknown detector, or one whose library is not installed."""
    from tristream.fusion.anomaly.detectors import check_kind

    try:
        check_kind(chosen.detector.kind)
    except (ValueError, ImportError) as error:
        raise UsageError(f"[detector] kind = '{chosen.detector.kind}': {error}") from error


def detect(
    workspace: Workspace,
    fused: Fused,
    chosen: Settings,
    normal: Sequence[str] | None,
    seed: int,
) -> dict[str, Any] | None:
    """Fit, store and measure the detector of whole videos; return its part of the report."""
    from tristream.streams.windows import WindowPlan

    train, by_what = normal_rows(fused.rows, normal, "train")
    val, _ = normal_rows(fused.rows, normal, "val")
    train, val = (rows[fused.masks[rows].any(axis=1)] for rows in (train, val))
    if len(train) < 2:
        workspace.progress.note(
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
    note_fit(workspace.progress, stored, by_what, (len(train), len(val)), "videos")
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
    if not has_both(abnormal, workspace.progress):
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
    peaks = peak_motion(workspace, [fused.rows[row] for row in test], list(fused.columns))
    if np.isfinite(peaks).all():
        rivals["max |flow|"] = peaks
    found["rivals"] = {name: measured(abnormal, values) for name, values in rivals.items()}
    found |= {"n_test": len(test), "n_abnormal": int(abnormal.sum())}
    workspace.progress.note(
        f"at the threshold {100 * found['hits']:.0f} % of the abnormal and "
        f"{100 * found['false_alarms']:.0f} % of the normal alarm"
    )
    return found


def note_fit(
    progress: Progress, stored: StoredDetector, by_what: str, n_rows: tuple[int, int], what: str
) -> None:
    """Report the rows that the detector learned from, its threshold and its remarks.

    Args:
        n_rows: normal rows in train and in val.
        what: what a row is: "videos", "windows of 2 s".
    """
    progress.note(
        f"anomaly detector ({stored.kind}): normal are {by_what}, {n_rows[0]} {what} in train, "
        f"{n_rows[1]} in val; {threshold_words(stored.detector.threshold_, what=what)}"
    )
    for remark in stored.detector.remarks_:
        progress.warn(remark)


def has_both(abnormal: np.ndarray, progress: Progress) -> bool:
    """True if the labelled test videos are of both kinds; report it if they are of one."""
    n_abnormal = int(abnormal.sum())
    if len(abnormal) and n_abnormal in (0, len(abnormal)):
        kind = "abnormal" if n_abnormal else "normal"
        progress.note(
            f"all {len(abnormal)} test videos whose column anomaly says something are {kind}: how well the detector "
            "tells them apart is not measured, that needs both kinds"
        )
    return 0 < n_abnormal < len(abnormal)


def measured(abnormal: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return ranking figures of anomaly scores."""
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
    chosen: Settings,
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


def peak_motion(workspace: Workspace, rows: Sequence[VideoRow], names: Sequence[str]) -> np.ndarray:
    """Largest displacement of any pixel in each video: the plainest anomaly score; NaN without pictures."""
    from tristream.media.reasons import Rejected
    from tristream.streams.segments import Absent

    found = np.full(len(rows), np.nan)
    seeing = [name for name in names if streams.stream_class(name).needs_pictures]
    if not seeing:
        return found
    trained, cache = workspace.load_streams(seeing), workspace.cache()
    with (
        decode_pool(workspace) as pool,
        workspace.progress.bar("motion of test videos", len(rows)) as move,
    ):
        decode = decoder(pool, workspace.reading_from(workspace.manifest().root).reading)
        for n, row in enumerate(rows):
            video = make_video(row, row.content_id, trained, decode=decode, cache=cache)
            with contextlib.suppress(Absent, Rejected):  # it stays NaN
                found[n] = video.peak_motion.max()
            video.forget()
            move()
    return found
