from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tristream.flow.sampling import sample_indices, uniform_indices
from tristream.store.cache import Cache
from tristream.streams.augment import AugmentConfig
from tristream.streams.config import SamplerConfig
from tristream.streams.segments import Absent
from tristream.streams.spatial.encoder import build_encoder
from tristream.streams.spatial.stream import STREAM, SpatialConfig

TIMM = "test_resnet"  # the smallest of timm's, made for tests
CONFIG = SpatialConfig(input_size=(24, 32))
NO_VIEW = AugmentConfig(flip=False, crop_scale=(1.0, 1.0), shift=0.0)


@pytest.fixture
def video_of(make_videos, tmp_path):
    def make(decoded, sampler):
        [video], _ = make_videos({"v.mp4": decoded}, Cache(tmp_path / "cache"), sampler=sampler)
        return video

    return make


def still_then_moving(toy_video, n_still=60, n_moving=30):
    moving = toy_video(n_moving, seed=3).frames
    frames = np.concatenate([np.repeat(moving[:1], n_still, axis=0), moving])
    return dataclasses.replace(toy_video(n_still + n_moving), frames=frames)


def test_uniform_frames_are_spread_evenly(toy_video, video_of):
    sampler = SamplerConfig(method="uniform", n_samples=9)
    decoded = still_then_moving(toy_video)
    footage = STREAM(CONFIG, sampler).footage(video_of(decoded, sampler))
    chosen = uniform_indices(90, 9)
    assert np.array_equal(footage.start_seconds, decoded.start_seconds[chosen])
    assert np.array_equal(footage.stop_seconds, decoded.stop_seconds[chosen])
    assert footage.plan.tolist() == list(range(9))


def test_adaptive_frames_are_dense_where_it_moves(toy_video, video_of):
    sampler = SamplerConfig(method="adaptive", n_samples=18, n_segments=9, max_side_px=64)
    video = video_of(still_then_moving(toy_video), sampler)
    footage = STREAM(CONFIG, sampler).footage(video)
    chosen = sample_indices(video.motion, n_samples=18, n_segments=9)
    assert np.array_equal(footage.start_seconds, video.decoded.start_seconds[chosen])
    assert (chosen >= 58).sum() >= 11
    assert (chosen < 58).sum() >= 5, "what is still is looked at too"


@pytest.mark.parametrize("method", ["adaptive", "uniform"])
@pytest.mark.parametrize("n_frames", [1, 2, 8, 9])
def test_a_video_shorter_than_the_budget_is_taken_whole(toy_video, video_of, method, n_frames):
    sampler = SamplerConfig(method=method, n_samples=9, n_segments=3)
    footage = STREAM(CONFIG, sampler).footage(video_of(toy_video(n_frames), sampler))
    assert len(footage.array) == n_frames
    assert np.array_equal(footage.start_seconds, np.arange(n_frames) / 25)


def test_frames_of_any_aspect_are_squashed_to_the_size_of_the_network(toy_video, video_of):
    """Left half black, right half white: still so, and every pixel a mean of an area."""
    frames = np.zeros((4, 96, 64, 3), np.uint8)
    frames[:, :, 32:] = 255
    frames[:, ::2, 32:] = 55  # stripes of one row: gone when two rows become one
    decoded = dataclasses.replace(toy_video(4), frames=frames)
    config = SpatialConfig(input_size=(48, 16))
    sampler = SamplerConfig(method="uniform")
    [first, *_] = (
        STREAM(config, SamplerConfig())
        .cut(STREAM(config, sampler).footage(video_of(decoded, sampler)))
        .array
    )
    assert first.shape == (48, 16, 3)
    assert (first[:, :8] == 0).all()
    assert (first[:, 8:] == 155).all()


def test_frames_of_the_right_size_are_not_touched(toy_video, video_of):
    decoded, sampler = toy_video(5), SamplerConfig(method="uniform")
    config = SpatialConfig(input_size=(64, 64))
    assert np.array_equal(
        STREAM(config, sampler).footage(video_of(decoded, sampler)).array, decoded.frames
    )


def test_a_file_without_frames_is_absent(toy_video, video_of):
    with pytest.raises(Absent, match=r"^no_video$"):
        STREAM(CONFIG, SamplerConfig()).footage(video_of(toy_video(5, blind=True), SamplerConfig()))


def footage_of_one_picture(toy_video, video_of, n=6):
    decoded, sampler = toy_video(1), SamplerConfig(method="uniform")
    footage = STREAM(CONFIG, sampler).footage(video_of(decoded, sampler))
    return dataclasses.replace(
        footage, array=np.repeat(footage.array, n, axis=0), start_seconds=np.arange(float(n)),
        stop_seconds=np.arange(float(n)) + 1, plan=np.arange(n),
    )  # fmt: skip


