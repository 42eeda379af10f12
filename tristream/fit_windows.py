"""Anomaly detector of `fuse --window`: windows of normal videos, and timelines of the test videos."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.errors import UsageError
from tristream.files import write_json
from tristream.fit_detector import (
    fit_rivals,
    has_both,
    hold_out,
    measured,
    normal_rows,
    note_fit,
    truth_of_test,
)
from tristream.progress import Progress
from tristream.settings import Settings
from tristream.stored_detector import NormalRows, StoredDetector, as_float, fit_stored, region_rows
from tristream.windows import (
    WindowSet,
    embed_windows,
    side_by_side,
    window_spaces,
    write_windows,
)
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.fusion.anomaly.normal_scores import NormalScores
    from tristream.fusion.anomaly.window_scores import CausedEvent, Timeline
    from tristream.streams.windows import WindowPlan

Labels = Mapping[str, Sequence[tuple[float, float]]]
INSTANTS_PER_SECOND = 10  # at which frame-level figures compare scores with labels


@dataclass(frozen=True)
class WindowOptions:
    """Choices of a detector of windows.

    Attributes:
        plan: length, hop and regions.
        settings: section [detector].
        streams: trained streams to use; None: all.
        normal: labels that are normal; None: by the column anomaly, else all training videos.
        labels: abnormal intervals of test videos, for measuring.
        seed: random seed.
    """

    plan: WindowPlan
    settings: Settings
    streams: Sequence[str] | None = None
    normal: Sequence[str] | None = None
    labels: Labels | None = None
    seed: int = 0


def detect_windows(
    workspace: Workspace, rows: Sequence[VideoRow], options: WindowOptions
) -> dict[str, Any] | None:
    """Embed windows, fit and store the detector, and write and measure the timelines of the test videos."""
    plan, chosen, normal, seed = options.plan, options.settings, options.normal, options.seed
    labels, progress = options.labels, workspace.progress
    train, by_what = normal_rows(rows, normal, "train")
    val, _ = normal_rows(rows, normal, "val")
    tested_ids = [row.video_id for row in rows if row.split == "test"]
    if not len(train):
        progress.note(f"no anomaly detector: 0 normal training videos ({by_what}); it needs some")
        return None
    if not len(val):
        train, val = hold_out(rows, train, progress)
    trained = workspace.load_streams(options.streams)
    reading = workspace.reading_from(workspace.manifest().root)
    used = [rows[row] for row in (*train.tolist(), *val.tolist())] + [
        row for row in rows if row.split == "test"
    ]
    results = embed_windows(reading, used, trained, plan)
    write_windows(workspace, results, trained, plan)
    whole = side_by_side(results, trained)
    in_train, in_val = (
        np.isin(whole.video_id, [rows[row].video_id for row in part]) for part in (train, val)
    )
    if in_train.sum() < 2:
        progress.note(
            f"no anomaly detector: {len(train)} normal training videos ({by_what}) have {int(in_train.sum())} windows "
            f"of {plan.seconds:g} s with a stream; it needs 2 or more"
        )
        return None
    parts = [
        NormalRows(whole.X[rows], list(whole.video_id[rows]), whole.region[rows])
        for rows in (in_train, in_val)
    ]
    stored = fit_stored(
        parts[0],
        parts[1],
        whole.columns,
        chosen.detector,
        plan=plan,
        spaces=window_spaces(trained, plan),
        seed=seed,
    )
    _set_threshold(stored, whole, in_val, in_train, chosen)
    n_rows = int(in_train.sum()), int(in_val.sum())
    note_fit(progress, stored, by_what, n_rows, f"windows of {plan.seconds:g} s")
    stored.save(workspace)
    by_id = {row.video_id: row for row in rows}
    lines = scored(stored, whole, np.isin(whole.video_id, tested_ids))
    write_timelines(workspace, stored, whole, lines, by_id, labels)
    figures: dict[str, Any] = {
        "kind": stored.kind,
        "bottleneck": getattr(stored.detector, "bottleneck_", None),
        "threshold": stored.detector.threshold_.value,
        "windows": plan.identity(),
    }
    rivals = fit_rivals(
        whole.X[in_train], whole.X[in_val], whole.columns, chosen, seed, but=stored.kind
    )
    rival_lines = {stored.kind: lines}
    tested = np.isin(whole.video_id, tested_ids)
    for name, rival in rivals.items():
        rival_lines[name] = _lines(stored, whole, tested, rival(whole.X[tested]))
    if np.isfinite(whole.peak_motion[tested]).all() and tested.any():
        rival_lines["max |flow|"] = _lines(stored, whole, tested, whole.peak_motion[tested])
        if stored.extremes is not None:
            rival_lines["max |flow| by row"] = _lines(
                stored, whole, tested, _by_row(whole, plan, in_train, tested)
            )
    truth = truth_of_test(rows, normal, progress)
    sources = {row.video_id: row.group or row.video_id for row in rows}
    figures |= _measure(rival_lines, truth, labels, stored, sources, progress)
    return figures


def _by_row(
    whole: WindowSet, plan: WindowPlan, in_train: np.ndarray, tested: np.ndarray
) -> np.ndarray:
    """Return the motion of regions in units of the extreme in their row of the frame."""
    from tristream.fusion.anomaly.region_scale import row_extremes

    known = in_train & np.isfinite(whole.peak_motion)
    extremes = row_extremes(
        whole.peak_motion[known],
        region_rows(plan, whole.region[known]),
        2 * plan.regions[0] - 1,
        spread=1,
    )
    return whole.peak_motion[tested] / extremes[region_rows(plan, whole.region[tested])]


def scored(stored: StoredDetector, whole: WindowSet, rows: np.ndarray) -> list[Timeline]:
    """Return a timeline for each video that has rows among these."""
    return _lines(
        stored,
        whole,
        rows,
        stored.scores(whole.X[rows], whole.region[rows]) if rows.any() else np.zeros(0),
    )


def _lines(
    stored: StoredDetector, whole: WindowSet, rows: np.ndarray, scores: np.ndarray
) -> list[Timeline]:
    from tristream.fusion.anomaly.window_scores import timelines

    if not rows.any():
        return []
    lines = timelines(
        list(whole.video_id[rows]), whole.start_seconds[rows], whole.stop_seconds[rows], whole.region[rows], scores,
        stored.errors(whole.X[rows], whole.region[rows]),
    )  # fmt: skip
    place = np.flatnonzero(rows)
    for line in lines:
        line.row[:] = place[line.row]
    return lines


def _set_threshold(
    stored: StoredDetector,
    whole: WindowSet,
    in_val: np.ndarray,
    in_train: np.ndarray,
    chosen: Settings,
) -> None:
    """Set the thresholds from normal windows; a window counts by its strongest region, as in new videos."""
    from tristream.fusion.anomaly.pattern_units import masked_to, patterns

    if not in_val.any():
        stored.detector.remarks_.append(
            "no normal validation windows: the threshold comes from the windows trained on, and is too low"
        )
    rows = in_val if in_val.any() else in_train
    stored.val_scores = _normal_scores(stored, whole, rows)
    standardiser = stored.neighbours.standardiser_
    stored.pattern_scores = {}
    for pattern in patterns(standardiser):
        masked, having = masked_to(whole.X[rows], pattern, standardiser)
        if len(masked):
            alike = np.zeros(len(rows), bool)
            alike[np.flatnonzero(rows)[having]] = True
            stored.pattern_scores[pattern] = _normal_scores(stored, whole, alike, masked)
    stored.set_rule(*chosen.detector.rule())


def _normal_scores(
    stored: StoredDetector, whole: WindowSet, rows: np.ndarray, X: np.ndarray | None = None
) -> NormalScores:
    """Return the scores of windows in their own units, by video.

    Args:
        X: the rows, masked; None: as they are.
    """
    from tristream.fusion.anomaly.normal_scores import NormalScores
    from tristream.fusion.anomaly.window_scores import timelines

    X = whole.X[rows] if X is None else X
    region = whole.region[rows]
    lines = timelines(
        list(whole.video_id[rows]), whole.start_seconds[rows], whole.stop_seconds[rows], region,
        stored.own_scores(X, region), stored.errors(X, region),
    )  # fmt: skip
    return NormalScores(
        np.concatenate([line.scores for line in lines]),
        np.repeat(np.arange(len(lines)), [len(line.scores) for line in lines]),
        np.concatenate([line.times for line in lines]),
    )


def events_of(stored: StoredDetector, line: Timeline, threshold: float) -> list[CausedEvent]:
    """Return the events of one video under the detector's rule of events."""
    from tristream.fusion.anomaly.window_scores import caused_events

    return caused_events(
        line, threshold, list(stored.spaces), hysteresis=stored.hysteresis * abs(threshold),
        min_seconds=stored.min_seconds, hop_seconds=stored.plan.hop_seconds,
    )  # fmt: skip


