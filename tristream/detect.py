"""Anomaly scores and events of video files, by the detector of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tristream.decision import Decision
from tristream.errors import UsageError
from tristream.fit_windows import events_of, scored
from tristream.predict import embed_new
from tristream.results import Detection, Event, Results, WindowedDetection
from tristream.stored_detector import StoredDetector
from tristream.videos import expand_paths, given_rows
from tristream.windows import embed_windows, side_by_side, window_spaces
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.fusion.anomaly.window_scores import CausedEvent, Timeline
    from tristream.streams.model import TrainedStream
    from tristream.windows import WindowSet

STRONG_SHARE = 0.3  # a stream with at least this share of an event's error is named as its cause


@dataclass(frozen=True)
class ThresholdRule:
    """Threshold of one call; at most one field is set, none means the stored threshold.

    Attributes:
        threshold: anomaly score.
        quantile: of the normal validation scores.
        mean_sd: mean plus this many standard deviations of them.
        per_hour: budget of false alarms an hour, for windows.
    """

    threshold: float | None = None
    quantile: float | None = None
    mean_sd: float | None = None
    per_hour: float | None = None

    def __post_init__(self) -> None:
        options = {
            "--threshold": self.threshold,
            "--quantile": self.quantile,
            "--mean-sd": self.mean_sd,
            "--false-alarms-per-hour": self.per_hour,
        }
        given = [name for name, value in options.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} are different thresholds; give one of them")

    def value(self, workspace: Workspace, stored: StoredDetector) -> float:
        """Put the rule in force in `stored` and return the threshold.

        Raises:
            TristreamError: as `choose_threshold`.
        """
        if self.threshold is not None:
            return self.threshold
        rules = {"quantile": self.quantile, "mean_sd": self.mean_sd, "per_hour": self.per_hour}
        for rule, level in rules.items():
            if level is not None:
                stored.set_rule(rule, level)
                chosen = stored.detector.threshold_
                if chosen.remark:
                    workspace.progress.warn(chosen.remark)
                return chosen.value
        return stored.detector.threshold_.value


def detect(
    workspace: Workspace,
    paths: Sequence[str | Path],
    rule: ThresholdRule | None = None,
    *,
    save: Path | None = None,
) -> Results[Detection] | Results[WindowedDetection]:
    """Return anomaly scores of video files: events if the detector scores windows.

    Args:
        workspace: of the fused run.
        paths: files, folders or patterns.
        rule: another threshold than the stored one.
        save: folder for a clip and a picture of each event.

    Raises:
        UsageError: no detector, a stream trained since, `save` or precomputed flow that does not
            fit the detector.
        TristreamError: a threshold that the validation scores cannot support.
    """
    decision = Decision(workspace)
    stored = decision.detector
    limit = (rule or ThresholdRule()).value(workspace, stored)
    files = expand_paths(paths)
    if stored.plan.seconds:
        if workspace.reading.flow_from is not None:
            raise UsageError(
                "--flow-from is for whole videos; the run's detector scores windows, whose flow "
                "is estimated"
            )
        return _detect_windows(workspace, files, stored, limit, save)
    if save is not None:
        raise UsageError(
            "--save needs events; the run's detector scores whole videos: tristream fuse --window 2"
        )
    embeddings = embed_new(workspace, files, stored.spaces)
    detections = decision.detect(embeddings, threshold=limit)
    return Results(detections, embeddings.failures)


def check_spaces(
    workspace: Workspace, stored: StoredDetector, trained: Sequence[TrainedStream]
) -> None:
    """Raise UsageError for a stream that was trained again since the detector was fitted."""
    for name, space in window_spaces(trained, stored.plan).items():
        if space != stored.spaces[name]:
            raise UsageError(
                f"stream '{name}' is in space {space}, but the detector was fitted in "
                f"{stored.spaces[name]}; run tristream fuse --run {workspace.folder} again"
            )


def _detect_windows(
    workspace: Workspace,
    files: Sequence[Path],
    stored: StoredDetector,
    limit: float,
    save: Path | None,
) -> Results[WindowedDetection]:
    trained = workspace.load_streams(list(stored.spaces))
    check_spaces(workspace, stored, trained)
    root = workspace.data_root()
    rows = given_rows(files, root)
    typed = {row.video_id: str(path) for row, path in zip(rows, files, strict=True)}
    results = embed_windows(workspace.reading_from(root), rows, trained, stored.plan)
    whole = side_by_side(results, trained)
    every = np.ones(len(whole.video_id), bool)
    lines = {line.video_id: line for line in scored(stored, whole, every)}
    detections = []
    for row in rows:
        if (line := lines.get(row.video_id)) is None:
            continue
        detection = _detection(typed[row.video_id], stored, whole, line, limit)
        detections.append(detection)
        if save is not None and detection.events:
            from tristream.event_pictures import save_events

            events = [event.to_json() for event in detection.events]
            written = save_events(workspace, save, row.path, line, events, limit)
            workspace.progress.note(
                f"{detection.path}: {len(written)} files of {len(events)} events in {save}"
            )
    failures = {typed[r.source.video_id]: r.rejected_reason for r in whole.rejected}
    return Results(detections, failures)


def _detection(
    path: str, stored: StoredDetector, whole: WindowSet, line: Timeline, limit: float
) -> WindowedDetection:
    caused = events_of(stored, line, limit)
    at = [event.row for event in caused]
    nearest = stored.nearest(whole.X[at], whole.region[at])
    highest = float(line.scores.max())
    video_limit = limit
    if limit == stored.detector.threshold_.value:  # else the caller has given one score for both
        video_limit = stored.video_limit(whole.X[whole.video_id == line.video_id])
    return WindowedDetection(
        path=path,
        anomaly_score=round(highest, 6),
        threshold=round(limit, 6),
        abnormal=bool(caused) and highest >= video_limit,
        n_windows=len(line.scores),
        watched_seconds=round(line.watched_seconds, 3),
        events=tuple(_event(stored, one, near) for one, near in zip(caused, nearest, strict=True)),
        video_threshold=round(video_limit, 6),
    )


def _event(stored: StoredDetector, caused: CausedEvent, nearest: Sequence[str]) -> Event:
    return Event(
        start_seconds=round(caused.event.start_seconds, 3),
        stop_seconds=round(caused.event.stop_seconds, 3),
        peak_seconds=round(caused.event.peak_seconds, 3),
        peak_score=round(caused.event.peak_score, 6),
        shares={name: round(share, 4) for name, share in caused.shares.items()},
        streams=tuple(caused.streams(at_least=STRONG_SHARE)),
        region=stored.plan.cells()[caused.region].name,
        nearest=tuple(nearest),
    )
