"""Figures with 95 % intervals over groups: videos cut from one source are not independent.

Below 60 groups a bootstrap is too narrow (it covers 44-50 % with two groups, 82-92 % with 5 to 10,
92.4 % with 50):
there a share has Wilson's interval with Student's t for the videos that the groups are worth, and any
other mean Student's t over groups. From 60 groups on intervals are percentiles of a bootstrap over
groups, above 10,000 groups the normal approximation.
"""

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
FEW_GROUPS = 60
LEAST_GROUPS = 5  # for the interval of one class
MANY_GROUPS = 10_000
CAUTION = 1.5  # times the estimated excess of the design effect, which few groups underestimate
BLOCK_BYTES = 64 << 20  # of drawn counts in memory at the same time


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
    """Return the mean of one value per video with its interval over groups.

    Where every video has the same value 0 or 1, each group counts as one trial of Wilson's interval.

    Raises:
        TristreamError: no videos; another number of groups than values.
    """
    values, index, n_groups = _by_group(values, groups)
    if n_groups < 2 or not np.isin(values, (0.0, 1.0)).all():
        return _any_mean(values, index, n_groups, seed, n_resamples)
    value = float(values.mean())
    if np.ptp(values) == 0 and value in (0.0, 1.0):
        low, high = wilson_interval(round(value * n_groups), n_groups)
        return Estimate(value, low, high, len(values), n_groups)
    if n_groups < FEW_GROUPS:
        n_worth = len(values) / (1 + CAUTION * (design_effect(values, index) - 1))
        low, high = _wilson(value, n_worth, _student(n_groups))
        return Estimate(value, low, high, len(values), n_groups)
    return _any_mean(values, index, n_groups, seed, n_resamples)


def _any_mean(
    values: np.ndarray, index: np.ndarray, n_groups: int, seed: int, n_resamples: int
) -> Estimate:
    """Return the mean of any values with its interval over groups."""
    value = float(values.mean())
    if n_groups < 2:
        return Estimate(value, float("nan"), float("nan"), len(values), n_groups)
    if n_groups < FEW_GROUPS or n_groups > MANY_GROUPS:
        half = _student(n_groups) * _standard_error(values, index, n_groups)
        return Estimate(value, value - half, value + half, len(values), n_groups)
    sums = np.bincount(index, weights=values, minlength=n_groups)
    sizes = np.bincount(index, minlength=n_groups).astype(np.float64)
    low, high = _percentiles(_resampled_means(sums, sizes, seed, n_resamples))
    return Estimate(value, low, high, len(values), n_groups)


def design_effect(values: ArrayLike, groups: ArrayLike) -> float:
    """Return the factor by which groups of similar videos widen the variance of a mean; at least 1.

    Source: Kish 1965, 1 + (m − 1) ρ, with the intraclass correlation of a one-way analysis of variance.
    """
    values, index, n_groups = _by_group(values, groups)
    n, sizes = len(values), np.bincount(index, minlength=n_groups)
    if n == n_groups or np.ptp(values) == 0:
        return 1.0
    if n_groups < 2:
        return float(n)
    means = np.bincount(index, weights=values) / sizes
    between = (sizes * (means - values.mean()) ** 2).sum() / (n_groups - 1)
    within = ((values - means[index]) ** 2).sum() / (n - n_groups)
    size = (n - (sizes**2).sum() / n) / (n_groups - 1)
    total = between + (size - 1) * within
    rho = (between - within) / total if total > 0 else 0.0
    return max(1.0, float(1 + ((sizes**2).sum() / n - 1) * rho))


def paired_difference(
    a: ArrayLike, b: ArrayLike, groups: ArrayLike, *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> Estimate:
    """Return the mean of a − b over the same videos, with its interval over groups.

    Where the difference is the same for every video (0, or one of ±1), the interval is what Wilson's
    leaves open about the share of videos on which it is another.

    Raises:
        TristreamError: a and b of different lengths; as `mean_interval`.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise TristreamError(
            f"a paired difference needs the same videos on both sides; got {len(a)} and {len(b)}"
        )
    value = float((a - b)[0]) if len(a) and np.ptp(a - b) == 0 else None
    if value in (-1.0, 0.0, 1.0):
        _, _, n_groups = _by_group(a, groups)
        if n_groups < 2:
            return Estimate(value, float("nan"), float("nan"), len(a), n_groups)
        _, most = _wilson(0.0, n_groups, _student(n_groups))
        # a video on which it is another changes the mean by 1 or by 2
        low, high = value - most * (1 + (value > 0)), value + most * (1 + (value < 0))
        return Estimate(value, max(-1.0, low), min(1.0, high), len(a), n_groups)
    return _any_mean(*_by_group(a - b, groups), seed, n_resamples)


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
    values = []
    for _ in range(n_resamples):
        rows = np.concatenate([members[group] for group in rng.integers(n_groups, size=n_groups)])
        try:
            values.append(float(statistic(rows)))
        except ValueError:
            continue
    low, high = _percentiles(np.array(values)) if values else (float("nan"), float("nan"))
    return Estimate(value, low, high, len(index), n_groups)


def wilson_interval(n_hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion of independent trials.

    Raises:
        TristreamError: no trials, or more hits than trials.
    """
    if not 0 <= n_hits <= n or n == 0:
        raise TristreamError(f"{n_hits} hits of {n} trials is no proportion")
    low, high = _wilson(n_hits / n, n, NormalDist().inv_cdf(0.5 + CONFIDENCE / 2))
    # exactly, whatever the rounding
    return (0.0 if n_hits == 0 else low), (1.0 if n_hits == n else high)


def _wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Return Wilson's score interval for n trials, which may be a fraction, and a quantile z."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _student(n_groups: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, n_groups - 1))


def _standard_error(values: np.ndarray, index: np.ndarray, n_groups: int) -> float:
    """Return the standard error of a mean over groups, at least that of independent videos."""
    n = len(values)
    sums = np.bincount(index, weights=values - values.mean(), minlength=n_groups)
    grouped = np.sqrt(n_groups / (n_groups - 1) * np.square(sums).sum()) / n
    return float(max(grouped, values.std() / np.sqrt(n)))


def _resampled_means(
    sums: np.ndarray, sizes: np.ndarray, seed: int, n_resamples: int
) -> Float[np.ndarray, "resamples"]:
    """Return the mean of each resample of groups; counts are drawn in blocks of bounded size."""
    rng, n_groups = np.random.default_rng(seed), len(sums)
    block = max(1, BLOCK_BYTES // (8 * n_groups))
    means = []
    for start in range(0, n_resamples, block):
        n = min(block, n_resamples - start)
        draws = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n).astype(float)
        means.append((draws @ sums) / (draws @ sizes))
    return np.concatenate(means)


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


def _percentiles(found: Float[np.ndarray, "resamples"]) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)
