from __future__ import annotations

import numpy as np
import pytest
import torch

from tristream.streams.augment import (
    AugmentConfig,
    Views,
    apply_views,
    apply_views_to_flow,
    draw_views,
)

STILL = {"flipped": False, "scale": 1.0, "shift": (0.0, 0.0), "roll": (0.0, 0.0)}


def views(n=1, **one) -> Views:
    one = {**STILL, **one}
    one["scale"] = np.broadcast_to(one["scale"], 2)
    return Views(
        *(
            np.repeat(np.asarray(one[key])[None], n, axis=0)
            for key in ("flipped", "scale", "shift", "roll")
        )
    )


@pytest.fixture
def pictures():
    return torch.randn(3, 2, 12, 17, generator=torch.Generator().manual_seed(0))


def ramps(height=21, width=31):
    """Return a field whose channel 0 holds each pixel's x and channel 1 its y."""
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([x, y])[None]


def test_the_view_that_changes_nothing_leaves_every_bit(pictures):
    assert torch.equal(apply_views(pictures, views(3)), pictures)


def test_a_flip_mirrors_left_and_right(pictures):
    torch.testing.assert_close(
        apply_views(pictures, views(3, flipped=True)), pictures.flip(3), atol=1e-5, rtol=0
    )


def test_a_flip_of_a_flip_is_the_frame(pictures):
    flip = views(3, flipped=True)
    torch.testing.assert_close(
        apply_views(apply_views(pictures, flip), flip), pictures, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("roll", [(0.25, 0.0), (0.0, 0.5), (0.99, 0.3)])
def test_a_roll_is_a_shift_on_a_torus(pictures, roll):
    rolled = apply_views(pictures, views(3, roll=roll))
    down, right = int(roll[0] * 12), int(roll[1] * 17)
    assert torch.equal(rolled, pictures.roll((down, right), (2, 3)))
    assert torch.equal(rolled.flatten().sort().values, pictures.flatten().sort().values)


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.1, -0.05)])
def test_a_crop_is_as_large_as_its_scale_and_its_centre_is_off_by_its_shift(scale, shift):
    height, width = 21, 31
    x, y = apply_views(ramps(height, width), views(scale=scale, shift=shift))[0]
    expected_x = (
        (width - 1) / 2 + scale * (torch.arange(float(width)) - (width - 1) / 2) + shift[0] * width
    )
    expected_y = (
        (height - 1) / 2
        + scale * (torch.arange(float(height)) - (height - 1) / 2)
        + shift[1] * height
    )
    inside_x = (expected_x >= 0) & (expected_x <= width - 1)
    inside_y = (expected_y >= 0) & (expected_y <= height - 1)
    assert inside_x.sum() > 20
    middle_y, middle_x = height // 2, width // 2
    torch.testing.assert_close(x[middle_y, inside_x], expected_x[inside_x], atol=1e-4, rtol=0)
    torch.testing.assert_close(y[inside_y, middle_x], expected_y[inside_y], atol=1e-4, rtol=0)


def test_a_crop_larger_than_the_frame_is_empty_outside_or_mirrored():
    bright = torch.ones(1, 1, 20, 20)
    zeros = apply_views(bright, views(scale=2.0))
    assert zeros[0, 0, 0, 0] == 0
    assert zeros[0, 0, 10, 10] == 1
    assert (apply_views(bright, views(scale=2.0), padding="reflection") - 1).abs().max() < 1e-6


