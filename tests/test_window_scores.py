from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tristream.fusion.anomaly.events import events
from tristream.fusion.anomaly.online_events import Alarm, Ended, OnlineEvents
from tristream.fusion.anomaly.window_scores import (
    caused_events,
    frame_labels,
    intervals_of,
    mapping_of,
    timelines,
    to_json,
)


def line_of(
    scores: list[float], errors: np.ndarray | None = None, *, hop: float = 0.5, window: float = 1.0
):
    n = len(scores)
    starts = hop * np.arange(n)
    errors = np.ones((n, 2)) if errors is None else errors
    [line] = timelines(["v"] * n, starts, starts + window, [0] * n, scores, errors)
    return line


def test_a_window_counts_by_its_strongest_region_whatever_the_order_of_rows() -> None:
    videos = ["b", "a", "b", "a", "b"]
    starts, stops = [1.0, 0.0, 0.0, 0.0, 1.0], [2.0, 1.0, 1.0, 1.0, 2.0]
    errors = np.arange(10.0).reshape(5, 2)
    found = timelines(videos, starts, stops, [3, 4, 5, 6, 7], [1.0, 5.0, 2.0, 4.0, 9.0], errors)
    assert [line.video_id for line in found] == ["b", "a"]
    b, a = found
    assert (b.scores.tolist(), b.region.tolist(), b.row.tolist()) == ([2.0, 9.0], [5, 7], [2, 4])
    assert (a.scores.tolist(), a.region.tolist()) == ([5.0], [4])
    assert np.array_equal(b.errors, errors[[2, 4]])
    assert b.times.tolist() == [0.5, 1.5]
    assert b.watched_seconds == 2.0


def test_only_what_lies_in_a_window_was_watched() -> None:
    """Fault A06: a hole of 95 s between two windows was counted as watched."""
    starts = np.array([0.0, 0.5, 1.0, 100.0])
    [line] = timelines(["v"] * 4, starts, starts + 1.0, [0] * 4, np.ones(4), np.ones((4, 2)))
    assert line.watched_seconds == 3.0
    whole = line_of([1.0] * 39)
    assert whole.watched_seconds == whole.stop_seconds.max() == 20.0


def test_the_squared_error_of_an_event_splits_exactly_by_stream_and_by_window() -> None:
    errors = np.array([[1.0, 1.0], [6.0, 2.0], [3.0, 9.0], [1.0, 1.0]])
    line = line_of([1.0, 4.0, 6.0, 1.0], errors)
    [event] = caused_events(line, 3.0, ("one", "two"), hysteresis=0.0, min_seconds=0.0)
    assert event.shares == {"one": pytest.approx(9 / 20), "two": pytest.approx(11 / 20)}
    by_window = line.errors.sum(axis=1) / line.errors.sum()
    np.testing.assert_allclose(
        (line.shares() * by_window[:, None]).sum(axis=0), line.errors.sum(axis=0) / errors.sum()
    )
    np.testing.assert_allclose(
        line.errors.mean(axis=1), line.scores
    )  # the score is the mean over the streams
    assert event.row == 2
    assert event.streams(at_least=0.5) == ["two"]
    assert event.streams(at_least=0.4) == ["two", "one"]
    assert event.streams(at_least=0.9) == ["two"]


def test_the_only_window_of_a_video_lasts_as_long_as_the_window() -> None:
    [event] = caused_events(line_of([9.0]), 3.0, ("one", "two"), hysteresis=0.0, min_seconds=0.5)
    assert (event.event.start_seconds, event.event.stop_seconds) == (0.0, 1.0)


