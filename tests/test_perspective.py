from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.anomaly.region_scale import RowScale, fit_row_scale, row_extremes


def regions(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Speeds that grow with the row, as they do before a camera that looks down a street."""
    rng = np.random.default_rng(seed)
    row = rng.integers(0, 6, n)
    return (1 + row)[:, None] * rng.gamma(4, 0.25, (n, 3)), row


def test_what_is_fast_for_its_row_stands_out_and_what_is_near_does_not() -> None:
    X, row = regions(6000)
    extremes = row_extremes(X[:, 0], row, 6, quantile=0.99, spread=0)
    np.testing.assert_allclose(extremes / extremes[0], 1 + np.arange(6), rtol=0.15)
    far_and_fast, near_and_usual = 3.5 / extremes[0], 5.0 / extremes[5]
    assert far_and_fast > 1 > near_and_usual


def test_every_row_is_put_on_one_scale() -> None:
    X, row = regions(6000)
    Z = fit_row_scale(X, row, 6, spread=0).transform(X, row)
    for r in range(6):
        np.testing.assert_allclose(Z[row == r].mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(Z[row == r].std(axis=0), 1, rtol=1e-9)


def test_missing_streams_stay_missing_and_constant_columns_are_left_alone() -> None:
    X, row = regions(600)
    X[:, 1], X[::2, 2] = 7.0, np.nan
    scale = fit_row_scale(X, row, 6)
    Z = scale.transform(X, row)
    assert np.array_equal(np.isnan(Z), np.isnan(X))
    np.testing.assert_allclose(Z[:, 1], 0)
    again = RowScale.from_arrays(scale.to_arrays())
    assert np.array_equal(again.transform(X, row), Z, equal_nan=True)


def test_a_unit_that_is_silent_in_a_band_does_not_make_anything_there_enormous() -> None:
    X, row = regions(6000)
    X[row == 0, 1] *= 1e-4
    columns, new = {"a": slice(0, 2), "b": slice(2, 3)}, np.array([[1.0, 1.0, 1.0]])
    loud = fit_row_scale(X, row, 6, spread=0).transform(new, np.array([0]))
    kept = fit_row_scale(X, row, 6, spread=0, columns=columns, least_share=0.1).transform(
        new, np.array([0])
    )
    assert abs(loud[0, 1]) > 10_000
    assert abs(kept[0, 1]) < 10
    np.testing.assert_allclose(kept[0, [0, 2]], loud[0, [0, 2]])


def test_a_row_where_nothing_ever_moves_does_not_make_everything_infinite() -> None:
    scores, row = np.concatenate([np.zeros(50), np.ones(150)]), np.repeat(np.arange(4), 50)
    assert row_extremes(scores, row, 4, spread=0).tolist() == pytest.approx([0.1, 1, 1, 1])
    assert row_extremes(np.zeros(8), np.repeat([0, 1], 4), 2).tolist() == [1, 1]


def test_bad_input_is_named() -> None:
    X, row = regions(60)
    with pytest.raises(ValueError, match="row 5 of regions does not exist; there are 5"):
        fit_row_scale(X, np.full(60, 5), 5)
    with pytest.raises(ValueError, match="row 9 of 20 rows of regions has no normal region"):
        row_extremes(X[:, 0], row, 20, spread=3)
    with pytest.raises(ValueError, match="a score is -1; scores that are divided"):
        row_extremes([-1.0], np.array([0]), 1)
