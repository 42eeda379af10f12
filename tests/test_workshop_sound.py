"""workshop/sounds.py: each sound is what it is called, and loudness tells nothing."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from tristream.workshop import sounds
from tristream.workshop.clips import generator
from tristream.workshop.sounds import LEVEL_DB, SAMPLE_RATE, make_sound, random_times

N_SAMPLES = 38400


def _sound(name: str, index: int, **options) -> np.ndarray:
    return make_sound(name, generator(f"{name} {index}", "test"), N_SAMPLES, **options)


def _power(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return scipy.signal.welch(samples, SAMPLE_RATE, nperseg=4096)


def _envelope(samples: np.ndarray, block: int = 80) -> np.ndarray:
    """Root mean square of every 5 ms."""
    return np.sqrt(np.mean(samples.reshape(-1, block) ** 2, axis=1))


@pytest.mark.parametrize("name", sounds.NAMES)
def test_loudness_is_drawn_from_one_law_whatever_is_heard(name):
    levels = np.array(
        [20 * np.log10(np.sqrt(np.mean(_sound(name, index) ** 2))) for index in range(60)]
    )
    assert levels.min() >= LEVEL_DB[0] - 0.05
    assert levels.max() <= LEVEL_DB[1] + 0.05
    # Uniform over 10 dB: mean -33, standard deviation 2.89, standard error of 60 clips .37.
    assert abs(levels.mean() - np.mean(LEVEL_DB)) < 3 * 0.37
    assert abs(levels.std() - 10 / np.sqrt(12)) < 0.6


def test_impacts_sound_at_their_times_and_decay():
    times = np.array([0.3, 0.95, 1.7])
    for index in range(5):
        envelope = _envelope(_sound("impact", index, times=times))
        for seconds in times:
            at = round(seconds * 200)
            before, after = envelope[at - 4 : at - 1].mean(), envelope[at : at + 3].mean()
            assert after > 3 * before
            assert envelope[at + 80 : at + 90].mean() < 0.3 * after  # .4 s later


def test_a_shift_moves_the_impacts_and_nothing_else():
    at_half = _envelope(_sound("impact", 0, times=np.array([0.5])))
    shifted = _envelope(_sound("impact", 0, times=np.array([0.5]), shift_seconds=0.5))
    assert abs(int(np.argmax(at_half)) - 100) <= 1
    assert abs(int(np.argmax(shifted)) - 200) <= 1
    assert np.sqrt(np.mean(at_half**2)) == pytest.approx(np.sqrt(np.mean(shifted**2)))


def test_an_impacts_lowest_mode_lies_where_it_was_asked_for():
    for index in range(8):
        hz, power = _power(
            _sound("impact", index, times=np.array([0.2, 1.0]), base_hz=(480.0, 490.0))
        )
        strongest = hz[np.argmax(power)] / 485
        ratios = np.array([1.0, 1.58, 2.24, 2.92, 3.46, 4.18])
        assert np.abs(strongest / ratios - 1).min() < 0.05


def test_a_hum_is_made_of_harmonics_of_60_to_180_hz():
    for index in range(8):
        spectrum = np.abs(np.fft.rfft(_sound("hum", index) * np.hanning(N_SAMPLES))) ** 2
        hz = np.fft.rfftfreq(N_SAMPLES, 1 / SAMPLE_RATE)
        near = [
            spectrum[np.abs(hz / base - np.round(hz / base)) * base < 0.08 * base][
                : int(12.5 * base * 2.4)
            ].sum()
            for base in np.arange(60.0, 181.0, 1.0)
        ]
        assert max(near) > 0.8 * spectrum.sum()


def test_rolling_is_a_band_that_swells_4_to_11_times_a_second():
    for index in range(8):
        samples = _sound("rolling", index)
        hz, power = _power(samples)
        assert 200 < np.sum(hz * power) / power.sum() < 1400
        envelope = _envelope(samples)
        swell = np.abs(np.fft.rfft(envelope - envelope.mean()))
        swell_hz = np.fft.rfftfreq(len(envelope), 0.005)
        assert 3.5 < swell_hz[np.argmax(swell)] < 11.5


def test_squeaks_are_high_and_short():
    for index in range(8):
        samples = _sound("squeak", index)
        hz, power = _power(samples)
        assert power[hz > 1000].sum() > 0.75 * power.sum()
        envelope = _envelope(samples)
        assert np.mean(envelope > 0.5 * envelope.max()) < 0.5


def test_neutral_noise_is_steady():
    """Its 5 ms levels vary as those of plain noise do, and far less than those of impacts."""
    steady, struck = (
        [
            envelope.std() / envelope.mean()
            for envelope in (_envelope(_sound(name, index)) for index in range(8))
        ]
        for name in ("neutral", "impact")
    )
    assert max(steady) < 0.35
    assert min(struck) > 2 * max(steady)


def test_random_times_keep_their_distance_and_fit():
    for index in range(200):
        times = random_times(generator(f"times {index}", "test"), 2.4)
        assert 3 <= len(times) <= 7
        assert np.diff(times).min() >= 0.15 - 1e-12
        assert times[0] >= 0
        assert times[-1] <= 2.4 - 0.15


def test_no_sound_reaches_full_scale_so_nothing_is_clipped():
    for name in sounds.NAMES:
        assert max(np.abs(_sound(name, index)).max() for index in range(40)) < 1


def test_an_unknown_sound_is_named():
    with pytest.raises(ValueError, match="unknown sound 'thunder'"):
        _sound("thunder", 0)
