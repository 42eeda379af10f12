from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.anomaly.thresholds import choose_threshold


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_a_quantile_holds_for_new_normal_videos_whatever_their_distribution(level: float) -> None:
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(2000):
        normal = rng.lognormal(sigma=2, size=40)
        alarms.append(rng.lognormal(sigma=2) >= choose_threshold(normal, level=level).value)
    assert np.mean(alarms) <= 1 - level + 0.01
    assert (
        np.mean(alarms) >= 1 - level - 0.04
    )  # (n + 1) level is rounded up: a little cautious at n = 40


def test_the_quantile_is_the_rank_of_conformal_prediction() -> None:
    threshold = choose_threshold(np.arange(1, 100), level=0.95)  # ceil(100 x .95) = 95th of 99
    assert threshold.value == pytest.approx(95)
    assert threshold.value > 95  # a score of 95 itself does not alarm
    assert threshold.remark == ""


def test_too_few_scores_for_a_quantile_are_said_to_be_too_few() -> None:
    threshold = choose_threshold([3.0, 1.0, 2.0], level=0.95)
    assert threshold.value == pytest.approx(3)
    assert "3 normal scores cannot support a quantile of 0.95, which needs 19" in threshold.remark
    assert "about 1 normal video in 4" in threshold.remark
    assert choose_threshold(np.arange(18), level=0.95).remark
    assert not choose_threshold(np.arange(19), level=0.95).remark


def test_mean_and_standard_deviations() -> None:
    assert choose_threshold([1.0, 3.0], rule="mean_sd", level=2.0).value == pytest.approx(4)


def test_a_budget_of_alarms_an_hour_is_kept_on_new_hours() -> None:
    rng = np.random.default_rng(0)
    threshold = choose_threshold(
        rng.normal(size=10 * 3600), rule="per_hour", level=6.0, hop_seconds=1.0
    )
    alarms = (rng.normal(size=100 * 3600) >= threshold.value).sum() / 100
    assert 4 <= alarms <= 7.5
    slow = choose_threshold(rng.normal(size=5 * 3600), rule="per_hour", level=6.0, hop_seconds=2.0)
    assert slow.value < threshold.value  # half the windows an hour: each may alarm twice as often


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="0 normal scores"):
        choose_threshold([])
    with pytest.raises(ValueError, match="a normal score is nan"):
        choose_threshold([1.0, np.nan])
    with pytest.raises(ValueError, match=r"quantile 95.0 is not between 0 and 1"):
        choose_threshold([1.0], level=95.0)
    with pytest.raises(
        ValueError, match=r"unknown threshold rule 'max'; available: quantile, mean_sd, per_hour"
    ):
        choose_threshold([1.0], rule="max")
    with pytest.raises(
        ValueError, match=r"1 alarms an hour cannot be set from 0.50 h of normal video; give 1.00 h"
    ):
        choose_threshold(np.ones(1800), rule="per_hour", level=1.0, hop_seconds=1.0)
    with pytest.raises(ValueError, match=r"2 alarms an hour with a hop of None s"):
        choose_threshold([1.0], rule="per_hour", level=2.0)
