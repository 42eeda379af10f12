from __future__ import annotations

import numpy as np

from tristream.media.live.picture_state import PictureState


def said(
    state: PictureState, frames: np.ndarray, first: float = 0.0, fps: float = 5.0
) -> list[tuple[str, float]]:
    return list(state.add(frames, first + np.arange(len(frames)) / fps))


def moving(n: int, *, low: int = 0, high: int = 255) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (n, 32, 32, 3)).astype(np.uint8)


def test_a_moving_picture_is_not_remarked_on_however_dark_or_plain() -> None:
    state = PictureState(hold_seconds=2.0)
    assert said(state, moving(50)) == []
    assert said(state, moving(50, low=20, high=60), 10.0) == []


def test_black_and_frozen_are_said_once_when_they_have_lasted_and_once_when_over() -> None:
    state = PictureState(hold_seconds=2.0)
    assert said(state, moving(10)) == []
    black = np.full((20, 32, 32, 3), 16, np.uint8)
    assert said(state, black, 2.0) == [("black", 2.0)]
    assert said(state, black, 6.0) == []
    assert said(state, moving(5), 10.0) == [("picture", 10.0)]
    still = np.repeat(moving(1), 20, axis=0)
    [(what, since)] = said(state, still, 11.0)
    assert what == "frozen"
    assert 11.0 <= since <= 11.3
    assert said(state, moving(3), 15.0)[0][0] == "picture"


def test_a_short_freeze_and_another_connection_are_nothing() -> None:
    state = PictureState(hold_seconds=2.0)
    still = np.repeat(moving(1), 8, axis=0)
    assert said(state, still) == []
    state.restart()
    assert said(state, still, 100.0) == []
