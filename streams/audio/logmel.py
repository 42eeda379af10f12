"""VGGish's audio front end: 16 kHz samples → log-mel energies → examples of 0.96 s.

Source: VGGish (Hershey et al. 2017, arXiv:1609.09430) as released in tensorflow/models `research/audioset/vggish`.
librosa and torchaudio draw mel triangles linear in Hz, VGGish linear in mel: their features differ by about 1e-2.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from tristream.errors import TristreamError

if TYPE_CHECKING:
    import scipy.sparse

SAMPLE_RATE = 16_000  # Hz
WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010
WINDOW_SAMPLES = round(WINDOW_SECONDS * SAMPLE_RATE)
HOP_SAMPLES = round(HOP_SECONDS * SAMPLE_RATE)
N_FFT = 512  # the next power of two: zeros follow the window
N_MELS = 64
LOWEST_HZ, HIGHEST_HZ = 125.0, 7500.0
LOG_OFFSET = 0.01
EXAMPLE_FRAMES = 96
EXAMPLE_SECONDS = EXAMPLE_FRAMES * HOP_SECONDS
SHORTEST_EXAMPLE_SAMPLES = (EXAMPLE_FRAMES - 1) * HOP_SAMPLES + WINDOW_SAMPLES  # 15,600: 0.975 s

_BLOCK_FRAMES = 4096  # so that an hour of audio needs no gigabytes


def log_mel(
    samples: Float[np.ndarray, "samples"], sample_rate: int, *, log_offset: float = LOG_OFFSET
) -> Float[np.ndarray, "T M"]:
    """Log-mel energies of mono audio, one row per 10 ms, float64 for float64 samples and float32 for others.

    Row t covers samples [160 t, 160 t + 400): nothing is padded, 1 s gives 98 rows.

    Args:
        samples: amplitude in [-1, 1].
        sample_rate: Hz; only 16000.
        log_offset: added before the logarithm; 0.01 is VGGish's, 0.001 YAMNet's.

    Returns:
        Natural log of (mel magnitude + offset), 64 bands, 125–7500 Hz.

    Raises:
        TristreamError: another sample rate, fewer samples than one window of 25 ms, samples that are not
            one-dimensional floating-point numbers.
    """
    if sample_rate != SAMPLE_RATE:
        raise TristreamError(
            f"audio has a sample rate of {sample_rate} Hz; log-mel needs {SAMPLE_RATE} Hz: resample it first"
        )
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise TristreamError(
            f"audio samples are {samples.dtype} of shape {samples.shape}; log-mel needs mono floating-point in [-1, 1]"
        )
    if len(samples) < WINDOW_SAMPLES:
        raise TristreamError(
            f"audio lasts {len(samples) / SAMPLE_RATE:.4f} s ({len(samples)} samples), "
            f"less than one window of {WINDOW_SECONDS} s; it has no log-mel"
        )
    dtype = np.float64 if samples.dtype == np.float64 else np.float32
    windows = np.lib.stride_tricks.sliding_window_view(
        samples.astype(dtype, copy=False), WINDOW_SAMPLES
    )[::HOP_SAMPLES]
    taper, to_mel = _periodic_hann().astype(dtype), _sparse_mel_matrix(np.dtype(dtype))
    energies = np.empty((len(windows), N_MELS), dtype=dtype)
    for start in range(0, len(windows), _BLOCK_FRAMES):
        block = slice(start, start + _BLOCK_FRAMES)
        magnitudes = np.abs(np.fft.rfft(windows[block] * taper, N_FFT))  # (T, 257)
        energies[block] = np.log((to_mel @ magnitudes.T).T + dtype(log_offset))
    return energies


def examples(
    log_mel: Float[np.ndarray, "T M"],
    *,
    n_frames: int = EXAMPLE_FRAMES,
    hop_frames: int = EXAMPLE_FRAMES,
) -> Float[np.ndarray, "N n_frames M"]:
    """Return examples of `n_frames` rows, one every `hop_frames`; incomplete examples are dropped.

    Example i of the default begins 0.96 i seconds into the audio. Its last window reaches 15 ms beyond its 0.96 s, so
    0.96 s of audio hold no example; the shortest is 0.975 s.

    Raises:
        TristreamError: `n_frames` or `hop_frames` below 1.
    """
    for name, value in (("n_frames", n_frames), ("hop_frames", hop_frames)):
        if value < 1:
            raise TristreamError(f"{name} of an audio example is {value}; it must be at least 1")
    if len(log_mel) < n_frames:
        return np.empty((0, n_frames, log_mel.shape[1]), dtype=log_mel.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(log_mel, n_frames, axis=0)[
        ::hop_frames
    ]  # (N, M, n_frames)
    return windows.transpose(0, 2, 1).copy()


@functools.lru_cache(maxsize=1)
def mel_matrix() -> Float[np.ndarray, "F M"]:
    """Weights from the 257 bins of the spectrum to 64 mel bands, float64: HTK's mel, triangles linear in mel, peak 1.

    Nothing below 125 Hz has a weight, nor the bin of 0 Hz. Read-only.
    """
    bins = _mel(np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1))[:, None]
    lowest, highest = _mel(np.array([LOWEST_HZ, HIGHEST_HZ]))
    edges = np.linspace(lowest, highest, N_MELS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    weights = np.maximum(0, np.minimum(rising, falling))
    weights.flags.writeable = False
    return weights


@functools.lru_cache(maxsize=2)
def _sparse_mel_matrix(dtype: np.dtype) -> scipy.sparse.csr_array:
    """Return `mel_matrix` transposed, as its 461 weights.

    Few products, none of them in numpy's linear algebra: several of our threads that multiplied there at once have
    deadlocked (exec_blas of OpenBLAS, numpy 2.4.6).
    """
    import scipy.sparse

    return scipy.sparse.csr_array(mel_matrix().T.astype(dtype))


def _mel(hertz: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    return 1127 * np.log(1 + hertz / 700)


def _periodic_hann() -> Float[np.ndarray, "window"]:
    return 0.5 - 0.5 * np.cos(2 * np.pi / WINDOW_SAMPLES * np.arange(WINDOW_SAMPLES))
