from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from tristream.flow.sampling import stack_motion, uniform_indices
from tristream.store.cache import Cache
from tristream.streams.augment import AugmentConfig, draw_views
from tristream.streams.config import SamplerConfig
from tristream.streams.segments import Absent
from tristream.streams.temporal.stacks import flip_horizontally, stack_flow
from tristream.streams.temporal.stream import STREAM, TemporalConfig, _fields, _stacks, _stacks_on

FPS = 25.0
UNIFORM = SamplerConfig(method="uniform", n_samples=1000)
SMALL = TemporalConfig(
    estimate_size=(64, 64), input_size=(32, 32), stack_length=5, estimator="dis_ultrafast"
)
FLIP_ONLY = AugmentConfig(flip=True, crop_scale=(1.0, 1.0), shift=0.0)


@pytest.fixture
def footage_of(make_videos, tmp_path):
    """(decoded, …) → Footage."""

    def make(decoded, config=SMALL, sampler=UNIFORM):
        [video], _ = make_videos(
            {"v.mp4": decoded}, Cache(tmp_path / "cache"), sampler=sampler, content={"v.mp4": "c"}
        )
        return STREAM(config, sampler).footage(video)

    return make


def drifting(n_frames, velocity, toy_video, side=64):
    """Return a texture that moves by `velocity` (x, y) px at every step, on a torus."""
    generator = np.random.default_rng(1)
    texture = cv2.GaussianBlur(
        generator.integers(0, 255, (side, side, 3)).astype(np.float32), (0, 0), 2
    )
    texture = np.clip((texture - texture.mean()) * 4 + 128, 0, 255).astype(np.uint8)
    frames = np.stack(
        [np.roll(texture, (t * velocity[1], t * velocity[0]), (0, 1)) for t in range(n_frames)]
    )
    return dataclasses.replace(toy_video(n_frames), frames=frames)


@pytest.mark.parametrize(("length", "step"), [(5, 1), (10, 1), (4, 3), (1, 1)])
def test_a_stack_lasts_from_its_first_frame_until_its_last_field_ends(
    toy_video, footage_of, length, step
):
    """DESIGN, Times: from pts τ to pts τ + L; with a step, to where the last field leads."""
    times = np.sort(
        np.random.default_rng(0).uniform(0, 2, 40)
    )  # any presentation times, not only constant rates
    ends = np.append(times[1:], times[-1] + 0.1)
    decoded = dataclasses.replace(toy_video(40), start_seconds=times, stop_seconds=ends)
    config = SMALL.model_copy(update={"stack_length": length, "stack_step": step})
    segments = STREAM(config, UNIFORM).cut(footage_of(decoded, config))
    span = (length - 1) * step + 1
    assert len(segments) == 39 - span + 1, "every valid start, and no other"
    assert np.array_equal(segments.start_seconds, times[: len(segments)])
    assert np.array_equal(segments.stop_seconds, times[span : span + len(segments)])


def test_a_stack_is_the_fields_from_its_start_on(toy_video, footage_of):
    config = SMALL.model_copy(update={"mean_removed": False})
    footage = footage_of(toy_video(20), config)
    for start, stack in zip(footage.plan, STREAM(config, UNIFORM).cut(footage).array, strict=True):
        assert np.array_equal(stack, stack_flow(footage.array.astype(np.float32), int(start), 5))


def test_the_mean_of_every_field_is_removed_if_so_configured(toy_video, footage_of):
    footage = footage_of(toy_video(20))
    plain = SMALL.model_copy(update={"mean_removed": False})
    with_mean, without = (
        STREAM(plain, UNIFORM).cut(footage).array,
        STREAM(SMALL, UNIFORM).cut(footage).array,
    )
    assert np.abs(with_mean.mean(axis=(2, 3))).max() > 0.1
    assert np.abs(without.mean(axis=(2, 3))).max() < 1e-5
    np.testing.assert_allclose(
        with_mean - with_mean.mean(axis=(2, 3), keepdims=True), without, atol=1e-5
    )


