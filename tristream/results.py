"""Results of predicting and detecting, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


class Results(list[T]):
    """Results of the usable videos, in the order in which they were given.

    Attributes:
        failures: {path as given: reason code} of the rejected videos.
    """

    def __init__(self, values: Sequence[T] = (), failures: Mapping[str, str] | None = None) -> None:
        super().__init__(values)
        self.failures = dict(failures or {})


@dataclass(frozen=True)
class Choice:
    """One class and how well it fits.

    Attributes:
        label: class.
        score: margin of the SVM, any real number; of an ensemble, the probability.
        probability: calibrated; None without calibration.
    """

    label: str
    score: float
    probability: float | None = None

    def to_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"label": self.label, "score": self.score}
        return entry if self.probability is None else {**entry, "probability": self.probability}


@dataclass(frozen=True)
class SegmentLabel:
    """Label that a stream's own softmax layer gives one segment.

    Attributes:
        start_seconds, stop_seconds: of the segment, half-open.
        label: most probable class.
        probability: of the softmax, not calibrated.
    """

    start_seconds: float
    stop_seconds: float
    label: str
    probability: float

    def to_json(self) -> dict[str, Any]:
        return {
            "start_seconds": round(self.start_seconds, 3),
            "stop_seconds": round(self.stop_seconds, 3),
            "label": self.label,
            "probability": round(self.probability, 6),
        }


@dataclass(frozen=True)
class Prediction:
    """Action in one video.

    Attributes:
        path: as given.
        label: class of the largest margin; None without a usable stream or below the limit.
        not_sure: True below the limit of `max_error`.
        top: classes, best first.
        streams, masked: streams that were used and that were not.
        n_runs: runs that voted; None without an ensemble.
        calibrated_for: set of streams, as "audio+spatial", that the probabilities were calibrated
            for; None: margins, an ensemble, or no validation video with these streams.
        seen_in_training: True if a run was trained on a file with the same bytes.
        segments: {stream: label of each segment}; None: not asked for.
    """

    path: str
    label: str | None
    not_sure: bool
    top: tuple[Choice, ...]
    streams: tuple[str, ...]
    masked: tuple[str, ...]
    n_runs: int | None = None
    calibrated_for: str | None = None
    seen_in_training: bool = False
    segments: Mapping[str, tuple[SegmentLabel, ...]] | None = None

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "path": self.path,
            "label": self.label,
            "not_sure": self.not_sure,
            "top": [choice.to_json() for choice in self.top],
            "streams": list(self.streams),
            "masked": list(self.masked),
            "calibrated_for": self.calibrated_for,
        }
        if self.segments is not None:
            values["segments"] = {
                name: [each.to_json() for each in labels] for name, labels in self.segments.items()
            }
        if self.n_runs is not None:
            values["n_runs"] = self.n_runs
        return {**values, "seen_in_training": True} if self.seen_in_training else values


@dataclass(frozen=True)
class Event:
    """Stretch of a video that is abnormal.

    Attributes:
        start_seconds, stop_seconds: [start, stop) of its windows.
        peak_seconds, peak_score: of its most abnormal window.
        shares: {stream: part of the squared error}, summing to 1.
        streams: those that caused it, largest share first.
        region: media fragment of the most abnormal part of the frame; "" for the whole frame.
        nearest: most similar normal training videos.
    """

    start_seconds: float
    stop_seconds: float
    peak_seconds: float
    peak_score: float
    shares: Mapping[str, float]
    streams: tuple[str, ...]
    region: str = ""
    nearest: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "start_seconds": self.start_seconds,
            "stop_seconds": self.stop_seconds,
            "peak_seconds": self.peak_seconds,
            "peak_score": self.peak_score,
            "shares": dict(self.shares),
            "region": self.region,
            "nearest": list(self.nearest),
            "streams": list(self.streams),
        }


@dataclass(frozen=True)
class Detection:
    """Anomaly score of one video.

    Attributes:
        path: as given.
        anomaly_score: higher is more anomalous; of windows, the highest.
        threshold: score at which an alarm starts.
        abnormal: True at or above the threshold.
        shares: {stream: part of the error}, summing to 1 over the streams that are present.
        masked: streams that the video lacks.
        nearest: most similar normal training videos.
    """

    path: str
    anomaly_score: float
    threshold: float
    abnormal: bool
    shares: Mapping[str, float] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "anomaly_score": self.anomaly_score,
            "threshold": self.threshold,
            "abnormal": self.abnormal,
            "shares": dict(self.shares),
            "masked": list(self.masked),
            "nearest": list(self.nearest),
        }


@dataclass(frozen=True)
class WindowedDetection:
    """Anomaly scores of the windows of one video.

    Attributes:
        path: as given.
        anomaly_score: of its most abnormal window.
        threshold: score at which an event starts.
        abnormal: True if there is an event and the score reaches the threshold of videos.
        n_windows: windows that have a score.
        watched_seconds: of the video that the windows cover.
        events: in the order of time.
        video_threshold: score at which the video is abnormal; None: `threshold`.
    """

    path: str
    anomaly_score: float
    threshold: float
    abnormal: bool
    n_windows: int
    watched_seconds: float
    events: tuple[Event, ...] = ()
    video_threshold: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "anomaly_score": self.anomaly_score,
            "threshold": self.threshold,
            "video_threshold": self.threshold
            if self.video_threshold is None
            else self.video_threshold,
            "abnormal": self.abnormal,
            "n_windows": self.n_windows,
            "watched_seconds": self.watched_seconds,
            "events": [event.to_json() for event in self.events],
        }
