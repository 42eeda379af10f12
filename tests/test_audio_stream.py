from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tristream.store.cache import Cache
from tristream.streams.audio.logmel import SAMPLE_RATE, examples, log_mel
from tristream.streams.audio.stream import STREAM, AudioConfig
from tristream.streams.config import SamplerConfig
from tristream.streams.segments import Absent

PLAIN = AudioConfig(encoder="small", shift_frames=0)


def noise(n_samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, n_samples).astype(np.float32)


@pytest.fixture
def footage_of(make_videos, toy_video, tmp_path):
    """(samples, …) → Footage of a video with this track."""

    def make(samples, config=PLAIN, starts=0.0):
        decoded = dataclasses.replace(toy_video(25), samples=samples, samples_start_seconds=starts)
        [video], _ = make_videos({"v.mp4": decoded}, Cache(tmp_path / "cache"))
        return STREAM(config, SamplerConfig()).footage(video)

    return make


def test_examples_are_vggishs_own(footage_of):
    samples = noise(5 * SAMPLE_RATE)
    assert np.array_equal(
        STREAM(PLAIN, SamplerConfig()).cut(footage_of(samples)).array,
        examples(log_mel(samples, SAMPLE_RATE)),
    )
    config = AudioConfig(n_frames=32, hop_frames=16)
    expected = examples(log_mel(samples, SAMPLE_RATE), n_frames=32, hop_frames=16)
    assert np.array_equal(
        STREAM(config, SamplerConfig()).cut(footage_of(samples, config)).array, expected
    )


@pytest.mark.parametrize("starts", [0.0, 0.3, 2.5])
def test_example_i_starts_i_hops_after_the_track(footage_of, starts):
    """DESIGN, Times: [track offset + 0.96 i, track offset + 0.96 i + 0.96)."""
    segments = STREAM(PLAIN, SamplerConfig()).cut(footage_of(noise(5 * SAMPLE_RATE), starts=starts))
    assert len(segments) == 5
    np.testing.assert_allclose(segments.start_seconds, starts + 0.96 * np.arange(5), atol=1e-12)
    np.testing.assert_allclose(
        segments.stop_seconds, starts + 0.96 * (np.arange(5) + 1), atol=1e-12
    )


def test_a_shorter_hop_gives_more_examples_that_overlap(footage_of):
    config = AudioConfig(hop_frames=48)
    segments = STREAM(config, SamplerConfig()).cut(footage_of(noise(3 * SAMPLE_RATE), config))
    np.testing.assert_allclose(segments.start_seconds, 0.48 * np.arange(5), atol=1e-12)
    np.testing.assert_allclose(segments.stop_seconds - segments.start_seconds, 0.96, atol=1e-12)


def test_audio_that_starts_late_has_the_same_examples_at_later_times(footage_of):
    samples = noise(3 * SAMPLE_RATE)
    early, late = (
        STREAM(PLAIN, SamplerConfig()).cut(footage_of(samples, starts=starts))
        for starts in (0.0, 0.7)
    )
    assert np.array_equal(early.array, late.array)
    np.testing.assert_allclose(late.start_seconds - early.start_seconds, 0.7, atol=1e-12)


@pytest.mark.parametrize(
    ("n_samples", "n_frames", "n_examples"),
    [
        (15_600, 96, 1),
        (15_599, 96, 0),
        (15_360, 96, 0),
        (400, 96, 0),
        (1, 96, 0),
        (5_360, 32, 1),
        (5_359, 32, 0),
    ],
)
def test_audio_too_short_for_one_example_is_absent_for_that_reason(
    footage_of, n_samples, n_frames, n_examples
):
    """0.96 s are not enough for 96 rows: the last window reaches 15 ms further."""
    config = AudioConfig(n_frames=n_frames)
    if n_examples:
        assert (
            len(STREAM(config, SamplerConfig()).cut(footage_of(noise(n_samples), config)))
            == n_examples
        )
    else:
        with pytest.raises(Absent, match=r"^audio_too_short$"):
            footage_of(noise(n_samples), config)


def test_no_audio_is_not_silence(footage_of):
    with pytest.raises(Absent, match=r"^no_audio$"):
        footage_of(None)
    silent = (
        STREAM(PLAIN, SamplerConfig()).cut(footage_of(np.zeros(3 * SAMPLE_RATE, np.float32))).array
    )
    np.testing.assert_allclose(silent, np.log(0.01), atol=1e-5)


