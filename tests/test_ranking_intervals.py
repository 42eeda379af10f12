"""Intervals of AUROC, average precision and equal error rate cover what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tristream.fusion.evaluate import auroc
from tristream.fusion.ranking_intervals import auroc_interval, ranking_intervals


def _draw(rng, n_groups: int, size: int, distance: float, rho: float, mixed: bool):
    """Scores of as many abnormal as normal videos; videos of a group share a part rho of their variance."""
    groups = np.repeat(np.arange(2 * n_groups), size)
    labels = (np.arange(len(groups)) % 2 if mixed else groups % 2).astype(int)
    shared, own = rng.normal(size=2 * n_groups)[groups], rng.normal(size=len(groups))
    return labels, distance * labels + np.sqrt(rho) * shared + np.sqrt(1 - rho) * own, groups


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [5, 10, 30])
@pytest.mark.parametrize(
    ("size", "rho", "mixed"), [(1, 0.0, False), (5, 0.4, False), (6, 0.4, True)]
)
def test_the_interval_of_an_auroc_covers_the_truth(n_groups, size, rho, mixed) -> None:
    rng = np.random.default_rng(0)
    for distance in (0.5, 1.5):
        truth = norm.cdf(distance / np.sqrt(2))  # videos of two different groups
        covered = 0
        for _ in range(300):
            labels, scores, groups = _draw(rng, n_groups, size, distance, rho, mixed)
            found = auroc_interval(labels, scores, groups)
            covered += found.low <= truth <= found.high
        assert covered / 300 >= 0.93 - 2.5 * np.sqrt(0.93 * 0.07 / 300), distance


def test_with_one_video_a_group_the_error_is_delong_s() -> None:
    """A plain double loop over the placements of DeLong 1988."""
    rng = np.random.default_rng(1)
    labels, scores, groups = _draw(rng, 40, 1, 1.0, 0.0, False)
    above = (scores[labels == 1][:, None] > scores[labels == 0][None]).astype(float)
    variance = above.mean(1).var(ddof=1) / 40 + above.mean(0).var(ddof=1) / 40
    found = auroc_interval(labels, scores, groups)
    value = auroc(labels, scores)
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    half = (logit(found.high) - logit(found.low)) / 2
    from scipy.stats import t

    expected = t.ppf(0.975, 39) * np.sqrt(variance) / (value * (1 - value))
    assert half == pytest.approx(expected, rel=1e-9)


def test_perfect_separation_of_few_sources_is_not_certain() -> None:
    labels, scores = np.r_[np.zeros(6), np.ones(6)], np.arange(12.0)
    found = auroc_interval(labels, scores, np.arange(12))
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.5 < found.low < 0.7
    reverse = auroc_interval(1 - labels, scores, np.arange(12))
    assert (reverse.value, reverse.low) == (0.0, 0.0)


def test_one_source_of_a_kind_has_no_interval() -> None:
    found = auroc_interval([0, 0, 1, 1], [0.0, 1.0, 2.0, 0.5], ["a", "b", "c", "c"])
    assert np.isnan([found.low, found.high]).all()
    assert found.n_groups == 3


def test_the_bootstrapped_figures_need_20_sources_of_each_kind() -> None:
    rng = np.random.default_rng(2)
    few = ranking_intervals(*_draw(rng, 19, 1, 1.0, 0.0, False))
    many = ranking_intervals(*_draw(rng, 25, 1, 1.0, 0.0, False))
    for name in ("average_precision", "equal_error_rate"):
        assert np.isnan(few[name].low)
        assert many[name].low < many[name].value < many[name].high