def test_each_frame_of_a_batch_has_its_own_view(pictures):
    mixed = Views(
        np.array([False, True, False]), np.ones((3, 2)), np.zeros((3, 2)), np.zeros((3, 2))
    )
    seen = apply_views(pictures, mixed)
    torch.testing.assert_close(seen[[0, 2]], pictures[[0, 2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[1], pictures[1].flip(2), atol=1e-5, rtol=0)


def test_all_segments_of_a_video_share_one_view():
    drawn = draw_views(4, AugmentConfig(roll=True), np.random.default_rng(0)).repeat(7)
    for values in (drawn.flipped, drawn.scale, drawn.shift, drawn.roll):
        assert len(values) == 7
        assert (values == values[0]).all()


def test_drawn_views_stay_within_the_configuration():
    config = AugmentConfig(crop_scale=(0.6, 0.9), shift=0.2)
    drawn = draw_views(4000, config, np.random.default_rng(0))
    assert 0.45 < drawn.flipped.mean() < 0.55
    assert np.array_equal(drawn.scale[:, 0], drawn.scale[:, 1])
    assert 0.6 <= drawn.scale.min() < 0.61
    assert 0.89 < drawn.scale.max() <= 0.9
    assert 0.19 < drawn.shift.max() <= 0.2
    assert -0.2 <= drawn.shift.min() < -0.19
    assert abs(np.corrcoef(drawn.shift.T)[0, 1]) < 0.1
    assert not drawn.roll.any()
    rolled = draw_views(4000, AugmentConfig(roll=True), np.random.default_rng(0))
    assert 0 <= rolled.roll.min() < 0.01 < 0.99 < rolled.roll.max() < 1
    assert not draw_views(100, AugmentConfig(flip=False), np.random.default_rng(0)).flipped.any()


def test_width_and_height_of_a_crop_are_chosen_apart():
    x, y = apply_views(ramps(21, 41), views(scale=(0.5, 1.0)))[0]
    torch.testing.assert_close(x[10], 20 + 0.5 * (torch.arange(41.0) - 20), atol=1e-4, rtol=0)
    torch.testing.assert_close(y[:, 20], torch.arange(21.0), atol=1e-4, rtol=0)


def test_corner_crops_are_tsns_in_the_corners_and_the_centre():
    sides = (1.0, 0.875, 0.75, 0.66)
    drawn = draw_views(3000, AugmentConfig(corner_crops=sides), np.random.default_rng(0))
    assert {tuple(pair) for pair in drawn.scale.tolist()} == {
        (a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1
    }
    low, high = (
        drawn.shift + 0.5 - drawn.scale / 2,
        drawn.shift + 0.5 + drawn.scale / 2,
    )  # borders, 0 to 1
    at_border = np.isclose(low, 0) | np.isclose(high, 1)
    centred = np.isclose(drawn.shift, 0).all(axis=1)
    assert (at_border.all(axis=1) | centred).all()
    small = (drawn.scale < 1).all(axis=1)
    places = {tuple(np.sign(shift.round(9))) for shift in drawn.shift[small]}
    assert places == {(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0)}
    assert 0.45 < drawn.flipped.mean() < 0.55


def test_a_corner_crop_shows_that_corner():
    x, y = apply_views(ramps(20, 40), views(scale=(0.5, 0.5), shift=(0.25, -0.25)))[
        0, :, 1:-1, 1:-1
    ]  # right, above
    assert 19 < x.min() < x.max() <= 39
    assert 0 <= y.min() < y.max() < 10


def test_switching_one_augmentation_off_leaves_the_numbers_of_the_others():
    """A comparison with and without flips differs in the flips alone."""
    on, off = (
        draw_views(9, AugmentConfig(flip=flip), np.random.default_rng(3)) for flip in (True, False)
    )
    assert np.array_equal(on.scale, off.scale)
    assert np.array_equal(on.shift, off.shift)


def turned(angle: float, n: int = 1, *, flipped: bool = False) -> Views:
    return Views(
        np.full(n, flipped), np.ones((n, 2)), np.zeros((n, 2)), np.zeros((n, 2)), np.full(n, angle)
    )


def disc(size: int) -> torch.Tensor:
    """True well inside the circle that no turn leaves."""
    y, x = torch.meshgrid(*[torch.arange(size) - (size - 1) / 2] * 2, indexing="ij")
    return x.square() + y.square() < (size / 2 - 2) ** 2


def test_a_quarter_turn_is_that_of_the_array(pictures):
    square = pictures[:, :, :12, :12]
    seen = apply_views(square, turned(np.pi / 2, len(square)))
    torch.testing.assert_close(seen, square.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_a_turn_and_its_inverse_are_the_frame():
    y, x = torch.meshgrid(torch.arange(31.0), torch.arange(31.0), indexing="ij")
    smooth = torch.sin(x / 6 + y / 9)[None, None]
    again = apply_views(apply_views(smooth, turned(0.4)), turned(-0.4))
    assert (again - smooth)[0, 0][disc(31)].abs().max() < 0.02


def test_a_turn_keeps_lengths_in_a_frame_that_is_not_square():
    y, x = torch.meshgrid(torch.arange(40.0) - 19.5, torch.arange(60.0) - 29.5, indexing="ij")
    radius = (x.square() + y.square())[None, None]
    seen = apply_views(radius, turned(0.7))
    inside = radius[0, 0] < 15**2
    assert (seen - radius)[0, 0][inside].abs().max() < 1


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("angle", [0.3, -1.2, np.pi / 2])
def test_an_expansion_about_the_centre_looks_the_same_from_every_side(angle, flipped):
    """Vectors must turn and mirror with their places; a constant field turns against the frame."""
    y, x = torch.meshgrid(*[torch.arange(41.0) - 20] * 2, indexing="ij")
    stack = torch.stack([x, y, 2 * x, 2 * y])[None]  # two fields
    seen = apply_views_to_flow(stack, turned(angle, flipped=flipped))
    assert (seen - stack)[0, :, disc(41)].abs().max() < 1e-3
    constant = torch.tensor([1.0, 0]).view(1, 2, 1, 1).expand(1, 2, 41, 41)
    x_seen, y_seen = apply_views_to_flow(constant, turned(angle, flipped=flipped))[0, :, 20, 20]
    assert x_seen.item() == pytest.approx(np.cos(angle) * (-1 if flipped else 1), abs=1e-5)
    assert y_seen.item() == pytest.approx(-np.sin(angle), abs=1e-5)


def test_turns_and_zooms_stay_within_the_configuration_and_change_no_other_number():
    plain = draw_views(3000, AugmentConfig(), np.random.default_rng(5))
    config = AugmentConfig(rotation=20, zoom=0.1)
    drawn = draw_views(3000, config, np.random.default_rng(5))
    for name in ("flipped", "shift", "roll"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(plain, name))
    assert plain.angle is None
    assert 19.5 < np.degrees(np.abs(drawn.angle).max()) <= 20
    ratio = drawn.scale / plain.scale
    assert 0.9 <= ratio.min() < 0.905
    assert 1.095 < ratio.max() <= 1.1
    assert abs(np.corrcoef(ratio.T)[0, 1]) < 0.1  # width and height apart