def write_timelines(
    workspace: Workspace,
    stored: StoredDetector,
    whole: WindowSet,
    lines: Sequence[Timeline],
    by_id: Mapping[str, VideoRow],
    labels: Labels | None,
) -> None:
    """Write RUN/fusion/timelines.json: scores, shares and events of the test videos; the report draws it."""
    from tristream.fusion.anomaly.window_scores import to_json

    threshold, streams = stored.detector.threshold_.value, list(stored.spaces)
    regions = [cell.name for cell in stored.plan.cells()]
    videos = []
    for line in lines:
        caused = events_of(stored, line, threshold)
        at = [event.row for event in caused]
        nearest = stored.nearest(whole.X[at], whole.region[at])
        videos.append(
            to_json(
                line, caused, streams, path=str(by_id[line.video_id].path),
                labels=None if labels is None else labels.get(line.video_id, []), nearest=nearest, regions=regions,
            )
        )  # fmt: skip
    write_json(
        workspace.fusion_dir / "timelines.json",
        {
            "window_seconds": stored.plan.seconds,
            "hop_seconds": stored.plan.hop_seconds,
            "threshold": threshold,
            "video_threshold": threshold
            if stored.video_threshold is None
            else stored.video_threshold.value,
            "streams": streams,
            "videos": videos,
        },
    )


