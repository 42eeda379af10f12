"""Events with a start and a stop from a score per window, and their match with the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tristream.errors import TristreamError


@dataclass(frozen=True)
class Event:
    """A run of abnormal windows; seconds on the video's own clock, [start, stop)."""

    start_seconds: float
    stop_seconds: float
    peak_seconds: float
    peak_score: float


def events(
    times: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    *,
    hysteresis: float,
    min_seconds: float,
    window_seconds: float = math.inf,
    hop_seconds: float | None = None,
) -> list[Event]:
    """Return the runs of high score, in order.

    An event starts with the first score ≥ threshold and lasts until a score < threshold − hysteresis:

        score    .   .   5   4   3   .   .      threshold 5, hysteresis 2
        event          [-----------)            from half a step before the 5 to half a step after the 3

    It also ends at a hole, where two centres lie more than a window apart: nothing was seen in between.

    Args:
        times: centres of the windows in seconds, increasing.
        scores: anomaly score of each window.
        threshold: score at which an event starts.
        hysteresis: how far the score may fall below the threshold before the event ends.
        min_seconds: shorter events are skipped. Bounds lie half a step outside the first and last centre.
        window_seconds: length of a window; inf: nothing is a hole.
        hop_seconds: the step. None: the median step that is no hole, 0 where there is none, so that the only window of
            a video lasts 0 s.

    Raises:
        TristreamError: times and scores of different lengths; times that do not increase; values that are not finite; a
            negative hysteresis or min_seconds.
    """
    times, scores = np.asarray(times, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    _check(times, scores, hysteresis=hysteresis, min_seconds=min_seconds)
    steps = np.diff(times)
    largest = largest_step(window_seconds, hop_seconds)
    if hop_seconds is None:
        hop_seconds = float(np.median(steps[steps <= largest])) if (steps <= largest).any() else 0.0
    half = hop_seconds / 2
    runs = []
    for first, last in _runs(scores, threshold, threshold - hysteresis, steps > largest):
        start, stop = float(times[first]) - half, float(times[last]) + half
        if stop - start < min_seconds - 1e-9:
            continue
        peak = first + int(np.argmax(scores[first : last + 1]))
        runs.append(Event(start, stop, float(times[peak]), float(scores[peak])))
    return runs


def largest_step(window_seconds: float, hop_seconds: float | None = None) -> float:
    """Return the step between two centres above which there is a hole between the windows."""
    return max(window_seconds, hop_seconds or 0.0) + 1e-6


@dataclass(frozen=True)
class EventMatch:
    """Match of detected events with true ones.

    Attributes:
        n_hits: true events that a detected event overlaps; of `n_true`.
        n_false: detected events that overlap no true one.
        false_per_hour: those by the hours watched.
        seconds_to_alarm: for each true event that was hit, from its start to the start of the first event that
            overlaps it; 0 where that began earlier.
    """

    n_true: int
    n_hits: int
    n_false: int
    false_per_hour: float
    seconds_to_alarm: tuple[float, ...]


def match_events(
    found: Sequence[Event], true: Sequence[tuple[float, float]], *, watched_seconds: float
) -> EventMatch:
    """Return event-level figures of one video (or of several on one clock).

    Args:
        true: [start, stop) of each true event, seconds.
        watched_seconds: seconds of video that were scored.

    Raises:
        TristreamError: nothing watched.
    """
    if watched_seconds <= 0:
        raise TristreamError(f"{watched_seconds:g} s were watched; false alarms per hour need some")
    overlapping = [
        [e for e in found if e.start_seconds < stop and start < e.stop_seconds]
        for start, stop in true
    ]
    false = [e for e in found if not any(e in hits for hits in overlapping)]
    delays = tuple(
        max(0.0, min(e.start_seconds for e in hits) - start)
        for (start, _), hits in zip(true, overlapping, strict=True)
        if hits
    )
    return EventMatch(
        len(true), len(delays), len(false), len(false) * 3600 / watched_seconds, delays
    )


def _runs(scores: np.ndarray, start: float, end: float, holes: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of every run that begins at a score ≥ start, with all scores ≥ end and no hole inside.

    Args:
        holes: True where there is a hole between a score and the next.
    """
    runs, first = [], None
    for i, score in enumerate(scores.tolist()):
        if first is not None and (score < end or holes[i - 1]):
            runs.append((first, i - 1))
            first = None
        if first is None and score >= start:
            first = i
    if first is not None:
        runs.append((first, len(scores) - 1))
    return runs


def _check(times: np.ndarray, scores: np.ndarray, *, hysteresis: float, min_seconds: float) -> None:
    if times.shape != scores.shape or times.ndim != 1:
        raise TristreamError(
            f"times are {times.shape} and scores {scores.shape}; both must be one value per window"
        )
    if not (np.isfinite(times).all() and np.isfinite(scores).all()):
        bad = int(np.argmax(~(np.isfinite(times) & np.isfinite(scores))))
        raise TristreamError(
            f"window {bad} has time {times[bad]} and score {scores[bad]}; both must be finite"
        )
    if (np.diff(times) <= 0).any():
        bad = int(np.argmax(np.diff(times) <= 0))
        raise TristreamError(f"times must increase; {times[bad + 1]:g} s follows {times[bad]:g} s")
    if hysteresis < 0 or min_seconds < 0:
        raise TristreamError(
            f"hysteresis is {hysteresis:g} and min_seconds {min_seconds:g}; neither may be negative"
        )
