from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tristream.flow import estimators
from tristream.flow.sampling import motion_lengths
from tristream.store.cache import Cache
from tristream.streams.config import DataConfig, SamplerConfig
from tristream.streams.segments import Absent
from tristream.streams.video import Video, View, fit, part, reduce_flow, squash


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def video_of(make_videos, cache):
    def make(decoded, content="c", **options):
        videos, decoded_paths = make_videos(
            {"v.mp4": decoded}, cache, content={"v.mp4": content}, **options
        )
        return videos[0], decoded_paths

    return make


@pytest.mark.parametrize(
    ("size", "max_side", "fitted"),
    [
        ((240, 320), 128, (96, 128)),
        ((320, 240), 128, (128, 96)),
        ((64, 64), 128, (64, 64)),
        ((1, 1000), 100, (1, 100)),
    ],
)
def test_frames_are_scaled_down_until_the_longer_side_fits_and_never_up(size, max_side, fitted):
    assert fit(size, max_side) == fitted


def test_smaller_frames_are_means_of_areas():
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    means = frames.reshape(3, 4, 2, 6, 2, 3).mean(axis=(2, 4))
    assert np.abs(squash(frames, 4, 6) - means).max() <= 0.5
    assert squash(frames, 8, 12) is frames
    assert squash(frames, 5, 20).shape == (3, 5, 20, 3)


def test_smaller_flow_is_a_mean_of_areas_in_the_same_unit():
    flow = np.random.default_rng(0).normal(size=(3, 2, 8, 12)).astype(np.float32)
    np.testing.assert_allclose(
        reduce_flow(flow, 4, 6), flow.reshape(3, 2, 4, 2, 6, 2).mean(axis=(3, 5)), atol=1e-6
    )
    assert reduce_flow(flow, 8, 12) is flow
    constant = np.full((1, 2, 9, 7), 3.25, np.float32)
    assert (reduce_flow(constant, 4, 20) == 3.25).all()


def test_a_video_is_decoded_when_it_is_first_looked_at_and_only_once(toy_video, video_of):
    video, decoded = video_of(toy_video(10))
    assert decoded == []
    for _ in range(2):
        video.frames()
        _ = video.motion
        video.flow("dis_ultrafast", (64, 64), (32, 32))
    assert decoded == ["v.mp4"]


def test_what_is_asked_of_the_decoder_is_what_is_wanted(tmp_path, toy_video, cache):
    asked = []

    def decode(path, **wanted):
        asked.append(wanted)
        return toy_video(5)

    data, sampler = DataConfig(max_side_px=48), SamplerConfig(max_seconds=7)
    video = Video(
        "v", tmp_path, "c", decode=decode, cache=cache, view=View(data, sampler, sound=False)
    )
    _ = video.decoded
    assert asked == [{"pictures": True, "sound": False, "max_side": 48, "stop_seconds": 7.0}]


def test_flow_is_the_estimators_at_the_asked_for_size_within_a_128th_of_a_pixel(
    toy_video, video_of
):
    decoded = toy_video(6)
    flow = video_of(decoded)[0].flow("dis_ultrafast", (48, 40), (24, 20))
    expected = reduce_flow(estimators.load("dis_ultrafast")(squash(decoded.frames, 48, 40)), 24, 20)
    assert np.abs(flow.field - expected).max() <= 1 / 128 + 1e-6
    assert np.array_equal(flow.start_seconds, decoded.start_seconds)
    assert np.array_equal(flow.stop_seconds, decoded.stop_seconds)


def test_flow_and_motion_from_the_cache_are_what_was_computed(toy_video, video_of):
    first, _ = video_of(toy_video(10))
    flow, motion = first.flow("dis_ultrafast", (64, 64), (32, 32)), first.motion
    again, decoded = video_of(AssertionError("decoded"))
    cached = again.flow("dis_ultrafast", (64, 64), (32, 32))
    assert np.array_equal(cached.field, flow.field)
    assert np.array_equal(cached.start_seconds, flow.start_seconds)
    assert np.array_equal(again.motion, motion)
    assert decoded == []


def test_motion_is_the_mean_length_of_the_displacements(toy_video, video_of):
    decoded = toy_video(10)
    video, _ = video_of(decoded, sampler=SamplerConfig(max_side_px=32, estimator="dis_fast"))
    expected = motion_lengths(estimators.load("dis_fast")(squash(decoded.frames, 32, 32)))
    np.testing.assert_allclose(video.motion, expected)
    assert len(video.motion) == 9


