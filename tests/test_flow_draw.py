from __future__ import annotations

import numpy as np
import pytest

from tristream.flow.draw import flow_to_color


def field(vectors: list[tuple[float, float]]) -> np.ndarray:
    return np.array(vectors, dtype=np.float32).T[:, None, :]  # (2, 1, n)


def plain_reference(u: float, v: float, max_radius: float) -> list[int]:
    """Middlebury's own C code, one pixel at a time."""
    wheel = []
    wheel += [(255, 255 * i // 15, 0) for i in range(15)]
    wheel += [(255 - 255 * i // 6, 255, 0) for i in range(6)]
    wheel += [(0, 255, 255 * i // 4) for i in range(4)]
    wheel += [(0, 255 - 255 * i // 11, 255) for i in range(11)]
    wheel += [(255 * i // 13, 0, 255) for i in range(13)]
    wheel += [(255, 0, 255 - 255 * i // 6) for i in range(6)]
    radius = np.hypot(u, v) / max_radius
    position = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(wheel) - 1)
    k = int(position)
    pixel = []
    for c in range(3):
        colour = (1 - (position - k)) * wheel[k][c] / 255 + (position - k) * wheel[
            (k + 1) % len(wheel)
        ][c] / 255
        colour = 1 - radius * (1 - colour) if radius <= 1 else colour * 0.75
        pixel.append(int(255 * colour))
    return pixel


def test_colours_are_those_of_middleburys_code():
    vectors = np.random.default_rng(0).normal(size=(500, 2)) * 4
    picture = flow_to_color(vectors.T[:, None, :], max_radius=6.0)
    expected = [plain_reference(u, v, 6.0) for u, v in vectors]
    np.testing.assert_allclose(
        picture[0].astype(int), expected, atol=1
    )  # 1: both cut off, after other roundings


def test_right_is_red_down_yellow_left_cyan_blue_up_violet():
    right, down, left, up = flow_to_color(field([(2, 0), (0, 2), (-2, 0), (0, -2)]))[0].tolist()
    assert right == [255, 0, 0]
    assert down == [255, 229, 0]
    assert left == [0, 209, 255]
    assert up == [88, 0, 255]


def test_no_motion_is_white():
    np.testing.assert_array_equal(
        flow_to_color(np.zeros((2, 3, 4), np.float32)), np.full((3, 4, 3), 255)
    )
    np.testing.assert_array_equal(
        flow_to_color(np.zeros((2, 3, 4)), max_radius=5.0), np.full((3, 4, 3), 255)
    )


@pytest.mark.parametrize("direction", np.linspace(0, 2 * np.pi, 17))
def test_saturation_grows_with_length_up_to_the_radius_and_darkens_beyond(direction):
    lengths = np.linspace(0, 10, 101)
    vectors = [(r * np.cos(direction), r * np.sin(direction)) for r in lengths]
    picture = flow_to_color(field(vectors), max_radius=10.001)[0].astype(int)
    saturation = picture.max(axis=1) - picture.min(axis=1)
    assert (np.diff(saturation) >= 0).all()
    assert (picture.max(axis=1) == 255).all()
    beyond = flow_to_color(field(vectors[-1:]), max_radius=9.0)[0, 0]
    assert beyond.max() == 191


def test_the_hue_does_not_depend_on_the_length():
    slow, fast = flow_to_color(field([(1, -0.5), (4, -2)]), max_radius=8.0)[0].astype(float)
    np.testing.assert_allclose((255 - slow) * 4, 255 - fast, atol=4)


def test_without_a_radius_the_longest_vector_is_fully_saturated():
    picture = flow_to_color(field([(0.003, 0), (-0.0015, 0), (0, 0)]))[0]
    assert picture[0].tolist() == [255, 0, 0]
    assert picture[1].min() in range(126, 129)


def test_a_full_turn_has_no_jump():
    angles = np.linspace(0, 2 * np.pi, 2001)
    picture = flow_to_color(field([(np.cos(a), np.sin(a)) for a in angles]), max_radius=1.001)[
        0
    ].astype(int)
    assert np.abs(np.diff(picture, axis=0)).max() <= 2
    assert len(np.unique(picture, axis=0)) > 500


def test_what_is_not_finite_is_black_and_disturbs_nothing_else():
    picture = flow_to_color(field([(np.nan, 1), (np.inf, 0), (2, 0)]))[0]
    assert picture.tolist() == [[0, 0, 0], [0, 0, 0], [255, 0, 0]]


@pytest.mark.parametrize("max_radius", [0.0, -1.0, float("nan")])
def test_a_radius_that_is_not_positive_is_refused(max_radius):
    with pytest.raises(ValueError, match=f"max_radius is {max_radius} px"):
        flow_to_color(field([(1, 0)]), max_radius=max_radius)
