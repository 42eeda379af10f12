from __future__ import annotations

import math
from inspect import unwrap

import numpy as np
import pytest

from tristream.streams.audio import logmel
from tristream.streams.audio.logmel import SHORTEST_EXAMPLE_SAMPLES, examples, log_mel, mel_matrix


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Return noise under a swept tone, and silence, in [-1, 1]."""
    t = np.arange(round(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(seed).normal(size=len(t)) * 0.1
    return (noise + 0.5 * np.sin(2 * np.pi * (200 + 400 * t) * t)) * (np.sin(3 * t) > -0.5)


def plain_reference(samples: np.ndarray) -> np.ndarray:
    """VGGish's front end from its description, without an FFT and one band at a time."""

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    n = np.arange(400)
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * k / 400) for k in n])
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512)
    edges = [mel(125) + (mel(7500) - mel(125)) * k / 65 for k in range(66)]
    rows = []
    for start in range(0, len(samples) - 399, 160):
        magnitude = np.abs(fourier @ (samples[start : start + 400] * window))
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:]):
            energy = 0.0
            for k in range(1, 257):
                position = mel(k * 8000 / 256)
                if low < position < high:
                    share = (
                        (position - low) / (centre - low)
                        if position < centre
                        else (high - position) / (high - centre)
                    )
                    energy += share * magnitude[k]
            row.append(math.log(energy + 0.01))
        rows.append(row)
    return np.array(rows)


def test_log_mel_equals_a_plain_reference_to_1e_9():
    samples = sound(0.3)
    np.testing.assert_allclose(
        log_mel(samples, 16_000), plain_reference(samples), rtol=0, atol=1e-9
    )


def test_float32_differs_by_at_most_1e_4():
    samples = sound(4)
    features = log_mel(samples.astype(np.float32), 16_000)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, log_mel(samples, 16_000), rtol=0, atol=1e-4)


@pytest.mark.slow  # librosa compiles itself
def test_librosa_agrees_to_1e_2_and_its_other_triangles_explain_the_rest():
    import librosa

    samples = (
        np.random.default_rng(0).normal(size=64_000) * 0.01
    )  # loud noise differs by up to 1.15e-2
    energies = librosa.feature.melspectrogram(
        y=np.pad(samples, (56, 56)), sr=16000, n_fft=512, hop_length=160, win_length=400, window="hann", center=False,
        power=1.0, n_mels=64, fmin=125.0, fmax=7500.0, htk=True, norm=None, dtype=np.float64,
    )  # fmt: skip
    np.testing.assert_allclose(
        log_mel(samples, 16_000), np.log(energies + 0.01).T, rtol=0, atol=1e-2
    )
    spectrum = librosa.stft(
        np.pad(samples, (56, 56)), n_fft=512, hop_length=160, win_length=400, window="hann", center=False,
        dtype=np.complex128,
    )  # fmt: skip
    expected = np.log(np.abs(spectrum).T @ mel_matrix() + 0.01)
    np.testing.assert_allclose(log_mel(samples, 16_000), expected, rtol=0, atol=1e-11)


def test_the_mel_matrix_is_vggishs():
    weights = mel_matrix()
    assert weights.shape == (257, 64)
    assert np.count_nonzero(weights) == 461
    assert weights.sum() == pytest.approx(230.9136, abs=1e-4)
    assert not weights[0].any()
    assert 0.99 < weights.max() <= 1  # no normalisation by area


def test_silence_is_the_log_of_the_offset_everywhere():
    np.testing.assert_array_equal(
        log_mel(np.zeros(16_000), 16_000), np.full((98, 64), np.log(0.01))
    )


@pytest.mark.parametrize("hertz", [200, 1000, 5000])
def test_a_tone_is_loudest_in_its_own_band(hertz):
    tone = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000)
    loudest = log_mel(tone, 16_000).mean(axis=0).argmax()
    low, high = 1127 * np.log1p(125 / 700), 1127 * np.log1p(7500 / 700)
    assert loudest == pytest.approx(
        (1127 * np.log1p(hertz / 700) - low) / (high - low) * 65 - 1, abs=1
    )