def test_all_frames_of_a_video_have_one_view_and_those_of_a_training_batch_have_their_own(
    toy_video, video_of
):
    config = CONFIG.model_copy(update={"brightness": 0.3})
    footage = footage_of_one_picture(toy_video, video_of)
    for seed in range(5):
        pictures = STREAM(config, SamplerConfig()).cut(footage, np.random.default_rng(seed)).array
        assert (pictures == pictures[0]).all()
    batch = STREAM(config, SamplerConfig()).training_segments(
        [footage] * 8, np.random.default_rng(0)
    )
    assert len({picture.numpy().tobytes() for picture in batch}) == 8


def test_without_augmentation_a_view_is_the_frame_itself(toy_video, video_of):
    config = CONFIG.model_copy(update={"augment": NO_VIEW, "brightness": 0.0})
    footage = footage_of_one_picture(toy_video, video_of)
    assert np.array_equal(
        STREAM(config, SamplerConfig()).cut(footage, np.random.default_rng(0)).array, footage.array
    )


def test_brightness_is_a_factor_that_never_overflows(toy_video, video_of):
    config = CONFIG.model_copy(update={"augment": NO_VIEW, "brightness": 0.5})
    footage = footage_of_one_picture(toy_video, video_of)
    before, gains = footage.array.astype(float), []
    for seed in range(20):
        seen = (
            STREAM(config, SamplerConfig())
            .cut(footage, np.random.default_rng(seed))
            .array.astype(float)
        )
        gain = np.median(seen[seen < 255] / before[seen < 255])
        gains.append(gain)
        np.testing.assert_allclose(seen, np.minimum(255, before * gain), atol=1.5)
    assert 0.5 <= min(gains) < 0.8 < 1.2 < max(gains) <= 1.5


def test_frames_are_normalised_as_in_the_networks_training():
    encoder = build_encoder(TIMM, 3).eval()
    mean, std = (np.array(encoder.encoder.network.pretrained_cfg[key]) for key in ("mean", "std"))
    pictures = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    by_hand = torch.from_numpy(((pictures.numpy() / 255 - mean) / std).astype(np.float32)).permute(
        0, 3, 1, 2
    )
    with torch.inference_mode():
        torch.testing.assert_close(
            encoder.embed(pictures), encoder.encoder.network(by_hand), rtol=1e-4, atol=1e-5
        )


def test_any_network_of_timm_takes_weights_from_a_local_file(tmp_path):
    torch.manual_seed(0)
    first = build_encoder(TIMM, 3).eval()
    state = {
        **first.encoder.network.state_dict(),
        "fc.weight": torch.zeros(5, 7),
    }  # a classifier of other classes
    save_file(state, tmp_path / "net.safetensors")
    torch.manual_seed(1)
    second = build_encoder(TIMM, 4, weights=tmp_path / "net.safetensors").eval()
    pictures = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(first.embed(pictures), second.embed(pictures))
        assert second(pictures).shape == (2, 4)


def test_weights_of_another_network_are_refused_and_the_first_tensor_named(tmp_path):
    state = build_encoder(TIMM, 3).encoder.network.state_dict()
    name = sorted(state)[0]
    fewer = {key: value for key, value in state.items() if key != name}
    save_file(fewer, tmp_path / "net.safetensors")
    sentence = rf"does not fit '{TIMM}': 1 tensors are missing and 0 have .* \(first: {name}\)"
    with pytest.raises(ValueError, match=sentence):
        build_encoder(TIMM, 3, weights=tmp_path / "net.safetensors")
    save_file({**state, name: torch.zeros(3)}, tmp_path / "net.safetensors")
    with pytest.raises(
        ValueError, match=rf"0 tensors are missing and 1 have another shape \(first: {name}\)"
    ):
        build_encoder(TIMM, 3, weights=tmp_path / "net.safetensors")


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04pickle"])
def test_weights_that_cannot_be_read_are_refused_by_name(tmp_path, content):
    file = tmp_path / "net.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"net\.safetensors cannot be read as safetensors weights of '{TIMM}'"
    ):
        build_encoder(TIMM, 3, weights=file)


def test_an_unknown_network_is_refused():
    sentence = r"unknown spatial encoder 'resnet1'; available: small, mobilenet_v2, or a name of timm \(.*resnet1"
    with pytest.raises(ValueError, match=sentence):
        build_encoder("resnet1", 3)
    with pytest.raises(ValueError, match=r"unknown spatial encoder 'zzz'; .*list_models"):
        build_encoder("zzz", 3)


def test_the_small_network_takes_no_weights(tmp_path):
    sentence = r"encoder 'small' is trained from scratch and takes no weights, not .*x\.safetensors"
    with pytest.raises(ValueError, match=sentence):
        build_encoder("small", 3, weights=tmp_path / "x.safetensors")