@pytest.mark.parametrize("n_frames", [2, 3, 5])
def test_a_video_of_at_most_l_frames_repeats_its_last_field_and_has_that_reason(
    toy_video, footage_of, n_frames
):
    footage = footage_of(toy_video(n_frames))
    assert footage.reasons == ("padded_short_clip",)
    assert footage.plan.tolist() == [0]
    segments = STREAM(SMALL.model_copy(update={"mean_removed": False}), UNIFORM).cut(footage)
    fields = segments.array.reshape(5, 2, 32, 32)
    assert np.array_equal(fields[: n_frames - 1], footage.array.astype(np.float32))
    assert (fields[n_frames - 1 :] == fields[n_frames - 2]).all()
    assert segments.start_seconds[0] == 0
    assert segments.stop_seconds[0] == (n_frames - 1) / FPS


def test_a_video_of_one_frame_more_than_l_is_a_whole_stack(toy_video, footage_of):
    footage = footage_of(toy_video(6))
    assert footage.reasons == ()
    assert footage.plan.tolist() == [0]
    assert np.array_equal(STREAM(SMALL, UNIFORM).cut(footage).stop_seconds, [5 / FPS])


def test_a_video_of_one_frame_has_no_motion(toy_video, footage_of):
    with pytest.raises(Absent, match=r"^too_short_for_flow$"):
        footage_of(toy_video(1))


@pytest.mark.parametrize("method", ["adaptive", "uniform"])
@pytest.mark.parametrize("n_frames", [6, 7, 12, 40, 41])
def test_the_plan_is_over_valid_starts_only(toy_video, footage_of, method, n_frames):
    sampler = SamplerConfig(method=method, n_samples=6, n_segments=3, max_side_px=64)
    footage = footage_of(toy_video(n_frames), sampler=sampler)
    n_starts = n_frames - 5
    assert len(footage.plan) == min(6, n_starts)
    assert footage.plan[-1] < n_starts
    assert (np.diff(footage.plan) > 0).all()
    if method == "uniform" or n_starts <= 6:
        assert np.array_equal(footage.plan, uniform_indices(n_starts, 6))


def test_the_adaptive_plan_is_dense_where_there_is_motion(toy_video, footage_of):
    still = drifting(60, (0, 0), toy_video)
    frames = still.frames.copy()
    frames[40:] = drifting(20, (3, 1), toy_video).frames
    sampler = SamplerConfig(method="adaptive", n_samples=12, n_segments=4, max_side_px=64)
    footage = footage_of(dataclasses.replace(still, frames=frames), sampler=sampler)
    assert (footage.plan >= 35).sum() >= 8
    assert (footage.plan < 35).sum() >= 2, "what is still is looked at too"


def test_the_motion_of_a_plan_is_that_of_its_stacks(toy_video, footage_of, make_videos, tmp_path):
    """Frames are sampled by the motion of one step, stacks by that of all their fields."""
    from tristream.flow.sampling import sample_indices

    sampler = SamplerConfig(method="adaptive", n_samples=6, n_segments=3, max_side_px=64)
    [video], _ = make_videos({"v.mp4": toy_video(40)}, Cache(tmp_path / "c"), sampler=sampler)
    config = SMALL.model_copy(update={"stack_step": 2})
    motion = stack_motion(video.motion, 5, step=2)
    expected = sample_indices(motion[:-1], n_samples=6, n_segments=3)
    assert len(motion) == 31
    assert np.array_equal(STREAM(config, sampler).footage(video).plan, expected)


@pytest.mark.parametrize("velocity", [(2, 0), (0, 3), (-2, 1)])
def test_a_planted_translation_is_found_in_every_field(toy_video, footage_of, velocity):
    config = SMALL.model_copy(update={"mean_removed": False})
    stacks = (
        STREAM(config, UNIFORM).cut(footage_of(drifting(12, velocity, toy_video), config)).array
    )
    inner = stacks.reshape(len(stacks), 5, 2, 32, 32)[..., 8:-8, 8:-8]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1, 3, 4)), velocity, atol=0.2)


