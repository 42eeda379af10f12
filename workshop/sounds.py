"""Sounds: impacts, hum, rolling, squeaks, and the neutral noise below them."""

from __future__ import annotations

import numpy as np
import scipy.fft
from jaxtyping import Float64

from tristream.errors import TristreamError

SAMPLE_RATE = 16000  # Hz
LEVEL_DB = (
    -38.0,
    -28.0,
)  # RMS of a clip against full scale, alike for every class; impacts still do not clip
SIGNAL_TO_NOISE_DB = (8.0, 18.0)  # of an event sound over the neutral noise under it
IMPACT_HZ = (300.0, 900.0)
EVENTS_PER_CLIP = (3, 7)  # impacts or squeaks

_MODE_RATIOS = np.array([1.0, 1.58, 2.24, 2.92, 3.46, 4.18])  # inharmonic, as of a struck plate
_MIN_GAP_SECONDS = 0.15

NAMES = ("neutral", "impact", "hum", "rolling", "squeak")


def make_sound(
    name: str,
    rng: np.random.Generator,
    n_samples: int,
    *,
    times: Float64[np.ndarray, " n_events"] | None = None,
    base_hz: tuple[float, float] = IMPACT_HZ,
    shift_seconds: float = 0.0,
) -> Float64[np.ndarray, " n_samples"]:
    """Return a clip's audio at its final loudness: the named sound over neutral noise, or the noise alone.

    The root mean square of the whole is drawn from LEVEL_DB for every sound, so loudness is independent of the class.

    Args:
        times: seconds of the impacts; None draws them.
        base_hz: range of an impact's lowest mode.
        shift_seconds: the named sound comes later by this much, around the end of the clip; the noise does not.
    """
    level = 10 ** (rng.uniform(*LEVEL_DB) / 20)
    ratio = 10 ** (rng.uniform(*SIGNAL_TO_NOISE_DB) / 20)
    mixed = _neutral(rng, n_samples)
    if name != "neutral":
        event = _event(name, rng, n_samples, times, base_hz)
        if event.any():
            mixed = mixed + ratio * _unit(np.roll(event, round(shift_seconds * SAMPLE_RATE)))
    return np.clip(level * _unit(mixed), -1, 1)


def _event(
    name: str,
    rng: np.random.Generator,
    n_samples: int,
    times: np.ndarray | None,
    base_hz: tuple[float, float],
) -> np.ndarray:
    if name == "impact":
        return _impacts(rng, n_samples, times, base_hz)
    if name == "hum":
        return _hum(rng, n_samples)
    if name == "rolling":
        return _rolling(rng, n_samples)
    if name == "squeak":
        return _squeaks(rng, n_samples)
    raise TristreamError(f"unknown sound {name!r}; available: {', '.join(NAMES)}")


def random_times(rng: np.random.Generator, seconds: float) -> Float64[np.ndarray, " n_events"]:
    """Return three to seven ordered times in a clip, at least .15 s apart, none in the last .15 s."""
    n_events = int(rng.integers(EVENTS_PER_CLIP[0], EVENTS_PER_CLIP[1] + 1))
    free = seconds - n_events * _MIN_GAP_SECONDS
    return np.sort(rng.uniform(0, free, n_events)) + _MIN_GAP_SECONDS * np.arange(n_events)


def _impacts(
    rng: np.random.Generator, n_samples: int, times: np.ndarray | None, base_hz: tuple[float, float]
) -> np.ndarray:
    """One struck thing: the same decaying modes at every impact, harder and softer."""
    if times is None:
        times = random_times(rng, n_samples / SAMPLE_RATE)
    n_modes = len(_MODE_RATIOS)
    hz = rng.uniform(*base_hz) * _MODE_RATIOS * rng.uniform(0.97, 1.03, n_modes)
    decay_seconds = rng.uniform(0.03, 0.12) / np.sqrt(np.arange(1, n_modes + 1))
    weights = rng.uniform(0.4, 1.0, n_modes) / np.sqrt(np.arange(1, n_modes + 1))
    t = np.arange(int(0.5 * SAMPLE_RATE)) / SAMPLE_RATE
    ring = weights @ (np.sin(2 * np.pi * hz[:, None] * t) * np.exp(-t / decay_seconds[:, None]))
    strike = np.zeros(n_samples)
    starts = np.round(np.asarray(times) * SAMPLE_RATE).astype(int)
    strike[starts[starts < n_samples]] = rng.uniform(0.6, 1.0, (starts < n_samples).sum())
    return _convolve(strike, ring)


