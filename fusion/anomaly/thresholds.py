"""From scores of normal videos to the score at which to alarm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tristream.errors import TristreamError

RULES = ("quantile", "mean_sd", "per_hour")


@dataclass(frozen=True)
class Threshold:
    """An alarm threshold and how it came about.

    Attributes:
        value: alarm at score ≥ value.
        remark: what the reader must know about it; "" for nothing.
    """

    value: float
    rule: str
    level: float
    n: int
    remark: str = ""


def choose_threshold(
    scores: ArrayLike,
    *,
    rule: str = "quantile",
    level: float = 0.95,
    hop_seconds: float | None = None,
) -> Threshold:
    """Threshold from anomaly scores of normal videos that nothing was fitted on.

    Args:
        scores: higher = more anomalous.
        rule: 'quantile': at most 1 − level of normal videos alarm, in expectation (the ⌈(n + 1) level⌉-th smallest
            score is the last that does not: conformal prediction, so it holds for any distribution).
            'mean_sd': mean + level · standard deviation. 'per_hour': at most `level` alarming windows an hour.
        hop_seconds: seconds from one window to the next, for 'per_hour'. Neighbouring windows often alarm together,
            so there are fewer events than alarming windows.

    Raises:
        TristreamError: an unknown rule, no scores or scores that are not finite, a level out of range, or a budget of
            alarms per hour that so few hours of normal video cannot support.
    """
    scores = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(scores)
    if n == 0:
        raise TristreamError(
            "there are 0 normal scores; a threshold needs normal videos that were not trained on"
        )
    if not np.isfinite(scores).all():
        raise TristreamError(
            f"a normal score is {scores[~np.isfinite(scores)][0]}; scores must be finite"
        )
    if rule == "mean_sd":
        return Threshold(float(scores.mean() + level * scores.std()), rule, level, n)
    if rule == "quantile":
        if not 0 < level < 1:
            raise TristreamError(f"quantile {level} is not between 0 and 1")
        return _order_statistic(scores, level, rule, level)
    if rule == "per_hour":
        if hop_seconds is None or hop_seconds <= 0 or level <= 0:
            raise TristreamError(
                f"{level:g} alarms an hour with a hop of {hop_seconds} s: both must be above 0"
            )
        hours = n * hop_seconds / 3600
        if level * hours < 1:
            raise TristreamError(
                f"{level:g} alarms an hour cannot be set from {hours:.2f} h of normal video; "
                f"give {1 / level:.2f} h or more, or allow {1 / hours:.1f} an hour"
            )
        return _order_statistic(scores, max(0.0, 1 - level * hop_seconds / 3600), rule, level)
    raise TristreamError(f"unknown threshold rule '{rule}'; available: {', '.join(RULES)}")


def _order_statistic(scores: np.ndarray, quantile: float, rule: str, level: float) -> Threshold:
    n = len(scores)
    rank = math.ceil(
        (n + 1) * quantile - 1e-9
    )  # the rank-th smallest is the last score that must not alarm
    remark = ""
    if rank > n:
        wanted = math.ceil(quantile / (1 - quantile) - 1e-9)
        remark = (
            f"{n} normal scores cannot support a quantile of {quantile:g}, which needs {wanted}; "
            f"the threshold lies at the largest, and about 1 normal video in {n + 1} will exceed it"
        )
    last = scores[min(max(rank, 1), n) - 1]
    return Threshold(float(np.nextafter(last, np.inf)), rule, level, n, remark)
