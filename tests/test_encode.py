"""media/encode.py: arrays are decoded again at the same times, from the same bytes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tristream.media import encode
from tristream.media.encode import write_video

SAMPLE_RATE = 16000


def _smooth_frames(n_frames: int = 30, height: int = 48, width: int = 64) -> np.ndarray:
    """Moving coloured waves: frames that differ and still compress well."""
    t, y, x = np.ogrid[:n_frames, :height, :width]
    channels = [np.sin(0.15 * x + 0.2 * t + 0.3 * c) + np.cos(0.12 * y - 0.1 * t) for c in range(3)]
    return np.stack([(127 + 60 * channel).astype(np.uint8) for channel in channels], axis=-1)


def _click_samples(at: list[int], n: int = 2 * SAMPLE_RATE) -> np.ndarray:
    samples = np.zeros(n, np.float32)
    samples[at] = 0.9
    return samples


def _decode(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """RGB frames, their seconds, samples and the time of the first one, all minus the container's start."""
    with av.open(str(path)) as container:
        start_seconds = (container.start_time or 0) / av.time_base
        pictures = list(container.decode(video=0))
        frames = np.stack([picture.to_ndarray(format="rgb24") for picture in pictures])
        seconds = np.array([picture.time for picture in pictures]) - start_seconds
    with av.open(str(path)) as container:
        blocks = list(container.decode(audio=0))
        samples = np.concatenate([block.to_ndarray()[0] for block in blocks])
        return frames, seconds, samples, blocks[0].time - start_seconds


def test_pictures_come_back_at_their_times_with_little_loss(tmp_path):
    frames = _smooth_frames()
    write_video(tmp_path / "a.mp4", frames, fps=25, samples=_click_samples([100]))
    decoded, seconds, _, _ = _decode(tmp_path / "a.mp4")
    assert decoded.shape == frames.shape
    np.testing.assert_allclose(seconds, np.arange(30) / 25, atol=1e-9)
    mean_squared = np.mean((decoded.astype(float) - frames) ** 2, axis=(1, 2, 3))
    assert 10 * np.log10(255**2 / mean_squared.max()) > 36  # dB, the worst picture


@pytest.mark.parametrize("at", [[1500], [20000], [31000], [700, 16000, 25321]])
def test_a_click_sounds_where_it_was_put(tmp_path, at):
    """AAC delays by 1024 samples; the edit list takes that back. 16 samples are 1 ms."""
    write_video(tmp_path / "a.mp4", _smooth_frames(50), fps=25, samples=_click_samples(at))
    _, _, samples, start_seconds = _decode(tmp_path / "a.mp4")
    heard = np.abs(samples)
    for position in at:
        left = max(position - 2000, 0)
        peak = (
            left
            + int(np.argmax(heard[left : position + 2000]))
            + round(start_seconds * SAMPLE_RATE)
        )
        assert abs(peak - position) <= 16


def test_a_tone_keeps_its_phase_and_loudness(tmp_path):
    tone = (0.3 * np.sin(2 * np.pi * 1000 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE)).astype(
        np.float32
    )
    write_video(tmp_path / "a.mp4", None, fps=25, samples=tone)
    with av.open(str(tmp_path / "a.mp4")) as container:
        samples = np.concatenate([block.to_ndarray()[0] for block in container.decode(audio=0)])
    middle = slice(4000, 28000)
    error = np.sqrt(np.mean((samples[middle] - tone[middle]) ** 2))
    assert error < 0.02 * np.sqrt(np.mean(tone[middle] ** 2)) + 0.002


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    frames, samples = _smooth_frames(), _click_samples([5000])

    def encoded() -> bytes:
        write_video(tmp_path / "a.mp4", frames, fps=25, samples=samples)
        return (tmp_path / "a.mp4").read_bytes()

    # x264's code for AVX-512 made one of 150 files differ (media/encode.py, _same_bits)
    assert len({encoded() for _ in range(200)}) == 1


@pytest.mark.parametrize(
    ("fps", "kept"), [(25, (25, 1)), (29.97, (2997, 100)), (30000 / 1001, (30000, 1001))]
)
def test_the_frame_rate_is_kept_exactly(tmp_path, fps, kept):
    write_video(tmp_path / "a.mp4", _smooth_frames(5), fps=fps)
    with av.open(str(tmp_path / "a.mp4")) as container:
        rate = container.streams.video[0].average_rate
        assert (rate.numerator, rate.denominator) == kept


def test_a_track_that_is_not_given_is_not_written(tmp_path):
    write_video(tmp_path / "silent.mp4", _smooth_frames(5), fps=25)
    write_video(tmp_path / "sound.mp4", None, fps=25, samples=_click_samples([5000]))
    with av.open(str(tmp_path / "silent.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
    with av.open(str(tmp_path / "sound.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["audio"]


def test_too_loud_samples_are_clipped_not_wrapped(tmp_path):
    loud = np.full(SAMPLE_RATE, 3.0, np.float32)
    write_video(tmp_path / "loud.mp4", None, fps=25, samples=loud)
    write_video(tmp_path / "one.mp4", None, fps=25, samples=np.ones(SAMPLE_RATE, np.float32))
    assert (tmp_path / "loud.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode.os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_video(path, _smooth_frames(5), fps=25)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_nothing_to_write_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"empty\.mp4: neither frames nor samples"):
        write_video(tmp_path / "empty.mp4", None, fps=25)


@pytest.mark.parametrize(
    ("shape", "said"), [((3, 49, 64, 3), "3 frames of 64x49 px"), ((0, 48, 64, 3), "0 frames")]
)
def test_pictures_that_yuv420p_cannot_hold_are_refused(tmp_path, shape, said):
    with pytest.raises(ValueError, match=said):
        write_video(tmp_path / "a.mp4", np.zeros(shape, np.uint8), fps=25)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fps", [0.0, -25.0, float("nan")])
def test_a_frame_rate_that_is_not_positive_is_refused(tmp_path, fps):
    with pytest.raises(ValueError, match=f"fps is {fps}"):
        write_video(tmp_path / "a.mp4", _smooth_frames(5), fps=fps)


def test_samples_that_are_not_finite_are_counted(tmp_path):
    samples = _click_samples([5000], n=100000)[:16000]
    samples[[3, 4]] = np.nan
    with pytest.raises(ValueError, match="2 of 16000 samples are not finite"):
        write_video(tmp_path / "a.mp4", None, fps=25, samples=samples)
    with pytest.raises(ValueError, match="0 of 0 samples"):
        write_video(tmp_path / "a.mp4", None, fps=25, samples=samples[:0])