def test_events_that_are_too_short_are_left_out() -> None:
    line = line_of([0, 9, 0, 9, 9, 0])
    found = caused_events(line, 3.0, ("one", "two"), hysteresis=0.0, min_seconds=0.6)
    assert [one.event.start_seconds for one in found] == [1.75]


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from([0.5, 0.5, 0.5, 1.0, 1.5, 40.0])), max_size=40
    ),
    st.integers(1, 5).map(float),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.6, 1.2]),
)
def test_events_while_they_happen_are_those_found_afterwards_holes_or_not(
    windows: list[tuple[int, float]], threshold: float, hysteresis: int, min_seconds: float
) -> None:
    scores = [float(score) for score, _ in windows]
    times = np.cumsum([step for _, step in windows])
    after = events(
        times, scores, threshold, hysteresis=float(hysteresis), min_seconds=min_seconds, window_seconds=1.0,
        hop_seconds=0.5,
    )  # fmt: skip
    online = OnlineEvents(threshold, float(hysteresis), 0.5, min_seconds, ("one", "two"), 1.0)
    found, alarms = [], []
    for n, (time, score) in enumerate(zip(times.tolist(), scores, strict=True)):
        for change in online.add(time, score, np.ones(2), 0, n):
            (alarms if isinstance(change, Alarm) else found).append(change)
    found += online.close()
    assert [one.event for one in found] == after
    if not min_seconds:
        assert [alarm.at_seconds for alarm in alarms] == [event.start_seconds for event in after]
    assert all(
        isinstance(one, Ended) and sum(one.shares.values()) == pytest.approx(1) for one in found
    )
    assert not online.is_open
    for event in after:  # no event covers a hole
        inside = times[(times > event.start_seconds) & (times < event.stop_seconds)]
        assert (np.diff(inside) <= 1.0).all()


def test_an_event_ends_at_a_hole() -> None:
    starts = np.concatenate([np.arange(5.0), 100 + np.arange(5.0)])
    [line] = timelines(["v"] * 10, starts, starts + 2, [0] * 10, [9.0] * 10, np.ones((10, 2)))
    found = caused_events(line, 3.0, ("one", "two"), hysteresis=0.0, min_seconds=0.0)
    bounds = [(one.event.start_seconds, one.event.stop_seconds) for one in found]
    assert bounds == [(0.5, 5.5), (100.5, 105.5)]
    assert line.watched_seconds == 12.0


def test_scores_between_windows_are_interpolated_and_level_at_the_ends() -> None:
    line = line_of([1.0, 3.0])
    assert line.at([0.0, 0.5, 0.75, 1.0, 9.0]).tolist() == [1.0, 1.0, 2.0, 3.0, 3.0]


def test_labels_of_frames_and_intervals_are_each_other_s_inverse() -> None:
    flags = [0, 1, 1, 0, 0, 1]
    found = intervals_of(flags, step_seconds=0.1)
    assert found == [pytest.approx((0.1, 0.3)), pytest.approx((0.5, 0.6))]
    assert frame_labels(found, 0.05 + 0.1 * np.arange(6)).tolist() == flags
    assert intervals_of([0, 0], step_seconds=1.0) == []


def test_json_of_a_timeline_has_the_keys_that_the_report_reads() -> None:
    line = line_of([1.0, 9.0])
    caused = caused_events(line, 3.0, ("one", "two"), hysteresis=0.0, min_seconds=0.0)
    found = to_json(
        line,
        caused,
        ("one", "two"),
        path="/v.mp4",
        labels=[(0.0, 1.0)],
        nearest=[["n"]],
        regions=[""],
    )
    assert set(found) == {"video_id", "path", "times", "scores", "shares", "labels", "events"}
    assert set(found["events"][0]) == {
        "start_seconds", "stop_seconds", "peak_seconds", "peak_score", "shares", "region", "nearest",
    }  # fmt: skip


def test_labels_that_are_none_are_named() -> None:
    assert mapping_of({"a": [[0, 1.5]]}, ["a", "b"]) == {"a": [(0.0, 1.5)]}
    with pytest.raises(ValueError, match="frame labels are a list"):
        mapping_of([], ["a"])
    with pytest.raises(
        ValueError, match=r"name 'c', which is not a video of the run \(one is 'a'\)"
    ):
        mapping_of({"c": []}, ["a"])
    with pytest.raises(ValueError, match=r"of 'a' are \[1, 2\]"):
        mapping_of({"a": [1, 2]}, ["a"])
    with pytest.raises(ValueError, match=r"hold \[2, 1\); start must lie before stop"):
        mapping_of({"a": [[2, 1]]}, ["a"])
