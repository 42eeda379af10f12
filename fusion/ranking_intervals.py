"""95 % intervals of AUROC, average precision and equal error rate, over groups of videos."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import rankdata, t

from tristream.fusion.evaluate import auroc, average_precision, equal_error_rate
from tristream.fusion.intervals import CONFIDENCE, Estimate, statistic_interval, wilson_interval

LEAST_GROUPS = 20  # of each kind: with fewer, a bootstrap of these figures is too narrow


def auroc_interval(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> Estimate:
    """Return the AUROC with its interval over groups.

    The variance is that of Obuchowski for clustered data, which is DeLong's where each video is a
    group of its own; the interval is symmetric in the logit, with Student's t for the smaller number
    of groups that hold abnormal or normal videos. Where the two kinds are separated completely, the
    other end is Wilson's for as many trials as there are such groups.

    Args:
        labels: 1 abnormal, 0 normal.
        scores: higher is more anomalous.
        groups: source of each video.

    Returns:
        Estimate; NaN bounds if one of the kinds has one group only.

    Raises:
        TristreamError: as `auroc`.

    Source: Obuchowski 1997, Nonparametric analysis of clustered ROC curve data.
    """
    value = auroc(labels, scores)
    y, s = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    index = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups = int(index.max()) + 1
    n_abnormal, n_normal = (len(np.unique(index[kind])) for kind in (y, ~y))
    least = min(n_abnormal, n_normal)
    unknown = Estimate(value, float("nan"), float("nan"), len(y), n_groups)
    if least < 2:
        return unknown
    if value in (0.0, 1.0):
        low, high = wilson_interval(round(value) * least, least)
        return Estimate(value, low, high, len(y), n_groups)
    error = np.sqrt(_variance(y, s, index, value, (n_abnormal, n_normal)))
    half = t.ppf(0.5 + CONFIDENCE / 2, least - 1) * error / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half, half]))
    return Estimate(value, float(low), float(high), len(y), n_groups)


def _variance(
    y: np.ndarray, s: np.ndarray, index: np.ndarray, value: float, n_kind: tuple[int, int]
) -> float:
    """Return the variance of an AUROC over groups."""
    m, n = int(y.sum()), int((~y).sum())
    ranks = rankdata(s)
    # Share of the normal videos below each abnormal one, and of the abnormal ones above each normal.
    placed = np.empty(len(s))
    placed[y] = (ranks[y] - rankdata(s[y])) / n
    placed[~y] = 1 - (ranks[~y] - rankdata(s[~y])) / m
    deviation = placed - value
    n_groups = int(index.max()) + 1
    of_abnormal = np.bincount(index[y], weights=deviation[y], minlength=n_groups)
    of_normal = np.bincount(index[~y], weights=deviation[~y], minlength=n_groups)
    spread = np.square(of_abnormal).sum() * n_kind[0] / (n_kind[0] - 1) / m**2
    spread += np.square(of_normal).sum() * n_kind[1] / (n_kind[1] - 1) / n**2
    both = 2 * (of_abnormal * of_normal).sum() * n_groups / (n_groups - 1) / (m * n)
    independent = np.var(placed[y]) / m + np.var(placed[~y]) / n
    return float(max(spread + both, independent))


def _on_rows(
    statistic: Callable[[ArrayLike, ArrayLike], float], y: np.ndarray, s: np.ndarray
) -> Callable[[np.ndarray], float]:
    return lambda rows: statistic(y[rows], s[rows])


def ranking_intervals(
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    bootstrap: bool = True,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return "auroc", "average_precision" and "equal_error_rate" with their intervals.

    The last two have percentiles of a bootstrap over groups, and NaN bounds without `bootstrap` or
    below 20 groups of either kind. Average precision depends on the share of abnormal videos: its interval is for sets
    with this one's.

    Raises:
        TristreamError: as `auroc`.
    """
    y, s, groups = np.asarray(labels), np.asarray(scores, np.float64), np.asarray(groups)
    figures = {"auroc": auroc_interval(y, s, groups)}
    few = not bootstrap or min(len(np.unique(groups[y == kind])) for kind in (0, 1)) < LEAST_GROUPS
    for name, statistic in (
        ("average_precision", average_precision),
        ("equal_error_rate", equal_error_rate),
    ):
        if few:
            n_groups = figures["auroc"].n_groups
            value = statistic(y, s)
            figures[name] = Estimate(value, float("nan"), float("nan"), len(y), n_groups)
        else:
            figures[name] = statistic_interval(_on_rows(statistic, y, s), groups, seed=seed)
    return figures