def test_the_mirrored_view_of_a_stack_is_the_stack_of_the_mirrored_video(
    toy_video, footage_of, make_videos, tmp_path
):
    """Motion to the right is motion to the left in a mirror: x changes sign, y does not."""
    video = drifting(12, (2, 1), toy_video)
    mirrored = dataclasses.replace(video, frames=np.ascontiguousarray(video.frames[:, :, ::-1]))
    config = SMALL.model_copy(update={"mean_removed": False, "augment": FLIP_ONLY})
    seed = next(
        seed
        for seed in range(20)
        if draw_views(1, FLIP_ONLY, np.random.default_rng(seed)).flipped[0]
    )
    footage = footage_of(video, config)
    view = STREAM(config, UNIFORM).cut(footage, np.random.default_rng(seed))
    flow = footage.array.astype(np.float32)
    plain = np.stack([stack_flow(flow, round(start * FPS), 5) for start in view.start_seconds])
    np.testing.assert_allclose(view.array, flip_horizontally(plain), atol=1e-4)
    [other], _ = make_videos({"m.mp4": mirrored}, Cache(tmp_path / "m"))
    seen = STREAM(config, UNIFORM).cut(STREAM(config, UNIFORM).footage(other)).array
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    assert np.median(np.abs(view.array[inner] - seen[: len(view)][inner])) < 0.1
    assert np.median(view.array[inner][:, 0::2]) == pytest.approx(-2, abs=0.2)
    assert np.median(view.array[inner][:, 1::2]) == pytest.approx(1, abs=0.2)


def test_an_augmented_video_moves_all_its_starts_equally_within_the_valid_range(
    toy_video, footage_of
):
    sampler = SamplerConfig(method="uniform", n_samples=5)
    footage = footage_of(toy_video(60), sampler=sampler)
    last = (60 - 5 - 1) / FPS
    plain, moved = STREAM(SMALL, UNIFORM).cut(footage).start_seconds, set()
    for seed in range(40):
        starts = STREAM(SMALL, UNIFORM).cut(footage, np.random.default_rng(seed)).start_seconds
        assert starts.min() >= 0
        assert starts.max() <= last + 1e-9
        moved.add(round((starts[2] - plain[2]) * FPS))
        np.testing.assert_allclose(np.diff(starts[1:4]), np.diff(plain[1:4]), atol=1e-9)
    assert min(moved) < 0 < max(moved)
    assert max(map(abs, moved)) <= 6, "half the distance between two starts"


def test_training_stacks_start_at_every_valid_start(toy_video, footage_of):
    config = SMALL.model_copy(
        update={"mean_removed": False, "augment": FLIP_ONLY.model_copy(update={"flip": False})}
    )
    footage = footage_of(toy_video(12), config, SamplerConfig(method="uniform", n_samples=2))
    valid = [stack_flow(footage.array.astype(np.float32), start, 5) for start in range(7)]
    drawn = (
        STREAM(config, UNIFORM).training_segments([footage] * 200, np.random.default_rng(0)).numpy()
    )
    found = [
        next(i for i, stack in enumerate(valid) if np.array_equal(stack, row)) for row in drawn
    ]
    assert set(found) == set(range(7)), "starts are not bound to the plan"


@pytest.mark.parametrize("mean_removed", [True, False])
@pytest.mark.parametrize("n_frames", [4, 20])
def test_stacks_made_on_the_device_of_the_training_are_those_of_the_cpu(
    toy_video, footage_of, mean_removed, n_frames
):
    config = SMALL.model_copy(update={"mean_removed": mean_removed})
    footage = footage_of(toy_video(n_frames), config)
    fields = np.stack([_fields(footage, 0, config)] * 2)
    assert fields.dtype == np.float16
    made = _stacks_on(torch.device("cpu"), fields, config).numpy()
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[1], _stacks([(footage, 0)], config)[0], rtol=1e-6, atol=1e-6)


def test_flow_is_kept_finely_enough(toy_video, footage_of, make_videos, tmp_path):
    [video], _ = make_videos({"v.mp4": toy_video(20)}, Cache(tmp_path / "x"))
    exact = video.flow("dis_ultrafast", (64, 64), (32, 32)).field
    assert np.abs(footage_of(toy_video(20)).array.astype(np.float32) - exact).max() < 0.02


def test_an_unknown_estimator_is_refused_with_the_available_ones(toy_video, footage_of):
    with pytest.raises(ValueError, match=r"unknown flow estimator 'flownet9'; available: dis, "):
        footage_of(toy_video(20), SMALL.model_copy(update={"estimator": "flownet9"}))
