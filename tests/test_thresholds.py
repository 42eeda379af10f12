from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tristream.fusion.anomaly.events import events
from tristream.fusion.anomaly.normal_scores import EventRule, NormalScores
from tristream.fusion.anomaly.thresholds import UnsupportedBudget, choose_threshold


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
    assert 3.5 <= alarms <= 6.5
    slow = choose_threshold(rng.normal(size=5 * 3600), rule="per_hour", level=6.0, hop_seconds=2.0)
    assert slow.value < threshold.value  # half the windows an hour: each may alarm twice as often
    assert threshold.n_events <= threshold.n_alarms


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
        ValueError,
        match=r"1 alarms an hour cannot be set from 0.50 h of normal video; give 2.30 h or more, or allow 4.6 an",
    ):
        choose_threshold(np.ones(1800), rule="per_hour", level=1.0, hop_seconds=1.0)
    with pytest.raises(ValueError, match=r"2 alarms an hour with a hop of None s"):
        choose_threshold([1.0], rule="per_hour", level=2.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 6), st.sampled_from([0.5, 0.5, 0.5, 9.0])),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 5).map(float),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 0.8]),
)
def test_events_are_counted_as_they_are_found(
    windows: list[tuple[int, int, float]], threshold: float, hysteresis: float, min_seconds: float
) -> None:
    video, values, steps = (np.array(column) for column in zip(*windows, strict=True))
    scores = NormalScores(values.astype(float), video.astype(int), np.cumsum(steps))
    counts = scores.events_at(threshold, EventRule(0.5, 1.0, hysteresis, min_seconds))
    expected = [
        len(
            events(
                scores.times[video == v], values[video == v], threshold, hysteresis=hysteresis * threshold,
                min_seconds=min_seconds, window_seconds=1.0, hop_seconds=0.5,
            )
        )
        for v in np.unique(video)
    ]  # fmt: skip
    assert counts.tolist() == expected


def windows_of(
    rng: np.random.Generator, n_videos: int, n_windows: int, *, icc: float
) -> NormalScores:
    """Scores of windows that are alike within a video, and from one to the next."""
    own = rng.normal(size=(n_videos, 1)) * icc**0.5
    noise = rng.normal(size=(n_videos, n_windows + 2))
    smooth = (noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]) / 3**0.5
    values = own + smooth * (1 - icc) ** 0.5
    return NormalScores(
        values.ravel(),
        np.repeat(np.arange(n_videos), n_windows),
        np.tile(np.arange(n_windows), n_videos) * 1.0,
    )


@pytest.mark.slow
def test_windows_of_few_videos_alarm_about_as_often_as_asked() -> None:
    rng = np.random.default_rng(0)
    for n_videos in (5, 20):
        alarms = []
        for _ in range(300):
            threshold = choose_threshold(windows_of(rng, n_videos, 30, icc=0.4), level=0.95)
            alarms.append((windows_of(rng, 50, 30, icc=0.4).values >= threshold.value).mean())
        assert 0.04 <= np.mean(alarms) <= 0.065, n_videos


def test_alike_windows_of_few_videos_cannot_support_a_quantile_and_it_is_remarked() -> None:
    scores = windows_of(np.random.default_rng(0), 5, 30, icc=0.7)
    threshold = choose_threshold(scores, level=0.99)
    assert (threshold.n, threshold.n_videos) == (150, 5)
    assert "150 normal scores of 5 videos (worth" in threshold.remark
    assert "cannot support a quantile of 0.99, which needs 99" in threshold.remark


@pytest.mark.slow
@pytest.mark.parametrize(("icc", "n_videos"), [(0.0, 40), (0.3, 40), (0.3, 10)])
def test_an_hourly_budget_of_events_is_kept_in_nine_installations_of_ten(
    icc: float, n_videos: int
) -> None:
    rng, rule = np.random.default_rng(1), EventRule(1.0, 2.0, hysteresis=0.1)
    new = windows_of(rng, 1000, 300, icc=icc)  # 83 h
    exceeded = []
    for _ in range(100):
        scores = windows_of(rng, n_videos, 300, icc=icc)  # videos of 5 minutes
        try:
            threshold = choose_threshold(scores, rule="per_hour", level=12.0, events=rule)
        except UnsupportedBudget:
            exceeded.append(False)
            continue
        assert threshold.n_events <= min(12 * n_videos * 300 / 3600, threshold.n_alarms)
        exceeded.append(new.events_at(threshold.value, rule).sum() > 12 * 1000 * 300 / 3600)
    assert np.mean(exceeded) <= 0.1