def test_moved_audio_is_the_same_track_a_little_earlier_or_later(footage_of):
    config = AudioConfig(shift_frames=8)
    footage = footage_of(noise(3 * SAMPLE_RATE), config)
    moves = set()
    for seed in range(60):
        moved = STREAM(config, SamplerConfig()).cut(footage, np.random.default_rng(seed)).array
        fitting = [
            shift for shift in range(-8, 9)
            if np.array_equal(moved[1], footage.array[96 + shift : 192 + shift])
        ]  # fmt: skip
        assert len(fitting) == 1
        moves.add(fitting[0])
    assert min(moves) == -8
    assert max(moves) == 8


def test_blanked_bands_and_steps_hold_the_mean_of_the_track(footage_of):
    config = AudioConfig(shift_frames=0, mask_bands=12, mask_frames=30)
    footage = footage_of(noise(3 * SAMPLE_RATE), config)
    n_bands, n_steps = set(), set()
    for seed in range(80):
        rows = (
            STREAM(config, SamplerConfig())
            .cut(footage, np.random.default_rng(seed))
            .array.reshape(-1, 64)
        )
        blank = rows != footage.array[: len(rows)]
        bands, steps = blank.all(axis=0), blank.all(axis=1)
        assert np.array_equal(blank, bands[None] | steps[:, None])
        assert (np.diff(np.flatnonzero(bands)) == 1).all(), "neighbours"
        assert (np.diff(np.flatnonzero(steps)) == 1).all()
        assert np.ptp(rows[:, bands], axis=0).max(initial=0) == 0, "one value"
        if bands.any() and not steps.any():
            assert rows[0, bands][0] == pytest.approx(footage.array.mean(), abs=1e-4)
        n_bands.add(bands.sum())
        n_steps.add(steps.sum())
    assert (min(n_bands), max(n_bands)) == (0, 12)
    assert min(n_steps) == 0
    assert 25 <= max(n_steps) <= 30


def test_augmentation_does_not_touch_the_track_itself(footage_of):
    config = AudioConfig(shift_frames=0, mask_bands=64, mask_frames=90)
    footage = footage_of(noise(3 * SAMPLE_RATE), config)
    before = footage.array.copy()
    STREAM(config, SamplerConfig()).training_segments([footage] * 20, np.random.default_rng(0))
    for seed in range(20):
        STREAM(config, SamplerConfig()).cut(footage, np.random.default_rng(seed)).array.sum()
    assert np.array_equal(footage.array, before)


def test_training_examples_start_at_any_step(footage_of):
    footage = footage_of(noise(15_600 + 5 * 160))
    drawn = (
        STREAM(PLAIN, SamplerConfig())
        .training_segments([footage] * 100, np.random.default_rng(0))
        .numpy()
    )
    starts = [
        next(t for t in range(7) if np.array_equal(footage.array[t : t + 96], row)) for row in drawn
    ]
    assert set(starts) == set(range(6))


@pytest.mark.parametrize(
    ("config", "width"),
    [
        (AudioConfig(width=0.0625), 128),
        (AudioConfig(encoder="small", embedding_dim=20), 20),
        (AudioConfig(encoder="small", embedding_dim=None, widths=(4, 8)), 8),
        (AudioConfig(encoder="small", n_frames=40, embedding_dim=20), 20),
    ],
)
def test_embeddings_have_the_width_that_encoders_declare(config, width):
    encoder = STREAM(config, SamplerConfig()).build_encoder(7).eval()
    rows = torch.randn(2, config.n_frames, 64)
    assert encoder.embed(rows).shape == (2, encoder.embedding_dim) == (2, width)
    assert encoder(rows).shape == (2, 7)


def test_the_paper_encoder_without_its_last_relu_has_negative_values():
    torch.manual_seed(0)
    rows = torch.randn(4, 96, 64)
    for relu in (True, False):
        encoder = (
            STREAM(AudioConfig(width=0.0625, relu=relu), SamplerConfig()).build_encoder(3).eval()
        )
        assert (encoder.embed(rows).min() < 0) == (not relu)
