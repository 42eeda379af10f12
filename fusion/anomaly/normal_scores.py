"""Anomaly scores of normal validation videos or windows, by video, and the events in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import ArrayLike

from tristream.fusion.anomaly.events import largest_step


@dataclass(frozen=True)
class EventRule:
    """Rule that makes events of windows.

    Attributes:
        hop_seconds, window_seconds: of the windows.
        hysteresis: share of the threshold that a score may fall below it before the event ends.
        min_seconds: shorter events do not count.
    """

    hop_seconds: float
    window_seconds: float
    hysteresis: float = 0.0
    min_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class NormalScores:
    """Scores that thresholds come from.

    Attributes:
        values: higher = more anomalous.
        video: number of the video of each score; windows of one video are not exchangeable.
        times: centre of each window in seconds, increasing within a video; 0 for whole videos.
    """

    values: Float64[np.ndarray, " n"]
    video: Int64[np.ndarray, " n"]
    times: Float64[np.ndarray, " n"]

    @classmethod
    def of_videos(cls, values: ArrayLike) -> NormalScores:
        """Scores of whole videos, one each."""
        scores = np.asarray(values, np.float64)
        return cls(scores, np.arange(len(scores)), np.zeros(len(scores)))

    @classmethod
    def of_one_source(cls, values: ArrayLike, hop_seconds: float) -> NormalScores:
        """Scores of consecutive windows of one source."""
        scores = np.asarray(values, np.float64)
        return cls(scores, np.zeros(len(scores), np.int64), hop_seconds * np.arange(len(scores)))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> NormalScores:
        """The inverse of `to_arrays`."""
        return cls(arrays[name], arrays[f"{name}.video"], arrays[f"{name}.times"])

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays for safetensors."""
        return {name: self.values, f"{name}.video": self.video, f"{name}.times": self.times}

    @property
    def n_videos(self) -> int:
        return len(np.unique(self.video))

    def maxima(self) -> Float64[np.ndarray, " videos"]:
        """Highest score of each video."""
        return np.array([self.values[self.video == video].max() for video in np.unique(self.video)])

    def design_effect(self, flags: Float64[np.ndarray, " n"]) -> float:
        """Return how many scores are worth one independent one, for the mean of `flags`; at least 1.

        1 + (m − 1) · ICC, with the intraclass correlation of one-way analysis of variance (Kish 1965; Donner 1986 for
        videos of unequal numbers of windows).
        """
        _, group = np.unique(self.video, return_inverse=True)
        sizes = np.bincount(group)
        n, n_videos = len(flags), len(sizes)
        if n_videos < 2 or n == n_videos:
            return 1.0
        means = np.bincount(group, flags) / sizes
        between = float((sizes * (means - flags.mean()) ** 2).sum()) / (n_videos - 1)
        within = float(((flags - means[group]) ** 2).sum()) / (n - n_videos)
        size = (n - float((sizes**2).sum()) / n) / (n_videos - 1)
        total = between + (size - 1) * within
        correlation = max(0.0, (between - within) / total) if total > 0 else 0.0
        return 1 + (size - 1) * correlation

    def events_at(self, threshold: float, rule: EventRule) -> Int64[np.ndarray, " videos"]:
        """Return the number of events of each video at a threshold; those that `events.events` finds."""
        _, group = np.unique(self.video, return_inverse=True)
        order = np.lexsort((self.times, group))
        scores, times, group = self.values[order], self.times[order], group[order]
        begins = _after_a_hole(times, group, largest_step(rule.window_seconds, rule.hop_seconds))
        low = threshold - rule.hysteresis * abs(threshold)
        # 1: in an event, 0: in none, −1: as the window before.
        code = np.where(scores >= threshold, 1, np.where((scores < low) | begins, 0, -1))
        last_known = np.maximum.accumulate(np.where(code >= 0, np.arange(len(code)), 0))
        inside = code[last_known] == 1
        before = np.concatenate([[False], inside[:-1]])
        follows = np.concatenate([inside[1:] & ~begins[1:], [False]])
        first = np.flatnonzero(inside & (begins | ~before))
        last = np.flatnonzero(inside & ~follows)
        lasts = times[last] - times[first] + rule.hop_seconds >= rule.min_seconds - 1e-9
        return np.bincount(group[first[lasts]], minlength=int(group.max(initial=-1)) + 1)


def _after_a_hole(
    times: Float64[np.ndarray, " n"], group: Int64[np.ndarray, " n"], largest: float
) -> Bool[np.ndarray, " n"]:
    """True for the first window of a video and for each that follows a hole."""
    begins = np.ones(len(times), bool)
    begins[1:] = (np.diff(group) != 0) | (np.diff(times) > largest)
    return begins