def _hum(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """A motor: twelve harmonics of 60–180 Hz that waver together."""
    t = np.arange(n_samples) / SAMPLE_RATE
    waver = rng.uniform(0.005, 0.02) * np.sin(
        2 * np.pi * (rng.uniform(0.5, 3.0) * t + rng.uniform())
    )
    phase = 2 * np.pi * rng.uniform(60, 180) * np.cumsum(1 + waver) / SAMPLE_RATE
    harmonics = np.arange(1, 13)
    weights = rng.uniform(0.3, 1.0, 12) / harmonics**0.7
    turn = np.exp(
        1j * phase
    )  # powers of it are the harmonics: one exponential instead of twelve sines
    total, power = np.zeros(n_samples), np.ones(n_samples, complex)
    for weight, offset in zip(weights, np.exp(2j * np.pi * rng.uniform(size=12)), strict=True):
        power = power * turn
        total += weight * (power * offset).imag
    return total


def _rolling(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """Noise of a band at 300–900 Hz, louder and softer 4–11 times a second."""
    centre = rng.uniform(300, 900)
    octaves = np.log2(np.maximum(_hz(n_samples), 1.0) / centre)
    band = _coloured(rng, n_samples, np.exp(-0.5 * (octaves / 0.45) ** 2))
    t = np.arange(n_samples) / SAMPLE_RATE
    return band * (
        1 + rng.uniform(0.6, 0.95) * np.sin(2 * np.pi * (rng.uniform(4, 11) * t + rng.uniform()))
    )


def _squeaks(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """Short chirps between 1.2 and 4 kHz, up or down, with an octave above."""
    total = np.zeros(n_samples)
    for start_seconds in random_times(rng, n_samples / SAMPLE_RATE):
        n = int(rng.uniform(0.08, 0.22) * SAMPLE_RATE)
        first_hz, last_hz = rng.uniform(1200, 4000), rng.uniform(1200, 4000)
        phase = 2 * np.pi * np.cumsum(np.linspace(first_hz, last_hz, n)) / SAMPLE_RATE
        chirp = (np.sin(phase) + 0.3 * np.sin(2 * phase)) * np.hanning(n) * rng.uniform(0.6, 1.0)
        start = int(start_seconds * SAMPLE_RATE)
        total[start : start + n] += chirp[: n_samples - start]
    return total


def _neutral(rng: np.random.Generator, n_samples: int) -> np.ndarray:
    """Steady broad noise whose spectrum falls by 0–6 dB an octave above 200 Hz, of variance 1."""
    slope = rng.uniform(0.0, 1.0)
    return _unit(_coloured(rng, n_samples, np.maximum(_hz(n_samples), 200.0) ** -slope))


def _coloured(rng: np.random.Generator, n_samples: int, response: np.ndarray) -> np.ndarray:
    return scipy.fft.irfft(scipy.fft.rfft(rng.standard_normal(n_samples)) * response, n=n_samples)


def _convolve(signal: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Linear convolution cut to the signal's length."""
    n = scipy.fft.next_fast_len(len(signal) + len(kernel), real=True)
    product = scipy.fft.rfft(signal, n) * scipy.fft.rfft(kernel, n)
    return scipy.fft.irfft(product, n)[: len(signal)]


def _hz(n_samples: int) -> np.ndarray:
    return np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE)


def _unit(samples: np.ndarray) -> np.ndarray:
    return samples / np.sqrt(np.mean(samples**2))
