from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tristream.flow.sampling import motion_lengths, sample_indices, stack_motion, uniform_indices


@st.composite
def motions(draw: st.DrawFn) -> np.ndarray:
    """Motion of 1 to 150 frames: smooth, sparse, with many ties, or any numbers at all."""
    n_steps = draw(st.integers(0, 149))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    kind = draw(st.sampled_from(["any", "spread", "ties", "sparse", "bursts"]))
    if kind == "any":
        lengths = st.floats(0, 50).filter(lambda v: v == 0 or v > 1e-6)
        return np.array(draw(st.lists(lengths, max_size=60)))
    if kind == "spread":
        return rng.exponential(size=n_steps) ** 2
    if kind == "ties":
        return rng.choice([0.0, 0.1, 1.0, 3.0], size=n_steps)
    if kind == "sparse":
        return rng.exponential(size=n_steps) * (rng.random(n_steps) < 0.1)
    return np.repeat(rng.exponential(size=15) ** 3, 10)[:n_steps]


budgets = st.integers(1, 150)
segment_counts = st.integers(1, 30)


def segment_bounds(n_frames: int, n_segments: int) -> list[int]:
    return [i * n_frames // n_segments for i in range(n_segments + 1)]


def counts_per_segment(indices: np.ndarray, n_frames: int, n_segments: int) -> np.ndarray:
    return np.histogram(indices, bins=segment_bounds(n_frames, n_segments))[
        0
    ]  # last bin closed: no frame n_frames


def plain_reference(motion: np.ndarray, n_samples: int, n_segments: int) -> list[int]:
    """The proposal of SCIENCE.md §1.8 word by word, one sample at a time by a linear search."""
    n_frames = len(motion) + 1
    if n_samples >= n_frames:
        return list(range(n_frames))
    n_segments = min(n_segments, n_samples, n_frames)
    bounds = segment_bounds(n_frames, n_segments)
    means = []
    for start, stop in itertools.pairwise(bounds):
        steps = motion[start : min(stop, n_frames - 1)]
        means.append(sum(steps) / len(steps) if len(steps) else 0.0)
    if not np.isfinite(means).all() or max(means) == 0:
        means = [1.0] * n_segments
    means = [mean + 1e-9 * max(means) for mean in means]
    counts = [1] * n_segments
    while sum(counts) < n_samples:
        best = None
        for s in range(n_segments):
            if counts[s] == bounds[s + 1] - bounds[s]:
                continue
            priority = means[s] / (2 * counts[s] + 1)
            if best is None or priority > best[0] * (1 + 1e-12):
                best = (priority, s)
        counts[best[1]] += 1
    indices = []
    for s in range(n_segments):
        length = bounds[s + 1] - bounds[s]
        indices += [bounds[s] + (2 * j + 1) * length // (2 * counts[s]) for j in range(counts[s])]
    return indices


@given(motions(), budgets, segment_counts)
def test_sampling_equals_a_plain_reference(motion, n_samples, n_segments):
    indices = sample_indices(motion, n_samples=n_samples, n_segments=n_segments)
    assert indices.tolist() == plain_reference(motion, n_samples, n_segments)


@given(motions(), budgets, segment_counts)
def test_exactly_the_budget_is_spent_on_distinct_frames_in_order(motion, n_samples, n_segments):
    n_frames = len(motion) + 1
    indices = sample_indices(motion, n_samples=n_samples, n_segments=n_segments)
    assert indices.dtype == np.int64
    assert len(indices) == min(n_samples, n_frames)
    assert (np.diff(indices) > 0).all()
    assert indices[0] >= 0
    assert indices[-1] < n_frames


@given(motions(), budgets, segment_counts)
def test_every_segment_gets_at_least_one_sample_and_at_most_its_frames(
    motion, n_samples, n_segments
):
    n_frames = len(motion) + 1
    n_segments = min(n_segments, n_samples, n_frames)
    indices = sample_indices(motion, n_samples=n_samples, n_segments=n_segments)
    counts = counts_per_segment(indices, n_frames, n_segments)
    assert (counts >= 1).all()
    assert (counts <= np.diff(segment_bounds(n_frames, n_segments))).all()


@given(motions(), budgets, segment_counts, st.floats(1e-3, 1e3))
def test_sampling_does_not_depend_on_the_unit_of_motion(motion, n_samples, n_segments, factor):
    expected = sample_indices(motion, n_samples=n_samples, n_segments=n_segments)
    np.testing.assert_array_equal(
        sample_indices(motion * factor, n_samples=n_samples, n_segments=n_segments), expected
    )


@given(motions(), segment_counts)
def test_a_larger_budget_never_takes_a_sample_from_a_segment(motion, n_segments):
    n_frames = len(motion) + 1
    assume(n_segments <= n_frames)
    before = np.ones(n_segments, dtype=int)
    for n_samples in range(n_segments, n_frames + 2):
        indices = sample_indices(motion, n_samples=n_samples, n_segments=n_segments)
        counts = counts_per_segment(indices, n_frames, n_segments)
        assert (counts >= before).all()
        before = counts


def test_constant_motion_over_36_seconds_is_the_papers_every_fifth_frame():
    indices = sample_indices(np.full(899, 0.1), n_samples=180, n_segments=15)
    np.testing.assert_array_equal(indices, np.arange(2, 900, 5))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.floats(0.01, 100))
def test_constant_motion_gives_a_constant_step(n_segments, per_segment, step, speed):
    n_samples = n_segments * per_segment
    motion = np.full(n_samples * step - 1, speed)
    indices = sample_indices(motion, n_samples=n_samples, n_segments=n_segments)
    np.testing.assert_array_equal(indices, step // 2 + step * np.arange(n_samples))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_no_motion_or_none_that_is_finite_gives_evenly_spread_samples(value):
    indices = sample_indices(np.full(899, value), n_samples=180, n_segments=15)
    np.testing.assert_array_equal(indices, uniform_indices(900, 180))


def test_one_value_that_is_not_finite_gives_evenly_spread_samples():
    motion = np.random.default_rng(0).random(899)
    motion[17] = np.nan
    np.testing.assert_array_equal(
        sample_indices(motion, n_samples=180, n_segments=15), uniform_indices(900, 180)
    )


def test_samples_gather_where_the_motion_is():
    motion = np.full(319, 0.1)
    motion[160:180] = 30.0
    indices = sample_indices(motion, n_samples=48, n_segments=16)
    assert ((indices >= 160) & (indices < 180)).sum() == 20  # all its frames
    assert (counts_per_segment(indices, 320, 16) >= 1).all()


def test_samples_are_in_proportion_to_motion():
    motion = np.repeat([1.0, 2.0, 5.0], 100)[:-1]
    indices = sample_indices(motion, n_samples=80, n_segments=3)
    np.testing.assert_array_equal(counts_per_segment(indices, 300, 3), [10, 20, 50])


def test_motions_that_are_tiny_beside_the_largest_are_still_told_apart():
    motion = np.repeat([1.0, 1e-8, 3e-8], 10)[:-1]
    indices = sample_indices(motion, n_samples=14, n_segments=3)
    np.testing.assert_array_equal(counts_per_segment(indices, 30, 3), [10, 1, 3])


def test_huge_and_tiny_motions_neither_overflow_nor_vanish():
    motion = np.repeat([1.0, 3.0], 100)[:-1]
    expected = sample_indices(motion, n_samples=40, n_segments=2)
    for scale in (1e308 / 3, 1e-300):
        np.testing.assert_array_equal(
            sample_indices(motion * scale, n_samples=40, n_segments=2), expected
        )


def test_a_single_frame_is_sampled_once():
    np.testing.assert_array_equal(sample_indices(np.empty(0), n_samples=180), [0])


@given(st.integers(1, 500), st.integers(1, 500))
def test_uniform_samples_are_as_even_as_frames_allow(n_frames, n_samples):
    indices = uniform_indices(n_frames, n_samples)
    assert len(indices) == min(n_frames, n_samples)
    steps = np.diff(indices)
    if len(steps):
        assert steps.max() - steps.min() <= 1
        assert steps.min() >= 1
    assert (
        abs(int(indices[0]) - (n_frames - 1 - int(indices[-1]))) <= 1
    )  # as much before the first as after the last


def test_motion_length_of_a_uniform_displacement_is_its_length():
    flow = np.zeros((3, 2, 5, 7), dtype=np.float32)
    flow[1, 0], flow[1, 1] = 3, -4
    np.testing.assert_allclose(motion_lengths(flow), [0, 5, 0], rtol=1e-12)


def test_a_panning_camera_is_no_motion_once_the_mean_is_subtracted():
    body = np.zeros((1, 2, 8, 8), dtype=np.float32)
    body[0, 0, :2, :2] = 4
    pan = np.float32([3, -2])[None, :, None, None]
    still = motion_lengths(body, subtract_mean=True)
    np.testing.assert_allclose(motion_lengths(body + pan, subtract_mean=True), still, rtol=1e-6)
    assert motion_lengths(body + pan)[0] > 10 * motion_lengths(body)[0]


@given(
    st.lists(st.floats(0, 50), min_size=1, max_size=60).map(np.array),
    st.integers(1, 12),
    st.integers(1, 4),
)
def test_stack_motion_is_the_mean_over_the_fields_of_each_stack(motion, stack_length, step):
    n_starts = len(motion) - (stack_length - 1) * step
    means = stack_motion(motion, stack_length, step=step)
    if n_starts >= 1:
        expected = [
            np.mean([motion[t + k * step] for k in range(stack_length)]) for t in range(n_starts)
        ]
    else:
        expected = [np.mean(motion[::step])]
    np.testing.assert_allclose(means, expected, rtol=1e-12)


def test_sampling_over_stack_starts_reaches_the_last_valid_start_and_no_further():
    motion = np.ones(29)  # 30 frames: stacks of 10 start at 0 to 19
    starts = sample_indices(stack_motion(motion, 10)[:-1], n_samples=100)
    np.testing.assert_array_equal(starts, np.arange(20))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_indices(np.ones(9), n_samples=0), "n_samples is 0"),
        (lambda: sample_indices(np.ones(9), n_samples=4, n_segments=-2), "n_segments is -2"),
        (lambda: sample_indices(np.array([1, -0.5, 0]), n_samples=2), r"motion\[1\] is -0.5"),
        (lambda: uniform_indices(0, 5), "n_frames is 0"),
        (lambda: stack_motion(np.ones(9), 0), "stack_length is 0"),
        (lambda: stack_motion(np.ones(9), 3, step=0), "step is 0"),
        (lambda: stack_motion(np.empty(0), 3), "number of motion values is 0"),
    ],
)
def test_impossible_requests_are_refused_with_their_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
