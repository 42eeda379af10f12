from __future__ import annotations

import numpy as np

from tristream.report.event_strip import BARS_HEIGHT, CURVE_HEIGHT, TEXT_HEIGHT, WIDTH, event_strip

EVENT = {
    "start_seconds": 2.0, "stop_seconds": 3.0, "peak_seconds": 2.5, "peak_score": 8.0,
    "shares": {"audio": 0.25, "spatial": 0.75},
}  # fmt: skip


def strip(**changes: object) -> np.ndarray:
    arguments = {
        "frames": np.full((50, 60, 80, 3), 90, np.uint8), "frame_seconds": 1 + np.arange(50) / 25 * 1.5,
        "times": np.arange(6.0), "scores": np.array([1, 1, 8, 1, 1, 1.0]), "threshold": 4.0, "event": EVENT,
    } | changes  # fmt: skip
    return event_strip(**arguments)  # type: ignore[arg-type]


def test_the_bar_is_divided_as_the_error_is() -> None:
    bars = strip()[-BARS_HEIGHT:]
    row = bars[8]
    coloured = np.flatnonzero((row != 255).any(axis=1))
    first = (row == row[coloured[0]]).all(axis=1).sum()
    assert abs(first / len(coloured) - 0.25) < 0.01


def test_the_curve_is_shaded_where_the_event_is() -> None:
    picture = strip()
    curve = picture[-BARS_HEIGHT - CURVE_HEIGHT : -BARS_HEIGHT]
    shaded = np.flatnonzero((curve[20] == (252, 226, 222)).all(axis=1))
    left, right = 60, WIDTH - 12
    assert abs((shaded.min() - left) / (right - left) - 2 / 5) < 0.01
    assert abs((shaded.max() - left) / (right - left) - 3 / 5) < 0.01


def test_frames_inside_the_event_have_a_red_edge_and_others_none() -> None:
    picture = strip()
    red = (picture[TEXT_HEIGHT, :] == (200, 55, 45)).all(axis=1)
    frames = [red[n * 180 + 4 : n * 180 + 170].all() for n in range(6)]
    assert frames == [False, False, True, True, False, False]


def test_a_sound_without_pictures_and_a_single_window_are_drawn_too() -> None:
    none = strip(frames=np.zeros((0, 2, 2, 3), np.uint8), frame_seconds=np.zeros(0))
    assert none.shape[1:] == (WIDTH, 3)
    one = strip(times=np.array([0.5]), scores=np.array([8.0]))
    assert one.shape[1] == WIDTH
