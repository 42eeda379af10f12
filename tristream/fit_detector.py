"""Anomaly detector of `fuse`: fit it on normal videos, store it, and measure it beside baselines."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream import streams
from tristream.errors import UsageError
from tristream.fused import Fused
from tristream.progress import Progress
from tristream.settings import Settings
from tristream.stored_detector import (
    NormalRows,
    StoredDetector,
    fit_stored,
    thinned,
    threshold_words,
)
from tristream.videos import decode_pool, decoder, make_video
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.fusion.anomaly.detectors import Detector

MAX_RIVAL_ROWS = 2000  # normal rows that the plain rivals learn from; more are thinned evenly


def normal_rows(
    rows: Sequence[VideoRow], normal: Sequence[str] | None, split: str
) -> tuple[np.ndarray, str]:
    """Return the normal videos of a split, and words for the criterion.

    A row with anomaly = 1 is never normal.

    Raises:
        UsageError: a label that no video has.
    """
    in_split = np.array([row.split == split and row.anomaly != 1 for row in rows], bool)
    if normal:
        labels = normal_labels(rows, normal)
        is_normal = np.array([row.label in labels for row in rows], bool)
        return np.flatnonzero(in_split & is_normal), f"labels {', '.join(labels)}"
    if any(row.anomaly is not None and row.split == "train" for row in rows):
        is_normal = np.array([row.anomaly == 0 for row in rows], bool)
        return np.flatnonzero(in_split & is_normal), "videos with anomaly = 0"
    return np.flatnonzero(in_split), f"all {split} videos (no --normal, no column anomaly)"


def normal_labels(rows: Sequence[VideoRow], normal: Sequence[str] | None) -> list[str]:
    """Return the labels that the values of --normal name; a label with commas is taken whole.

    Raises:
        UsageError: a label that no video has.
    """
    known = sorted({row.label for row in rows if row.label})
    labels: list[str] = []
    for value in normal or ():
        parts = value.split(",")
        while parts:
            # The longest label first: of 'sit', 'walk' and 'sit, walk' the last is meant.
            for n in range(len(parts), 0, -1):
                label = ",".join(parts[:n]).strip()
                if label in known or n == 1:
                    break
            if label and label not in known:
                raise UsageError(
                    f"--normal: no video has the label '{label}'; there are "
                    f"{', '.join(known) or 'no labels'}"
                )
            labels += [label] if label and label not in labels else []
            parts = parts[n:]
    return labels


def truth_of_test(
    rows: Sequence[VideoRow], normal: Sequence[str] | None, progress: Progress
) -> dict[str, bool]:
    """Return {video_id: True for an anomaly} of the test videos with a known truth.

    The column `anomaly` is the truth. Where no test video has a value in it, the test videos with
    labels outside --normal are the anomalies.
    """
    tested = [row for row in rows if row.split == "test"]
    truth = {row.video_id: row.anomaly == 1 for row in tested if row.anomaly is not None}
    if truth or not normal:
        return truth
    labels = normal_labels(rows, normal)
    truth = {row.video_id: row.label not in labels for row in tested if row.label}
    if any(truth.values()):
        progress.note(
            f"no test video has a value in the column anomaly: the {sum(truth.values())} test "
            f"videos of labels other than {', '.join(labels)} count as anomalies"
        )
    return truth


def hold_out(
    rows: Sequence[VideoRow], train: np.ndarray, progress: Progress, *, least: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out every fifth group of the normal training videos, for the threshold.

    Args:
        rows: of videos.csv.
        train: numbers of the normal training videos.
        least: with fewer groups than this none is held out.

    Returns:
        Numbers to learn from, numbers to set the threshold on.
    """
    groups = list(dict.fromkeys(rows[row].group for row in train.tolist()))
    if len(groups) < least:
        return train, train[:0]
    held = np.isin([rows[row].group for row in train.tolist()], groups[4::5])
    progress.note(
        f"no normal validation videos: {int(held.sum())} of {len(train)} normal training videos "
        "are held out for the threshold"
    )
    return train[~held], train[held]


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
    if not len(val):
        train, val = hold_out(fused.rows, train, workspace.progress, least=10)
    parts = [
        NormalRows(fused.X[rows], [fused.rows[row].video_id for row in rows])
        for rows in (train, val)
    ]
    stored = fit_stored(
        parts[0],
        parts[1],
        fused.columns,
        chosen.detector,
        plan=WindowPlan(),
        spaces=fused.spaces,
        seed=seed,
    )
    # Fewer than 10 videos serve twice; `split_normal` has remarked it.
    set_normal(stored, fused.X[val if len(val) else train])
    stored.set_rule(*chosen.detector.rule())
    note_fit(workspace.progress, stored, by_what, (len(train), len(val)), "videos")
    stored.save(workspace)
    figures: dict[str, Any] = {
        "kind": stored.kind,
        "bottleneck": getattr(stored.detector, "bottleneck_", None),
        "threshold": stored.detector.threshold_.value,
    }
    truth = truth_of_test(fused.rows, normal, workspace.progress)
    test = np.flatnonzero(
        np.array([row.video_id in truth for row in fused.rows]) & fused.masks.any(axis=1)
    )
    abnormal = np.array([truth[fused.rows[row].video_id] for row in test], bool)
    if not has_both(abnormal, workspace.progress):
        return figures
    scores = stored.scores(fused.X[test], np.zeros(len(test), np.int64))
    alarms = scores >= stored.detector.threshold_.value
    groups = [fused.rows[row].group or fused.rows[row].video_id for row in test]
    figures |= measured(abnormal, scores, groups, seed=seed)
    figures |= {
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
    figures["rivals"] = {
        name: measured(abnormal, values, groups, bootstrap=False) for name, values in rivals.items()
    }
    figures |= {"n_test": len(test), "n_abnormal": int(abnormal.sum())}
    workspace.progress.note(
        f"at the threshold {100 * figures['hits']:.0f} % of the abnormal and "
        f"{100 * figures['false_alarms']:.0f} % of the normal alarm"
    )
    return figures


def set_normal(stored: StoredDetector, X: np.ndarray) -> None:
    """Store the scores of normal validation videos, as they are and masked to each pattern of streams."""
    from tristream.fusion.anomaly.normal_scores import NormalScores
    from tristream.fusion.anomaly.pattern_units import masked_copies

    score = stored.detector.anomaly_score
    stored.val_scores = NormalScores.of_videos(score(X))
    copies = masked_copies(X, stored.neighbours.standardiser_)
    stored.pattern_scores = {
        pattern: NormalScores.of_videos(score(rows)) for pattern, rows in copies.items()
    }


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
    if (video := stored.video_threshold) is not None:
        progress.note(
            f"a video with an event is abnormal by {threshold_words(video, what='videos')}"
        )
    for remark in stored.detector.remarks_:
        progress.warn(remark)


def has_both(abnormal: np.ndarray, progress: Progress) -> bool:
    """True if the labelled test videos are of both kinds; report it if they are of one."""
    n_abnormal = int(abnormal.sum())
    if len(abnormal) and n_abnormal in (0, len(abnormal)):
        kind = "abnormal" if n_abnormal else "normal"
        progress.note(
            f"all {len(abnormal)} test videos with a known truth are {kind}: how well the detector "
            "tells them apart is not measured, that needs both kinds"
        )
    return 0 < n_abnormal < len(abnormal)


def measured(
    abnormal: np.ndarray,
    scores: np.ndarray,
    groups: Sequence[str],
    *,
    bootstrap: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Return ranking figures of anomaly scores, with 95 % intervals over groups.

    An interval is [low, high], or None where there are too few groups for one.

    Args:
        abnormal: True for an abnormal video.
        scores: higher is more anomalous.
        groups: source of each video.
        bootstrap: also intervals of average precision and equal error rate, which take a second.
        seed: of the bootstrap.
    """
    from tristream.fusion import evaluate
    from tristream.fusion.ranking_intervals import ranking_intervals

    figures: dict[str, Any] = {
        "prevalence": float(np.mean(abnormal)),
        "fpr_at_95_tpr": evaluate.false_positive_rate_at_tpr(abnormal, scores),
        "n_groups": len(set(groups)),
    }
    for name, figure in ranking_intervals(
        abnormal, scores, groups, bootstrap=bootstrap, seed=seed
    ).items():
        bounds = [figure.low, figure.high]
        figures[name] = figure.value
        figures[f"{name}_interval"] = bounds if np.isfinite(bounds).all() else None
    return figures


def fit_rivals(
    X: np.ndarray,
    X_val: np.ndarray,
    columns: dict[str, slice],
    chosen: Settings,
    seed: int,
    *,
    but: str,
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Fit the baselines on the same normal rows; return {name: function from rows to scores}."""
    from tristream.fusion.anomaly import detectors

    rows = X[thinned(len(X), MAX_RIVAL_ROWS)]
    scorers: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    for kind in ("autoencoder", "pca", "knn"):
        if kind != but:
            rival = detectors.build(
                kind, columns=columns, seed=seed, combine=chosen.detector.combine,
                **chosen.detector.autoencoder(),
            )  # fmt: skip
            rival.fit(rows, X_val=X_val if len(X_val) else None)
            scorers[kind] = functools.partial(_scores_on_one_scale, rival)
    return scorers


def _scores_on_one_scale(rival: Detector, X: np.ndarray) -> np.ndarray:
    from tristream.fusion.anomaly.pattern_units import on_one_scale

    return on_one_scale(rival.anomaly_score(X), rival.limits(X), rival.threshold_.value)


def peak_motion(workspace: Workspace, rows: Sequence[VideoRow], names: Sequence[str]) -> np.ndarray:
    """Return the largest displacement of any pixel in each video, the plainest score; NaN without frames."""
    from tristream.media.reasons import Rejected
    from tristream.streams.segments import Absent

    peaks = np.full(len(rows), np.nan)
    seeing = [name for name in names if streams.stream_class(name).needs_pictures]
    if not seeing:
        return peaks
    trained, cache = workspace.load_streams(seeing), workspace.cache()
    with (
        decode_pool(workspace) as pool,
        workspace.progress.bar("motion of test videos", len(rows)) as move,
    ):
        decode = decoder(pool, workspace.reading_from(workspace.manifest().root).reading)
        for n, row in enumerate(rows):
            video = make_video(row, row.content_id, trained, decode=decode, cache=cache)
            with contextlib.suppress(Absent, Rejected):  # it stays NaN
                peaks[n] = video.peak_motion.max()
            video.forget()
            move()
    return peaks