@pytest.mark.parametrize(
    ("options", "ask"),
    [
        ({}, ("dis_fast", (64, 64), (32, 32))),
        ({}, ("dis_ultrafast", (48, 64), (32, 32))),
        ({}, ("dis_ultrafast", (64, 64), (16, 32))),
        ({"content": "d"}, ("dis_ultrafast", (64, 64), (32, 32))),
        ({"data": DataConfig(max_side_px=32)}, ("dis_ultrafast", (64, 64), (32, 32))),
        (
            {"data": DataConfig(max_side_px=64, crop=(0, 0, 1, 0.5))},
            ("dis_ultrafast", (64, 64), (32, 32)),
        ),
        ({"sampler": SamplerConfig(max_seconds=5)}, ("dis_ultrafast", (64, 64), (32, 32))),
    ],
)
def test_whatever_changes_the_flow_is_in_its_key(toy_video, video_of, options, ask):
    video_of(toy_video(10))[0].flow("dis_ultrafast", (64, 64), (32, 32))
    other, decoded = video_of(toy_video(12), **options)
    assert len(other.flow(*ask).field) == 11
    assert decoded == ["v.mp4"]


def test_one_estimate_serves_the_sampler_and_the_stream_if_they_ask_for_the_same(
    toy_video, video_of, monkeypatch
):
    calls, load = [], estimators.load

    def counting(name, **kwargs):
        estimate = load(name, **kwargs)
        return lambda frames: calls.append(name) or estimate(frames)

    monkeypatch.setattr(estimators, "load", counting)
    video, _ = video_of(toy_video(10), sampler=SamplerConfig(max_side_px=64))
    video.flow("dis_ultrafast", (64, 64), (32, 32))
    _ = video.motion
    assert calls == ["dis_ultrafast"]


@pytest.mark.parametrize(
    ("n_frames", "blind", "reason"), [(1, False, "too_short_for_flow"), (5, True, "no_video")]
)
def test_a_video_without_motion_has_a_reason(toy_video, video_of, n_frames, blind, reason):
    video, _ = video_of(toy_video(n_frames, blind=blind))
    with pytest.raises(Absent, match=f"^{reason}$"):
        video.flow("dis_ultrafast", (64, 64), (32, 32))
    with pytest.raises(Absent, match=f"^{reason}$"):
        _ = video.motion


def test_reasons_are_those_of_the_file_and_not_of_its_missing_tracks(toy_video, video_of):
    video, _ = video_of(toy_video(5, silent=True, reasons=("timestamp_gap", "decode_errors")))
    assert video.reasons() == ()
    _ = video.decoded
    assert video.reasons(("padded_short_clip",)) == (
        "decode_errors",
        "padded_short_clip",
        "timestamp_gap",
    )


def test_released_data_of_a_video_is_loaded_again_on_demand(toy_video, video_of):
    video, decoded = video_of(toy_video(5))
    first = video.frames()
    video.forget()
    assert np.array_equal(video.frames(), first)
    assert decoded == ["v.mp4"] * 2


@pytest.mark.parametrize(
    ("size", "crop", "rows", "columns"),
    [
        ((288, 360), (0.66, 0.33, 0.86, 0.55), (190, 248), (118, 198)),
        ((100, 100), (0.1, 0.0, 0.55, 1.0), (10, 55), (0, 100)),
        ((3, 5), (0.0, 0.5, 1.0, 0.51), (0, 3), (2, 3)),
    ],
)
def test_a_crop_keeps_every_pixel_it_touches(size, crop, rows, columns):
    assert part(size, crop) == (slice(*rows), slice(*columns))


def test_of_a_cropped_video_nothing_else_is_seen(toy_video, video_of):
    decoded, data = toy_video(10), DataConfig(max_side_px=64, crop=(0.25, 0.5, 0.75, 1.0))
    inside = dataclasses.replace(decoded, frames=decoded.frames[:, 16:48, 32:].copy())
    cropped, _ = video_of(decoded, data=data)
    alone, _ = video_of(inside, content="another")
    assert np.array_equal(cropped.frames(), inside.frames)
    assert np.array_equal(cropped.decoded.start_seconds, decoded.start_seconds)
    assert np.array_equal(cropped.decoded.samples, decoded.samples)
    np.testing.assert_allclose(cropped.motion, alone.motion)
    fields = [video.flow("dis_ultrafast", (32, 32), (16, 16)).field for video in (cropped, alone)]
    assert np.array_equal(*fields)


def test_precomputed_flow_is_of_the_whole_frame_and_cropped_with_it(toy_video, video_of, tmp_path):
    from safetensors.numpy import save_file

    flow = np.random.default_rng(0).normal(size=(4, 2, 20, 40)).astype(np.float32)
    save_file({"flow": flow}, tmp_path / "v.safetensors")
    data = DataConfig(max_side_px=64, crop=(0.5, 0.25, 1.0, 0.5))
    video, _ = video_of(toy_video(5), data=data, flow_from=tmp_path)
    got = video.flow("dis_ultrafast", (64, 64), (10, 10)).field
    assert np.abs(got - flow[:, :, 10:, 10:20]).max() <= 1 / 128 + 1e-6
