from __future__ import annotations

import numpy as np
import pytest

from tristream.flow.errors import measure


def test_errors_are_counted_as_kitti_counts_them():
    truth = np.zeros((2, 1, 6), np.float32)
    truth[0] = [0, 0, 100, 100, 40, 0]
    truth[:, 0, 5] = np.nan  # not known: not counted
    found = truth.copy()
    found[:, 0, :5] += np.array(
        [[0, 1.5, 3, 0, 4], [0, 0, 2.9, 6, 0]]
    )  # off by 0, 1.5, 4.17, 6, 4 px
    errors = measure(found, truth)
    assert errors.n_pixels == 5
    assert errors.endpoint_px == pytest.approx((0 + 1.5 + np.hypot(3, 2.9) + 6 + 4) / 5)
    assert errors.above_1_px == pytest.approx(4 / 5)
    assert errors.above_3_px == pytest.approx(3 / 5)
    assert errors.above_5_px == pytest.approx(1 / 5)
    assert errors.fl_all == pytest.approx(
        2 / 5
    )  # 4.17 of 100 px is within 5 %; 6 of 100 and 4 of 40 are not


def test_exact_flow_has_no_error_and_no_flow_has_the_length_of_the_truth():
    truth = np.random.default_rng(0).normal(size=(3, 2, 5, 7)).astype(np.float32)
    assert measure(truth, truth).endpoint_px == 0
    assert measure(np.zeros_like(truth), truth).endpoint_px == pytest.approx(
        np.hypot(truth[:, 0], truth[:, 1]).mean()
    )


def test_what_cannot_be_compared_is_refused():
    truth = np.zeros((2, 3, 4), np.float32)
    with pytest.raises(
        ValueError, match=r"\(2, 3, 5\) cannot be compared with a truth of shape \(2, 3, 4\)"
    ):
        measure(np.zeros((2, 3, 5), np.float32), truth)
    with pytest.raises(ValueError, match=r"truth of shape \(2, 3, 4\) has no pixel"):
        measure(truth, np.full_like(truth, np.nan))
    wild = truth.copy()
    wild[0, 1, 2] = np.inf
    with pytest.raises(ValueError, match="not finite at 1 of 12 pixels"):
        measure(wild, truth)
