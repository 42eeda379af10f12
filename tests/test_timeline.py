from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tristream.fusion.anomaly.events import Event, events, match_events


def slow_events(
    times: list[float], scores: list[float], threshold: float, hysteresis: float
) -> list[tuple[int, int]]:
    """States of a two-level switch, window by window; then the windows that are on."""
    on = [False]
    for score in scores:
        on.append(score >= threshold or (on[-1] and score >= threshold - hysteresis))
    runs, open_at = [], None
    for i, state in enumerate([*on[1:], False]):
        if state and open_at is None:
            open_at = i
        if not state and open_at is not None:
            runs.append((open_at, i - 1))
            open_at = None
    return runs


@given(
    st.lists(st.integers(0, 6).map(float), min_size=2, max_size=40),
    st.integers(1, 5).map(float),
    st.integers(0, 3),
)
def test_events_are_the_runs_of_a_switch_with_two_levels(
    scores: list[float], threshold: float, hysteresis: int
) -> None:
    times = [0.5 * i + 1 for i in range(len(scores))]
    found = events(times, scores, threshold, hysteresis=float(hysteresis), min_seconds=0.0)
    runs = slow_events(times, scores, threshold, hysteresis)
    assert [(e.start_seconds, e.stop_seconds) for e in found] == [
        (times[a] - 0.25, times[b] + 0.25) for a, b in runs
    ]
    for event, (a, b) in zip(found, runs, strict=True):
        assert event.peak_score == max(scores[a : b + 1])
        assert event.peak_seconds == times[a + scores[a : b + 1].index(event.peak_score)]


def test_hysteresis_holds_an_event_open_but_never_starts_one() -> None:
    times, scores = [0, 1, 2, 3, 4, 5, 6], [3, 3, 5, 4, 3, 2, 4]
    assert events(times, scores, 5, hysteresis=2, min_seconds=0.0) == [Event(1.5, 4.5, 2.0, 5.0)]
    assert events(times, scores, 5, hysteresis=0, min_seconds=0.0) == [Event(1.5, 2.5, 2.0, 5.0)]


def test_a_score_at_either_level_counts_as_above() -> None:
    assert len(events([0, 1], [5, 0], 5, hysteresis=1, min_seconds=0.0)) == 1
    assert events([0, 1], [5, 4], 5, hysteresis=1, min_seconds=0.0)[0].stop_seconds == 1.5
    assert events([0, 1], [5, 3.999], 5, hysteresis=1, min_seconds=0.0)[0].stop_seconds == 0.5


def test_short_events_are_left_out_by_their_length_in_seconds() -> None:
    times, scores = np.arange(8) * 2.0, [0, 9, 0, 9, 9, 0, 0, 0]
    assert [e.start_seconds for e in events(times, scores, 5, hysteresis=0, min_seconds=2)] == [
        1.0,
        5.0,
    ]
    assert [e.start_seconds for e in events(times, scores, 5, hysteresis=0, min_seconds=2.1)] == [
        5.0
    ]


def test_bounds_lie_half_a_median_step_outside_though_one_step_is_long() -> None:
    assert events([0, 1, 2, 9], [0, 7, 8, 0], 5, hysteresis=0, min_seconds=0.0) == [
        Event(0.5, 2.5, 2.0, 8.0)
    ]


def test_an_event_may_touch_either_end_of_the_video() -> None:
    assert events([0, 1, 2], [9, 0, 9], 5, hysteresis=0, min_seconds=0.0) == [
        Event(-0.5, 0.5, 0.0, 9.0),
        Event(1.5, 2.5, 2.0, 9.0),
    ]


def test_no_window_and_one_window() -> None:
    assert events([], [], 5, hysteresis=0, min_seconds=0.0) == []
    assert events([3], [9], 5, hysteresis=0, min_seconds=0.0) == [Event(3.0, 3.0, 3.0, 9.0)]


def test_hits_false_alarms_and_seconds_to_alarm() -> None:
    found = [Event(0, 1, 0.5, 9), Event(12, 14, 13, 9), Event(15, 16, 15, 9), Event(29, 31, 30, 9)]
    match = match_events(found, [(10, 20), (30, 40), (50, 60)], watched_seconds=1800)
    assert (match.n_true, match.n_hits, match.n_false) == (3, 2, 1)
    assert match.false_per_hour == 2
    assert match.seconds_to_alarm == (2.0, 0.0)


def test_events_that_only_touch_do_not_meet() -> None:
    assert match_events([Event(0, 1, 0.5, 9)], [(1, 2)], watched_seconds=60).n_hits == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"times are \(2,\) and scores \(3,\)"):
        events([0, 1], [1, 2, 3], 5, hysteresis=0, min_seconds=0.0)
    with pytest.raises(ValueError, match=r"window 1 has time 1.0 and score nan"):
        events([0, 1], [1, np.nan], 5, hysteresis=0, min_seconds=0.0)
    with pytest.raises(ValueError, match="times must increase; 1 s follows 1 s"):
        events([0, 1, 1], [1, 2, 3], 5, hysteresis=0, min_seconds=0.0)
    with pytest.raises(ValueError, match="hysteresis is -1 and min_seconds 0"):
        events([0, 1], [1, 2], 5, hysteresis=-1, min_seconds=0.0)
    with pytest.raises(ValueError, match="0 s were watched"):
        match_events([], [], watched_seconds=0)