def _measure(
    lines: Mapping[str, Sequence[Timeline]],
    truth: Mapping[str, bool],
    labels: Labels | None,
    stored: StoredDetector,
    sources: Mapping[str, str],
    progress: Progress,
) -> dict[str, Any]:
    """Measure videos by their highest score, and frames and events where labels give times."""
    figures: dict[str, Any] = {}
    own = lines[stored.kind]
    known = [n for n, line in enumerate(own) if line.video_id in truth]
    abnormal = np.array([truth[own[n].video_id] for n in known], bool)
    if has_both(abnormal, progress):
        highest = {
            name: np.array([timelines[n].scores.max() for n in known])
            for name, timelines in lines.items()
        }
        figures |= {"n_test": len(known), "n_abnormal": int(abnormal.sum())}
        groups = [sources[own[n].video_id] for n in known]
        figures["rivals"] = {
            name: measured(abnormal, scores, groups, bootstrap=name == stored.kind)
            for name, scores in highest.items()
        }
        figures |= figures["rivals"][stored.kind]
    if labels is not None:
        figures |= _frames(lines, labels) | _events(own, labels, stored, progress)
    return figures


def _frames(lines: Mapping[str, Sequence[Timeline]], labels: Labels) -> dict[str, Any]:
    from tristream.fusion.anomaly.window_scores import frame_labels
    from tristream.fusion.evaluate import frame_auroc

    step = 1 / INSTANTS_PER_SECOND
    figures = {}
    for name, timelines in lines.items():
        instants = [
            np.arange(line.start_seconds.min() + step / 2, line.stop_seconds.max(), step)
            for line in timelines
        ]
        truth = [
            frame_labels(labels.get(line.video_id, []), at)
            for line, at in zip(timelines, instants, strict=True)
        ]
        if not 0 < sum(map(np.sum, truth)) < sum(map(len, truth)):
            return {}
        auroc = frame_auroc(
            truth, [line.at(at) for line, at in zip(timelines, instants, strict=True)]
        )
        figures[name] = {
            "micro": auroc.micro,
            "macro": as_float(auroc.macro),
            "n_undefined": auroc.n_undefined,
        }
    return {"frames": figures}


def _events(
    lines: Sequence[Timeline], labels: Labels, stored: StoredDetector, progress: Progress
) -> dict[str, Any]:
    from tristream.fusion.anomaly.events import match_events

    threshold = stored.detector.threshold_.value
    n_true = n_hits = n_false = 0
    delays: list[float] = []
    watched = sum(line.watched_seconds for line in lines)
    for line in lines:
        events = [caused.event for caused in events_of(stored, line, threshold)]
        match = match_events(
            events,
            list(labels.get(line.video_id, [])),
            watched_seconds=max(line.watched_seconds, 1e-9),
        )
        n_true, n_hits, n_false = (
            n_true + match.n_true,
            n_hits + match.n_hits,
            n_false + match.n_false,
        )
        delays += match.seconds_to_alarm
    delay = float(np.median(delays)) if delays else None
    progress.note(
        f"events at {threshold:.3f}: {n_hits} of {n_true} found, {n_false} false alarms in {watched / 3600:.3f} h "
        f"({n_false * 3600 / watched:.1f} an hour)"
        + (f", alarm after {delay:.2f} s (median)" if delay is not None else "")
    )
    return {
        "events": {
            "n_true": n_true,
            "n_hits": n_hits,
            "n_false": n_false,
            "watched_seconds": watched,
            "false_per_hour": n_false * 3600 / watched,
            "median_seconds_to_alarm": delay,
        }
    }


def read_labels(path: Path | None, rows: Sequence[VideoRow]) -> Labels | None:
    """Return the abnormal intervals of --frame-labels FILE.json.

    Raises:
        UsageError: it is no JSON.
        TristreamError: as `mapping_of`.
    """
    from tristream.fusion.anomaly.window_scores import mapping_of

    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--frame-labels {path} is not JSON: {error}") from error
    return mapping_of(content, [row.video_id for row in rows])
