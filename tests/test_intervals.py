from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.evaluate import auroc
from tristream.fusion.intervals import (
    mean_interval,
    paired_difference,
    statistic_interval,
    wilson_interval,
)


def slow_bootstrap(values: np.ndarray, groups: np.ndarray, n_resamples: int = 4000) -> np.ndarray:
    rng, names = np.random.default_rng(9), np.unique(groups)
    means = [
        np.concatenate([values[groups == name] for name in rng.choice(names, len(names))]).mean()
        for _ in range(n_resamples)
    ]
    return np.percentile(means, [2.5, 97.5])


def correlated_hits(n_groups: int = 70, size: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Whole groups right or wrong together, of unequal sizes."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, size, n_groups))
    return (rng.random(n_groups) < 0.7)[groups].astype(float), groups


def test_the_interval_equals_a_plain_bootstrap_over_groups() -> None:
    hits, groups = correlated_hits()
    found = mean_interval(hits, groups)
    assert found.value == hits.mean()
    np.testing.assert_allclose([found.low, found.high], slow_bootstrap(hits, groups), atol=0.012)
    assert (found.n, found.n_groups) == (len(hits), 70)


def test_correlated_videos_widen_the_interval() -> None:
    hits, groups = correlated_hits()
    grouped, single = mean_interval(hits, groups), mean_interval(hits, np.arange(len(hits)))
    assert grouped.high - grouped.low > 1.4 * (single.high - single.low)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        found = mean_interval(rng.random(80) < 0.8, np.arange(80), seed=trial, n_resamples=400)
        covered += found.low <= 0.8 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_names_of_groups_do_not_matter() -> None:
    hits, groups = correlated_hits()
    assert mean_interval(hits, groups) == mean_interval(hits, [f"g{group:03d}" for group in groups])


def test_a_paired_difference_is_tighter_than_two_intervals() -> None:
    rng = np.random.default_rng(1)
    difficulty = rng.random(300)
    a, b = difficulty < 0.8, difficulty < 0.7  # b is right only where a is
    found = paired_difference(a, b, np.arange(300))
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.low > 0
    alone = mean_interval(a, np.arange(300))
    assert found.high - found.low < alone.high - alone.low
    same = paired_difference(a, a, np.arange(300))
    assert same.value == 0
    assert 0 < same.high == -same.low < 0.02  # on 300 videos without a difference


def test_all_right_has_the_width_of_wilson_s_interval_over_groups() -> None:
    found = mean_interval(np.ones(30), np.arange(30) // 3)
    assert (found.low, found.high) == wilson_interval(10, 10)
    assert found.low == pytest.approx(
        10 / (10 + 1.959964**2), abs=1e-6
    )  # closed form at a share of 1


def test_wilson_s_interval_holds_the_shares_whose_test_accepts_the_count() -> None:
    low, high = wilson_interval(16, 20)
    for share in (low, high):
        assert abs(0.8 - share) / np.sqrt(share * (1 - share) / 20) == pytest.approx(
            1.959964, abs=1e-5
        )


def test_any_statistic_gets_an_interval_and_impossible_resamples_are_left_out() -> None:
    labels, scores = np.array([0] * 12 + [1] * 2), np.r_[np.zeros(12), 1, 1]
    found = statistic_interval(
        lambda rows: auroc(labels[rows], scores[rows]), np.arange(14), n_resamples=100
    )
    assert (found.value, found.low, found.high) == (1, 1, 1)
    hits, groups = correlated_hits()
    plain = statistic_interval(lambda rows: hits[rows].mean(), groups, n_resamples=2000)
    fast = mean_interval(hits, groups)
    np.testing.assert_allclose([plain.low, plain.high], [fast.low, fast.high], atol=0.015)


def test_one_group_has_no_interval() -> None:
    found = mean_interval([0, 1, 1], ["g"] * 3)
    assert found.value == pytest.approx(2 / 3)
    assert np.isnan(found.low)
    assert np.isnan(statistic_interval(lambda rows: 1.0, ["g"] * 3).low)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="3 values and 2 groups"):
        mean_interval([1, 0, 1], [0, 1])
    with pytest.raises(ValueError, match="there are 0 videos"):
        mean_interval([], [])
    with pytest.raises(ValueError, match="same videos on both sides; got 3 and 2"):
        paired_difference([1, 0, 1], [0, 1], [0, 1, 2])
    with pytest.raises(ValueError, match="5 hits of 4 trials"):
        wilson_interval(5, 4)


def grouped_hits(rng, n_groups: int, size: int, share: float, rho: float) -> tuple:
    """Correct or not, with intraclass correlation rho: each group has a share of its own."""
    index = np.repeat(np.arange(n_groups), size)
    own = np.full(n_groups, share)
    if rho:
        scale = (1 - rho) / rho
        own = rng.beta(share * scale, (1 - share) * scale, size=n_groups)
    return index, own


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [2, 3, 5, 10, 20, 50])
def test_intervals_over_few_groups_cover_the_truth(n_groups: int) -> None:
    rng = np.random.default_rng(0)
    for size in (1, 4, 10):
        for share, rho in ((0.5, 0.0), (0.8, 0.0), (0.8, 0.3), (0.8, 0.6)):
            covered = 0
            for trial in range(300):
                index, own = grouped_hits(rng, n_groups, size, share, rho)
                hits = rng.random(len(index)) < own[index]
                found = mean_interval(hits, index, seed=trial, n_resamples=400)
                covered += found.low <= share <= found.high
            assert covered / 300 >= 0.93 - 2.5 * np.sqrt(0.93 * 0.07 / 300), (size, share, rho)


@pytest.mark.slow
@pytest.mark.parametrize("n_groups", [2, 3, 5, 10, 20, 50])
def test_a_difference_that_is_not_there_is_seldom_called_one(n_groups: int) -> None:
    rng = np.random.default_rng(1)
    for size in (1, 4, 10):
        for share, rho in ((0.5, 0.0), (0.8, 0.3), (0.95, 0.3)):
            false = 0
            for trial in range(300):
                index, own = grouped_hits(rng, n_groups, size, share, rho)
                a, b = (rng.random(len(index)) < own[index] for _ in range(2))
                b = np.where(rng.random(len(index)) < 0.6, a, b)
                found = paired_difference(a, b, index, seed=trial, n_resamples=400)
                false += found.low > 0 or found.high < 0
            assert false / 300 <= 0.06 + 2.5 * np.sqrt(0.06 * 0.94 / 300), (size, share, rho)


def test_twenty_thousand_groups_need_no_resample() -> None:
    hits = np.random.default_rng(0).random(40_000) < 0.8
    found = mean_interval(hits, np.arange(40_000) // 2)
    error = np.sqrt(0.16 / 40_000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_a_difference_that_is_one_in_every_video_keeps_a_width(value: float) -> None:
    """Ten sources, all of them right with one classifier and wrong with the other."""
    a = np.full(10, max(value, 0.0))
    found = paired_difference(a, 1 - a, np.arange(10))
    assert found.value == value
    assert 0.3 < found.high - found.low < 1
    assert found.low * found.high > 0  # ten of ten are no accident
    two = paired_difference(a[:2], 1 - a[:2], np.arange(2))
    assert two.low <= 0 <= two.high  # two of two may be
