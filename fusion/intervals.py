"""Figures with their 95 % intervals, by resampling groups: videos cut from one source are not independent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike

from tristream.errors import TristreamError

N_RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; NaN bounds where there is one group only."""

    value: float
    low: float
    high: float
    n: int
    n_groups: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(
    values: ArrayLike, groups: ArrayLike, *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Estimate:
    """Mean of one value per video, with the percentile interval of a bootstrap over groups.

    Where every video has the same value (all right, say) no resample differs and the interval would have no width:
    for values in 0 … 1 Wilson's interval with one trial per group stands in.

    Raises:
        TristreamError: no videos; another number of groups than values.
    """
    values, index, n_groups = _by_group(values, groups)
    value = float(values.mean())
    if n_groups < 2:
        return Estimate(value, float("nan"), float("nan"), len(values), n_groups)
    if np.ptp(values) == 0 and value in (0.0, 1.0):
        low, high = wilson_interval(round(value * n_groups), n_groups)
        return Estimate(value, low, high, len(values), n_groups)
    sums = np.bincount(index, weights=values, minlength=n_groups)
    sizes = np.bincount(index, minlength=n_groups)
    draws = _draws(n_groups, seed, n_resamples)
    low, high = _percentiles((draws @ sums) / (draws @ sizes))
    return Estimate(value, low, high, len(values), n_groups)


def paired_difference(
    a: ArrayLike, b: ArrayLike, groups: ArrayLike, *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Estimate:
    """Mean of a − b over the same videos, with its interval; both sides of a resample see the same groups.

    Raises:
        TristreamError: a and b of different lengths; as `mean_interval`.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise TristreamError(
            f"a paired difference needs the same videos on both sides; got {len(a)} and {len(b)}"
        )
    if not (
        a - b
    ).any():  # equal on every video: a difference of exactly 0, which no Wilson interval is about
        _, _, n_groups = _by_group(a, groups)
        return Estimate(0.0, 0.0, 0.0, len(a), n_groups)
    return mean_interval(a - b, groups, seed=seed, n_resamples=n_resamples)


def statistic_interval(
    statistic: Callable[[np.ndarray], float],
    groups: ArrayLike,
    *,
    seed: int = 0,
    n_resamples: int = 500,
) -> Estimate:
    """Any figure of a set of videos, with its interval.

    Args:
        statistic: row numbers (with repeats) → the figure. A resample where it raises ValueError (an AUROC without
            abnormal videos, say) is left out.

    Raises:
        TristreamError: as `mean_interval`, or where `statistic` refuses the videos as they are.
    """
    _, index, n_groups = _by_group(np.zeros(len(np.asarray(groups))), groups)
    value = float(statistic(np.arange(len(index))))
    if n_groups < 2:
        return Estimate(value, float("nan"), float("nan"), len(index), n_groups)
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_resamples):
        rows = np.concatenate([members[group] for group in rng.integers(n_groups, size=n_groups)])
        try:
            found.append(float(statistic(rows)))
        except ValueError:
            continue
    low, high = _percentiles(np.array(found)) if found else (float("nan"), float("nan"))
    return Estimate(value, low, high, len(index), n_groups)


def wilson_interval(n_hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion of independent trials.

    Raises:
        TristreamError: no trials, or more hits than trials.
    """
    if not 0 <= n_hits <= n or n == 0:
        raise TristreamError(f"{n_hits} hits of {n} trials is no proportion")
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    share = n_hits / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return (0.0 if n_hits == 0 else low), (
        1.0 if n_hits == n else high
    )  # exactly, whatever the rounding


def _by_group(
    values: ArrayLike, groups: ArrayLike
) -> tuple[Float64[np.ndarray, "n"], np.ndarray, int]:
    values, groups = np.asarray(values, dtype=np.float64), np.asarray(groups)
    if len(values) != len(groups):
        raise TristreamError(
            f"{len(values)} values and {len(groups)} groups; each video has one of both"
        )
    if len(values) == 0:
        raise TristreamError("there are 0 videos; an interval needs some")
    names, index = np.unique(groups, return_inverse=True)
    return values, index, len(names)


def _draws(n_groups: int, seed: int, n_resamples: int) -> Float[np.ndarray, "resamples groups"]:
    """Number of times that each resample drew each group."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples).astype(
        np.float64
    )


def _percentiles(found: Float[np.ndarray, "resamples"]) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)
