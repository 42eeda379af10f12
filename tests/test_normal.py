from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.anomaly.normal_split import split_normal


def rows(n: int) -> np.ndarray:
    return np.arange(2.0 * n).reshape(n, 2)


def test_every_fifth_video_is_held_out_and_none_is_on_both_sides() -> None:
    train, held_out, remarks = split_normal(rows(23), None, np.random.RandomState(0))
    assert (len(train), len(held_out), remarks) == (19, 4, [])
    assert sorted(np.concatenate([train, held_out])[:, 0]) == rows(23)[:, 0].tolist()


def test_validation_videos_given_are_used_as_they_are() -> None:
    train, held_out, _ = split_normal(rows(23), rows(3) + 0.5, np.random.RandomState(0))
    assert np.array_equal(train, rows(23))
    assert np.array_equal(held_out, rows(3) + 0.5)


def test_few_videos_serve_twice_and_it_is_said() -> None:
    train, held_out, remarks = split_normal(rows(9), None, np.random.RandomState(0))
    assert np.array_equal(train, held_out)
    assert remarks == [
        "only 9 normal videos: the threshold comes from the videos trained on, and is too low"
    ]


def test_videos_without_any_stream_do_not_count() -> None:
    X = rows(12)
    X[3] = np.nan
    train, _, remarks = split_normal(X, rows(2), np.random.RandomState(0))
    assert np.array_equal(train, np.delete(rows(12), 3, axis=0))
    assert remarks == ["1 of 12 normal videos have no stream at all and are skipped"]
    with pytest.raises(ValueError, match="there is 1 normal video"):
        split_normal(X[2:4], None, np.random.RandomState(0))
    with pytest.raises(ValueError, match="none of the 1 normal validation videos has a stream"):
        split_normal(rows(5), X[3:4], np.random.RandomState(0))
