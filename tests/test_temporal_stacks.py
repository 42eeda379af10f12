from __future__ import annotations

import numpy as np
import pytest

from tristream.streams.temporal.stacks import (
    flip_horizontally,
    n_stack_starts,
    remove_mean,
    repeat_last,
    stack_flow,
)


def random_flow(n_fields: int = 12, height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n_fields, 2, height, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("start", "length", "step"), [(0, 1, 1), (2, 10, 1), (1, 4, 3), (0, 12, 1)]
)
def test_channels_are_x_and_y_of_each_field_oldest_first(start, length, step):
    flow = random_flow()
    stack = stack_flow(flow, start, length, step=step)
    assert stack.shape == (2 * length, 6, 9)
    for k in range(length):
        np.testing.assert_array_equal(stack[2 * k], flow[start + k * step, 0])
        np.testing.assert_array_equal(stack[2 * k + 1], flow[start + k * step, 1])


def test_stacking_copies_nothing_at_step_1():
    flow = random_flow()
    assert np.shares_memory(stack_flow(flow, 3, 5), flow)


@pytest.mark.parametrize(
    ("n_fields", "length", "step"), [(12, 10, 1), (12, 4, 3), (12, 12, 1), (9, 10, 1)]
)
def test_every_counted_start_is_valid_and_the_next_is_not(n_fields, length, step):
    flow = random_flow(n_fields)
    n_starts = n_stack_starts(n_fields, length, step=step)
    for start in range(n_starts):
        stack_flow(flow, start, length, step=step)
    with pytest.raises(ValueError, match=f"cannot start at {n_starts} of {n_fields} fields"):
        stack_flow(flow, n_starts, length, step=step)


def test_thirty_frames_give_twenty_stacks_of_ten():
    assert n_stack_starts(30 - 1, 10) == 20


@pytest.mark.parametrize(
    ("start", "length", "step", "message"),
    [
        (-1, 5, 1, "cannot start at -1 of 12 fields; valid: 0 to 7"),
        (0, 13, 1, "stack of 13 fields .* valid: none"),
        (0, 0, 1, "length of a flow stack is 0"),
        (0, 5, -1, "step of a flow stack is -1"),
    ],
)
def test_impossible_stacks_are_refused_with_their_values(start, length, step, message):
    with pytest.raises(ValueError, match=message):
        stack_flow(random_flow(), start, length, step=step)


def test_a_short_clip_repeats_its_last_field():
    flow = random_flow(4)
    longer = repeat_last(flow, 3, step=4)
    assert len(longer) == 9
    assert n_stack_starts(len(longer), 3, step=4) == 1
    np.testing.assert_array_equal(longer[:4], flow)
    np.testing.assert_array_equal(longer[4:], np.broadcast_to(flow[-1], (5, 2, 6, 9)))


def test_a_clip_that_is_long_enough_is_not_changed():
    flow = random_flow(10)
    assert repeat_last(flow, 10) is flow


def test_a_video_of_one_frame_has_no_stack():
    with pytest.raises(ValueError, match="0 fields"):
        repeat_last(random_flow(0), 10)


def test_mean_removal_undoes_a_camera_pan_of_each_field():
    stack = stack_flow(random_flow(), 0, 10)
    pan = np.random.default_rng(1).normal(size=(20, 1, 1)).astype(np.float32) * 5
    np.testing.assert_allclose(remove_mean(stack + pan), remove_mean(stack), atol=1e-5)
    np.testing.assert_allclose(remove_mean(stack).mean(axis=(1, 2)), 0, atol=1e-7)


def test_mean_removal_keeps_what_moves_against_the_background():
    stack = np.zeros((2, 10, 10), dtype=np.float32)
    stack[0, 4:6, 4:6] = 5  # 4 of 100 px
    removed = remove_mean(stack)
    assert removed[0, 5, 5] == pytest.approx(4.8)
    assert removed[0, 0, 0] == pytest.approx(-0.2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("bound", [20.0, 7.3])
def test_a_still_scene_stored_in_8_bits_is_exactly_0_after_mean_removal(bound, dtype):
    still = np.full((20, 240, 320), 128 * 2 * bound / 255 - bound, dtype=dtype)
    assert still[0, 0, 0] > 0.02  # the code nearest to 0
    assert not remove_mean(still).any()
    assert remove_mean(still).dtype == dtype


def test_mean_removal_works_on_batches():
    stacks = np.stack([stack_flow(random_flow(), t, 4) for t in range(3)])
    np.testing.assert_array_equal(
        remove_mean(stacks), np.stack([remove_mean(stack) for stack in stacks])
    )


def test_flipping_mirrors_the_fields_and_negates_x_only():
    stack = stack_flow(random_flow(), 0, 3)
    flipped = flip_horizontally(stack)
    for k in range(3):
        np.testing.assert_array_equal(flipped[2 * k], -stack[2 * k][:, ::-1])
        np.testing.assert_array_equal(flipped[2 * k + 1], stack[2 * k + 1][:, ::-1])
    np.testing.assert_array_equal(flip_horizontally(flipped), stack)
