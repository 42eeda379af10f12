"""Timelines of videos from scores of windows and regions, and events with their streams and regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.anomaly.attribution import error_shares
from tristream.fusion.anomaly.events import Event, events

_SLACK_SECONDS = 1e-6  # times are sums of fractions


@dataclass(frozen=True, eq=False)
class Timeline:
    """Anomaly scores of one video, window by window.

    Attributes:
        start_seconds, stop_seconds: of each window.
        scores: of its most abnormal region.
        errors: of each stream there.
        region: number of that region.
        row: its row in the matrix.
    """

    video_id: str
    start_seconds: Float64[np.ndarray, " n"]
    stop_seconds: Float64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]
    errors: Float64[np.ndarray, "n streams"]
    region: Int64[np.ndarray, " n"]
    row: Int64[np.ndarray, " n"]

    @property
    def times(self) -> Float64[np.ndarray, " n"]:
        """Centres of the windows, seconds."""
        return (self.start_seconds + self.stop_seconds) / 2

    @property
    def window_seconds(self) -> float:
        """Length of the longest window."""
        lengths = self.stop_seconds - self.start_seconds
        return float(lengths.max()) if len(lengths) else 0.0

    @property
    def watched_seconds(self) -> float:
        """Seconds of the video that lie in some window; holes between windows do not count."""
        before = np.maximum.accumulate(np.concatenate([[-np.inf], self.stop_seconds[:-1]]))
        seen = self.stop_seconds - np.maximum(self.start_seconds, before[: len(self.scores)])
        return float(np.maximum(seen, 0.0).sum())

    def shares(self) -> Float64[np.ndarray, "n streams"]:
        """Share of each stream in a window's error, each row summing to 1."""
        return error_shares(self.errors, np.ones(self.errors.shape, bool))

    def at(self, instants: ArrayLike) -> Float64[np.ndarray, " m"]:
        """Return the score at any time: linear between the centres of windows, level beyond the first and the last."""
        return np.interp(np.asarray(instants, np.float64), self.times, self.scores)


@dataclass(frozen=True)
class CausedEvent:
    """An event and its cause.

    Attributes:
        event: times and peak score.
        shares: {stream: part of the squared error of the event's windows}, summing to 1.
        region: the most abnormal region at the peak.
        row: row of the matrix at the peak, for its nearest normal neighbours.
    """

    event: Event
    shares: dict[str, float]
    region: int
    row: int

    def streams(self, *, at_least: float) -> list[str]:
        """Return the streams with `at_least` this share, largest first, or the largest alone."""
        ordered = sorted(self.shares, key=lambda name: -self.shares[name])
        return [name for name in ordered if self.shares[name] >= at_least] or ordered[:1]


def timelines(
    video_ids: Sequence[str],
    start_seconds: ArrayLike,
    stop_seconds: ArrayLike,
    region: ArrayLike,
    scores: ArrayLike,
    errors: Float64[np.ndarray, "rows streams"],
) -> list[Timeline]:
    """Return one timeline per video, in order of first appearance; a window counts by its strongest region.

    Args:
        video_ids: of each row; a row is one region of one window.
        errors: per row and stream, as `stream_errors` gives them.
    """
    starts, stops, values = (
        np.asarray(x, np.float64) for x in (start_seconds, stop_seconds, scores)
    )
    regions = np.asarray(region, np.int64)
    rows_of: dict[str, dict[tuple[float, float], int]] = {}
    for row, video in enumerate(video_ids):
        best = rows_of.setdefault(video, {})
        key = (float(starts[row]), float(stops[row]))
        if key not in best or values[row] > values[best[key]]:
            best[key] = row
    lines = []
    for video, best in rows_of.items():
        rows = np.array([best[key] for key in sorted(best)], np.int64)
        lines.append(
            Timeline(
                video, starts[rows], stops[rows], values[rows], errors[rows], regions[rows], rows
            )
        )
    return lines