@pytest.mark.parametrize(
    ("n_samples", "n_rows"),
    [(400, 1), (559, 1), (560, 2), (16_000, 98), (15_360, 94), (576_000, 3598)],
)
def test_rows_are_whole_windows_and_nothing_is_padded(n_samples, n_rows):
    assert log_mel(np.zeros(n_samples), 16_000).shape == (n_rows, 64)


def test_a_row_depends_on_its_own_400_samples_only():
    samples = sound(1)
    features = log_mel(samples, 16_000)
    changed = samples.copy()
    changed[160 * 40 : 160 * 40 + 400] = 0
    rows = np.flatnonzero((log_mel(changed, 16_000) != features).any(axis=1))
    np.testing.assert_array_equal(rows, [38, 39, 40, 41, 42])
    np.testing.assert_allclose(
        log_mel(samples[160 * 40 : 160 * 40 + 400], 16_000)[0], features[40], atol=1e-12
    )


def test_long_audio_is_the_same_across_the_blocks_of_its_computation():
    samples = np.tile(sound(1), 42)  # 4198 rows: more than one block
    features = log_mel(samples, 16_000)
    np.testing.assert_allclose(features[4000:4198], features[0:198], atol=1e-12)


@pytest.mark.parametrize(
    ("seconds", "n_examples"),
    [(0.5, 0), (0.96, 0), (0.974, 0), (0.975, 1), (1, 1), (3, 3), (10, 10), (36, 37)],
)
def test_seconds_of_audio_give_vggishs_number_of_examples(seconds, n_examples):
    features = log_mel(np.zeros(round(seconds * 16_000), dtype=np.float32), 16_000)
    assert examples(features).shape == (n_examples, 96, 64)


def test_the_shortest_audio_with_an_example_is_0_975_s():
    assert SHORTEST_EXAMPLE_SAMPLES == 15_600
    assert len(examples(log_mel(np.zeros(15_600), 16_000))) == 1
    assert len(examples(log_mel(np.zeros(15_599), 16_000))) == 0


@pytest.mark.parametrize(
    ("n_frames", "hop_frames"), [(96, 96), (32, 16), (24, 12), (16, 40), (1, 1), (200, 7)]
)
def test_examples_are_stretches_of_rows_and_the_remainder_is_dropped(n_frames, hop_frames):
    features = np.random.default_rng(0).normal(size=(131, 64))
    segments = examples(features, n_frames=n_frames, hop_frames=hop_frames)
    starts = [start for start in range(0, 131, hop_frames) if start + n_frames <= 131]
    assert segments.shape == (len(starts), n_frames, 64)
    for segment, start in zip(segments, starts):
        np.testing.assert_array_equal(segment, features[start : start + n_frames])


def test_examples_own_their_numbers():
    features = np.zeros((200, 64))
    examples(features, n_frames=32, hop_frames=16)[:] = 1
    assert not features.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: log_mel(np.zeros(16_000), 44_100), r"sample rate of 44100 Hz; .* 16000 Hz"),
        (
            lambda: log_mel(np.zeros(399), 16_000),
            r"0\.0249 s \(399 samples\), less than one window of 0\.025 s",
        ),
        (lambda: log_mel(np.zeros(0), 16_000), r"\(0 samples\)"),
        (lambda: unwrap(log_mel)(np.zeros(16_000, np.int16), 16_000), "int16 of shape"),
        (lambda: unwrap(log_mel)(np.zeros((16_000, 2)), 16_000), r"shape \(16000, 2\)"),
        (lambda: examples(np.zeros((200, 64)), n_frames=0), "n_frames of an audio example is 0"),
        (
            lambda: examples(np.zeros((200, 64)), hop_frames=-3),
            "hop_frames of an audio example is -3",
        ),
    ],
)
def test_audio_that_has_no_log_mel_is_refused_with_its_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_weights_that_are_multiplied_are_those_of_the_matrix():
    sparse = logmel._sparse_mel_matrix(np.dtype(np.float64))
    assert sparse.nnz == 461
    np.testing.assert_array_equal(sparse.toarray().T, mel_matrix())
