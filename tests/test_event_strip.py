from __future__ import annotations

import numpy as np

from tristream.report.event_strip import (
    BARS_HEIGHT,
    CURVE_HEIGHT,
    MEL_HEIGHT,
    TEXT_HEIGHT,
    WIDTH,
    Origin,
    event_strip,
)

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


def test_a_source_and_a_time_add_one_line_of_text_and_leave_the_rest_as_it_is() -> None:
    plain = strip()
    named = strip(origin=Origin(source="gate 2", wall_clock="2026-11-03 14:05:09"))
    assert np.array_equal(named[TEXT_HEIGHT:], plain)
    assert (named[:TEXT_HEIGHT] != 255).any()
    shorter = strip(origin=Origin(source="gate 2"))
    assert (shorter[:TEXT_HEIGHT] != 255).sum() < (named[:TEXT_HEIGHT] != 255).sum()


def test_a_burst_of_audio_is_dark_where_it_sounds_and_low_tones_lie_below() -> None:
    rate, time = 16000, np.arange(5 * 16000) / 16000
    for hertz, low in ((250.0, True), (6000.0, False)):
        samples = np.where((time >= 2) & (time < 3), np.sin(2 * np.pi * hertz * time), 0.0)
        picture = strip(origin=Origin(samples=samples, sample_rate=rate))
        end = -BARS_HEIGHT - CURVE_HEIGHT
        mel = picture[end - MEL_HEIGHT : end, 60 : WIDTH - 12, 0].astype(float)
        dark = np.argwhere(mel < 60)
        seconds = dark[:, 1] / mel.shape[1] * 5
        assert abs(seconds.min() - 2) < 0.05
        assert abs(seconds.max() - 3) < 0.05
        assert (dark[:, 0].mean() > MEL_HEIGHT / 2) == low


def test_an_event_without_a_share_of_audio_gets_no_spectrogram() -> None:
    silent = {**EVENT, "shares": {"temporal": 1.0}}
    with_audio = strip(event=silent, origin=Origin(samples=np.ones(16000)))
    assert np.array_equal(with_audio, strip(event=silent))