def caused_events(
    timeline: Timeline,
    threshold: float,
    streams: Sequence[str],
    *,
    hysteresis: float,
    min_seconds: float,
    hop_seconds: float | None = None,
) -> list[CausedEvent]:
    """Return the events of a video, each with its causes; they end at holes between windows.

    The event of a video with a single window lasts as long as the window.

    Args:
        streams: names of the columns of `errors`.
        hysteresis, min_seconds, hop_seconds: as in `events`.
    """
    found = events(
        timeline.times,
        timeline.scores,
        threshold,
        hysteresis=hysteresis,
        min_seconds=0.0,
        window_seconds=timeline.window_seconds,
        hop_seconds=hop_seconds,
    )
    caused = []
    for event in found:
        if len(timeline.scores) == 1:
            event = Event(
                float(timeline.start_seconds[0]),
                float(timeline.stop_seconds[0]),
                event.peak_seconds,
                event.peak_score,
            )
        if event.stop_seconds - event.start_seconds < min_seconds - 1e-9:
            continue
        inside = (timeline.times >= event.start_seconds) & (timeline.times <= event.stop_seconds)
        total = timeline.errors[inside].sum(axis=0)
        shares = error_shares(total[None], np.ones((1, len(total)), bool))[0]
        peak = int(np.argmin(np.abs(timeline.times - event.peak_seconds)))
        caused.append(
            CausedEvent(
                event,
                dict(zip(streams, shares.tolist(), strict=True)),
                int(timeline.region[peak]),
                int(timeline.row[peak]),
            )
        )
    return caused


def to_json(
    timeline: Timeline,
    caused: Sequence[CausedEvent],
    streams: Sequence[str],
    *,
    path: str,
    labels: Sequence[tuple[float, float]] | None,
    nearest: Sequence[Sequence[str]],
    regions: Sequence[str],
) -> dict[str, Any]:
    """Return one video of timelines.json."""
    shares = timeline.shares()
    return {
        "video_id": timeline.video_id,
        "path": path,
        "times": np.round(timeline.times, 4).tolist(),
        "scores": np.round(timeline.scores, 6).tolist(),
        "shares": {name: np.round(shares[:, s], 4).tolist() for s, name in enumerate(streams)},
        "labels": None if labels is None else [list(pair) for pair in labels],
        "events": [
            event_json(one, near, regions) for one, near in zip(caused, nearest, strict=True)
        ],
    }


def event_json(
    caused: CausedEvent, nearest: Sequence[str], regions: Sequence[str]
) -> dict[str, Any]:
    """Return one event for files and for --json."""
    event = caused.event
    return {
        "start_seconds": round(event.start_seconds, 3),
        "stop_seconds": round(event.stop_seconds, 3),
        "peak_seconds": round(event.peak_seconds, 3),
        "peak_score": round(event.peak_score, 6),
        "shares": {name: round(share, 4) for name, share in caused.shares.items()},
        "region": regions[caused.region],
        "nearest": list(nearest),
    }


def frame_labels(
    intervals: Sequence[tuple[float, float]], instants: ArrayLike
) -> Int64[np.ndarray, " m"]:
    """Return 1 for the instants that lie inside an interval [start, stop), else 0."""
    at = np.asarray(instants, np.float64)
    inside = np.zeros(len(at), np.int64)
    for start, stop in intervals:
        inside |= ((at >= start) & (at < stop)).astype(np.int64)
    return inside


def intervals_of(flags: ArrayLike, *, step_seconds: float) -> list[tuple[float, float]]:
    """Return the runs of 1 in a list of 0 and 1, one value for each `step_seconds`, as [start, stop) in seconds."""
    edges = np.diff(np.concatenate([[0], np.asarray(flags, np.int64), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [
        (float(a) * step_seconds, float(b) * step_seconds)
        for a, b in zip(starts, stops, strict=True)
    ]


def mapping_of(labels: Any, known: Sequence[str]) -> Mapping[str, list[tuple[float, float]]]:
    """Return {video_id: abnormal intervals} from the content of a JSON file.

    Raises:
        TristreamError: another shape, a video that is not known, an interval that ends before it begins.
    """
    if not isinstance(labels, dict):
        raise TristreamError(
            f"frame labels are a {type(labels).__name__}; they must be {{video_id: [[start, stop], …]}}"
        )
    intervals: dict[str, list[tuple[float, float]]] = {}
    for video, pairs in labels.items():
        if video not in known:
            raise TristreamError(
                f"frame labels name '{video}', which is not a video of the run (one is '{known[0]}')"
            )
        if not isinstance(pairs, list) or not all(
            isinstance(p, list) and len(p) == 2 for p in pairs
        ):
            raise TristreamError(
                f"frame labels of '{video}' are {pairs!r}; they must be [[start, stop], …] in seconds"
            )
        intervals[video] = [(float(start), float(stop)) for start, stop in pairs]
        for start, stop in intervals[video]:
            if not 0 <= start < stop:
                raise TristreamError(
                    f"frame labels of '{video}' hold [{start:g}, {stop:g}); start must lie before stop"
                )
    return intervals
