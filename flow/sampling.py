"""Adaptive sampling of frames, denser where there is more motion.

Source: Tkachenko 2018 §IV-F, which asks for samples in proportion to the mean displacement length of each segment of
the video. Segment length, rounding, the least number per segment and what to do without motion are our choices: see
`sample_indices`.
"""

from __future__ import annotations

import heapq
import itertools
import math

import numpy as np
from jaxtyping import Float, Int

from tristream.errors import TristreamError

_SMALLEST_SHARE = (
    1e-9  # of the largest segment's motion: a still segment is last in the queue, but in it
)
_GRID = (
    2.0**40
)  # motion is compared on this grid, so that rounding errors in a scaled input cannot break a tie


def sample_indices(
    motion: Float[np.ndarray, "steps"], *, n_samples: int, n_segments: int = 16
) -> Int[np.ndarray, "samples"]:
    """Return increasing indices of min(n_samples, T) out of T = len(motion) + 1 frames, dense where there is motion.

    The frames are cut into `n_segments` equal segments (fewer if there are fewer samples). Each gets one sample; the
    rest is shared out by Webster's (Sainte-Laguë's) rule in proportion to the segment's mean motion, no segment getting
    more samples than it has frames. Inside its segment samples are evenly spaced, each in the middle of its share.

    Webster's rule is house-monotone: from `n_segments` samples upwards, a larger budget never takes a sample away from
    a segment. Constant motion gives a constant step if `n_segments` divides `n_samples` and `n_samples` divides T: 180
    of 900 frames in 15 segments are every 5th frame.

    Args:
        motion: mean |flow| of each of the T - 1 steps between frames (any unit: only ratios count). No motion anywhere,
            or a value that is not finite, gives evenly spread samples.
        n_samples: the budget, at least 1.
        n_segments: at least 1.

    Raises:
        TristreamError: a negative motion, `n_samples` or `n_segments` below 1.
    """
    _at_least_one("n_samples", n_samples)
    _at_least_one("n_segments", n_segments)
    motion = np.asarray(motion, dtype=np.float64)
    if motion.size and motion.min() < 0:
        t = int(motion.argmin())
        raise TristreamError(
            f"motion[{t}] is {motion[t]}; a mean length of displacements must be at least 0"
        )
    n_frames = len(motion) + 1
    if n_samples >= n_frames:
        return np.arange(n_frames, dtype=np.int64)
    n_segments = min(n_segments, n_samples)
    bounds = [i * n_frames // n_segments for i in range(n_segments + 1)]
    lengths = [stop - start for start, stop in itertools.pairwise(bounds)]
    counts = _apportion(_segment_weights(motion, bounds), lengths, n_samples)
    return np.concatenate(
        [start + uniform_indices(n, k) for start, n, k in zip(bounds, lengths, counts)]
    )


def uniform_indices(n_frames: int, n_samples: int) -> Int[np.ndarray, "samples"]:
    """Return the indices of min(n_samples, n_frames) evenly spaced frames, each in the middle of its interval.

    Raises:
        TristreamError: `n_frames` or `n_samples` below 1.
    """
    _at_least_one("n_frames", n_frames)
    _at_least_one("n_samples", n_samples)
    n_samples = min(n_samples, n_frames)
    j = np.arange(n_samples, dtype=np.int64)
    return (2 * j + 1) * n_frames // (2 * n_samples)


def motion_lengths(
    flow: Float[np.ndarray, "steps 2 H W"], *, subtract_mean: bool = False
) -> Float[np.ndarray, "steps"]:
    """Return the mean |flow| of each step in px, float64.

    Args:
        flow: displacements in px, x then y.
        subtract_mean: take each field's mean vector away first, so that a moving camera does not count as motion.
    """
    lengths = np.empty(len(flow))
    for t, field in enumerate(flow):  # (2, H, W); one at a time: a video of flow is large
        if subtract_mean:
            field = field - field.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
        lengths[t] = np.hypot(field[0], field[1]).mean(dtype=np.float64)
    return lengths


def stack_motion(
    motion: Float[np.ndarray, "steps"], stack_length: int, *, step: int = 1
) -> Float[np.ndarray, "starts"]:
    """Return the mean motion of the flow stack at each valid start, float64; one value for a shorter video.

        motion  0 1 2 3 4 5 6      stack_length 3, step 2:  stack 0 = fields 0 2 4
                ^   ^   ^                                   stack 1 =   1 3 5
                                                            stack 2 =     2 4 6

    To sample `n` among the starts, which `sample_indices` takes for frames, one value fewer than starts is passed:
    `sample_indices(stack_motion(motion, 10)[:-1], n_samples=n)`.

    Raises:
        TristreamError: no motion at all (a single frame), `stack_length` or `step` below 1.
    """
    _at_least_one("stack_length", stack_length)
    _at_least_one("step", step)
    _at_least_one("the number of motion values", len(motion))
    motion = np.asarray(motion, dtype=np.float64)
    span = (stack_length - 1) * step + 1  # fields from a stack's first to its last
    if len(motion) < span:
        return motion[::step].mean(keepdims=True)
    return np.lib.stride_tricks.sliding_window_view(motion, span)[:, ::step].mean(axis=1)


def _segment_weights(motion: Float[np.ndarray, "steps"], bounds: list[int]) -> list[float]:
    """Return the mean motion of each segment over the steps that begin in it, on an integer grid, never quite 0."""
    largest = motion.max()
    if not np.isfinite(motion).all() or largest == 0:
        return [1.0] * (len(bounds) - 1)
    shares = motion / largest  # before any sum, which could overflow
    means = []
    for start, stop in itertools.pairwise(bounds):
        steps = shares[start:stop]  # the last frame begins no step
        means.append(math.fsum(steps) / len(steps) if len(steps) else 0.0)
    top = max(means)
    return [float(round(_GRID * (mean / top + _SMALLEST_SHARE))) for mean in means]


def _apportion(weights: list[float], lengths: list[int], n_samples: int) -> list[int]:
    """Return Webster's apportionment of `n_samples` seats: 1 to `lengths[s]` each, ties to the first."""
    counts = [1] * len(weights)
    queue = [(-weight / 3, s) for s, weight in enumerate(weights) if lengths[s] > 1]
    heapq.heapify(queue)
    for _ in range(n_samples - len(weights)):
        s = queue[0][1]
        counts[s] += 1
        if counts[s] < lengths[s]:
            heapq.heapreplace(queue, (-weights[s] / (2 * counts[s] + 1), s))
        else:
            heapq.heappop(queue)
    return counts


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise TristreamError(f"{name} is {value}; it must be at least 1")
