from __future__ import annotations

import numpy as np
import pytest

from tristream.bench.ped2 import figures, region_maps, size_of_what_moves, smoothed


def test_the_size_of_what_moves_is_found_and_specks_are_left_out() -> None:
    flow = np.zeros((11, 2, 240, 360), np.float32)
    for n, side in enumerate((10, 20, 30)):
        flow[:, 0, 20 : 20 + side, 60 * n + 10 : 60 * n + 10 + side] = 2.0
    flow[:, 1, 200:204, 300:304] = 5.0
    assert size_of_what_moves([flow]) == pytest.approx(20)


def test_a_region_s_speed_is_the_mean_over_it() -> None:
    frames, flow = np.zeros((3, 240, 360), np.uint8), np.zeros((2, 2, 240, 360), np.float32)
    flow[1, 0, 100:126, 200:226], flow[1, 1, 100:126, 200:226] = (
        3.0,
        4.0,
    )  # one region of 26 px at speed 5
    maps = region_maps(frames, flow, 13)
    assert maps[0].max() == 0
    assert 4 < maps[1, ..., 0].max() <= 5
    assert maps[1, ..., 3].max() == pytest.approx(5 * maps[1, ..., 0].max(), rel=1e-5)
    row, column = np.unravel_index(maps[1, ..., 0].argmax(), maps.shape[1:3])
    assert abs((6 + 3 * row) * 2 - 113) <= 6
    assert abs((6 + 4 * column) * 2 - 213) <= 8


def test_figures_are_those_of_the_labels_and_the_first_frame_has_the_second_s_score() -> None:
    labels = {"01": np.array([0, 0, 1, 1]), "02": np.array([1, 1, 1, 1])}
    name, micro, *_ = figures(
        "x", {"01": np.array([0.1, 0.9, 0.8]), "02": np.array([0.9, 0.9, 0.9])}, labels
    )
    assert (name, micro) == ("x", 1.0)
    assert smoothed(np.ones(9)) == pytest.approx(np.ones(9))
