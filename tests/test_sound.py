"""Tones and clicks in an audio track are decoded at their times and pitches, at 16 kHz, in one channel."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tristream.media.chunks import decode_chunks
from tristream.media.decode import SAMPLE_RATE, Rejected, decode_video

CLICKS = (0.30, 0.75, 1.50)  # seconds after the track begins
CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6}
FILES = {  # what comes before the first sample of these is not counted by all of their encoders
    "wav": ("pcm_s16le", 1e-3),
    "flac": ("flac", 1e-3),
    "ogg": ("libopus", 2e-3),
    "mp3": ("libmp3lame", 2e-3),
    "m4a": ("aac", 2e-3),
}


def clicks(rate: int, seconds: float = 2.0) -> np.ndarray:
    """Bursts of 2 kHz, 4 ms wide, in silence."""
    t = np.arange(round(seconds * rate)) / rate
    bursts = [
        np.exp(-(((t - at) / 0.002) ** 2)) * np.cos(2 * np.pi * 2000 * (t - at)) for at in CLICKS
    ]
    return (0.5 * sum(bursts)).astype(np.float32)


def tone(hertz: float, rate: int, seconds: float = 2.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def write(
    path: Path,
    channels: list[np.ndarray],
    rate: int,
    *,
    codec: str,
    layout: str,
    late: float = 0.0,
    n_pictures: int = 0,
) -> Path:
    """Write a track of these channels that begins `late` seconds after the first frame (25 fps, grey)."""
    packets = []
    with av.open(str(path), "w") as container:
        if n_pictures:
            pictures = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        track = container.add_stream(codec, rate=rate, layout=layout)
        for i in range(n_pictures):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, 25)
            packets += pictures.encode(picture)
        packets += pictures.encode() if n_pictures else []
        frame = av.AudioFrame.from_ndarray(
            np.stack(channels, axis=1).reshape(1, -1),
            format="flt",
            layout=layout,  # PyAV counts planes beyond 7 wrong
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            format=track.codec_context.format,
            layout=layout,
            rate=rate,
            frame_size=track.frame_size or 1024,
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            piece.pts = (piece.pts or 0) + round(late * rate)
            packets += track.encode(piece)
        packets += track.encode()
        for packet in sorted(
            packets, key=lambda packet: (packet.dts * packet.time_base, packet.stream.index)
        ):
            container.mux(packet)
    return path


def heard(samples: np.ndarray, start_seconds: float) -> list[float]:
    """Time of the maximum of each burst on the video's clock."""
    window = np.exp(-((np.arange(-64, 65) / 24.0) ** 2))
    loudness = np.convolve(samples**2, window, "same")
    half = round(0.2 * SAMPLE_RATE)
    times = []
    for _ in CLICKS:
        peak = int(loudness.argmax())
        times.append(start_seconds + peak / SAMPLE_RATE)
        loudness[max(0, peak - half) : peak + half] = 0
    return sorted(times)


@pytest.mark.parametrize("late", [0.0, 0.7])
@pytest.mark.parametrize("layout", list(CHANNELS))
@pytest.mark.parametrize("rate", [44_100, 48_000, 16_000])
def test_clicks_of_any_rate_and_layout_are_heard_at_their_times_on_the_videos_clock(
    tmp_path, rate, layout, late
):
    channels = [clicks(rate)] * CHANNELS[layout]
    path = write(
        tmp_path / "v.mkv",
        channels,
        rate,
        codec="pcm_s16le",
        layout=layout,
        late=late,
        n_pictures=75,
    )
    video = decode_video(path)
    assert video.samples_start_seconds == pytest.approx(late, abs=1e-3)
    assert len(video.samples) == pytest.approx(2 * SAMPLE_RATE, abs=40)
    assert heard(video.samples, video.samples_start_seconds) == pytest.approx(
        [late + at for at in CLICKS], abs=1e-3
    )


@pytest.mark.parametrize("suffix", list(FILES))
def test_clicks_in_files_of_sound_alone_are_heard_at_their_times(tmp_path, suffix):
    codec, tolerance = FILES[suffix]
    path = write(
        tmp_path / f"a.{suffix}", [clicks(48_000)] * 2, 48_000, codec=codec, layout="stereo"
    )
    video = decode_video(path, pictures=False)
    assert heard(video.samples, video.samples_start_seconds) == pytest.approx(CLICKS, abs=tolerance)


@pytest.mark.parametrize("late", [0.0, 0.48])
def test_clicks_in_aac_beside_pictures_are_heard_at_their_times(tmp_path, late):
    path = write(
        tmp_path / "v.mp4",
        [clicks(44_100)] * 2,
        44_100,
        codec="aac",
        layout="stereo",
        late=late,
        n_pictures=75,
    )
    video = decode_video(path)
    assert heard(video.samples, video.samples_start_seconds) == pytest.approx(
        [late + at for at in CLICKS], abs=2e-3
    )


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("hertz", [200.0, 1000.0, 6000.0])
def test_a_tone_keeps_its_pitch_and_its_level(tmp_path, rate, hertz):
    path = write(
        tmp_path / "a.wav", [tone(hertz, rate)] * 2, rate, codec="pcm_s16le", layout="stereo"
    )
    samples = decode_video(path, pictures=False).samples[4_000:20_000]
    spectrum = np.abs(np.fft.rfft(samples))  # 1 Hz a bin
    assert spectrum.argmax() == hertz
    assert samples.std() == pytest.approx(0.4 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("hertz", [9_000.0, 15_000.0])
def test_what_16_khz_cannot_hold_is_gone_and_does_not_come_back_as_another_tone(tmp_path, hertz):
    path = write(
        tmp_path / "a.wav", [tone(hertz, 48_000)], 48_000, codec="pcm_s16le", layout="mono"
    )
    assert np.abs(decode_video(path, pictures=False).samples[2_000:-2_000]).max() < 0.4 / 100


@pytest.mark.parametrize(
    ("layout", "n_channels"),
    [("mono", 1), ("stereo", 2), ("5.1", 6), ("7.1", 8), ("hexadecagonal", 16)],
)
def test_mono_is_the_mean_of_all_channels(tmp_path, layout, n_channels):
    """As VGGish's own `wavfile_to_examples` and YAMNet's `inference.py` do; each channel here has its own pitch."""
    pitches = [200.0 + 50 * i for i in range(n_channels)]
    channels = [tone(hertz, 16_000) for hertz in pitches]
    path = write(tmp_path / "a.mkv", channels, 16_000, codec="pcm_f32le", layout=layout)
    samples = decode_video(path, pictures=False).samples
    np.testing.assert_allclose(samples, np.mean(channels, axis=0), atol=1e-6)


def test_what_both_sides_play_as_loud_as_can_be_is_not_clipped(tmp_path):
    loud = (tone(440, 16_000) / 0.4 * 0.999).astype(np.float32)
    path = write(tmp_path / "a.mkv", [loud, loud], 16_000, codec="pcm_f32le", layout="stereo")
    np.testing.assert_allclose(decode_video(path, pictures=False).samples, loud, atol=1e-6)


def test_audio_in_opposite_phase_requested_alone_is_rejected_with_the_cause(tmp_path):
    side = tone(440, 48_000)
    path = write(tmp_path / "a.wav", [side, -side], 48_000, codec="pcm_s16le", layout="stereo")
    with pytest.raises(Rejected, match=r"a\.wav .* is silent: its channels cancel each other"):
        decode_video(path, pictures=False)


def test_eight_channels_of_aac_are_heard(tmp_path):
    path = write(tmp_path / "a.m4a", [tone(440, 48_000)] * 8, 48_000, codec="aac", layout="7.1")
    samples = decode_video(path, pictures=False).samples[4_000:20_000]
    assert np.abs(np.fft.rfft(samples)).argmax() == 440


def level_db(samples: np.ndarray) -> float:
    """Level of the middle of a decoded tone against its amplitude of 0.4."""
    return 20 * np.log10(samples[4_000:28_000].std() * np.sqrt(2) / 0.4 + 1e-12)


@pytest.mark.parametrize("rate", [22_050, 44_056, 44_100, 48_000, 96_000])
def test_resampling_is_flat_up_to_7500_hz_and_80_db_down_from_8000_hz_on(tmp_path, rate):
    """swr's default filter: -2.9 dB at 7.5 kHz, an alias of 8.05 kHz at -12 dB."""

    def decoded(hertz: float) -> np.ndarray:
        path = write(
            tmp_path / "a.mkv", [tone(hertz, rate)], rate, codec="pcm_f32le", layout="mono"
        )
        return decode_video(path, pictures=False).samples

    for hertz in (125.0, 1000.0, 5000.0, 7000.0, 7400.0, 7500.0):
        samples = decoded(hertz)
        assert len(samples) == 32_000
        assert abs(level_db(samples)) < 0.1, hertz
        # zero delay: sample n of the output is the tone at n / 16000 s
        ideal = tone(hertz, SAMPLE_RATE)
        np.testing.assert_allclose(samples[4_000:28_000], ideal[4_000:28_000], atol=0.005)
    for hertz in (8_010.0, 8_050.0, 8_200.0, 9_000.0, 12_000.0, 20_000.0):
        if hertz < rate / 2:
            assert level_db(decoded(hertz)) < -80, hertz


def test_resampling_agrees_with_the_soxr_library_below_7_khz(tmp_path):
    soxr = pytest.importorskip("soxr")
    rng = np.random.default_rng(0)
    bands = np.fft.rfft(rng.normal(size=2 * 44_100))
    bands[np.fft.rfftfreq(2 * 44_100, 1 / 44_100) > 7_000] = 0
    noise = np.fft.irfft(bands).astype(np.float32)
    noise *= 0.5 / np.abs(noise).max()
    path = write(tmp_path / "a.mkv", [noise], 44_100, codec="pcm_f32le", layout="mono")
    samples = decode_video(path, pictures=False).samples
    reference = soxr.resample(noise, 44_100, SAMPLE_RATE, "VHQ")
    assert len(samples) == len(reference)
    np.testing.assert_allclose(samples[1_000:-1_000], reference[1_000:-1_000], atol=1e-3)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_audio_decoded_in_pieces_is_the_audio_decoded_whole_at_every_rate(tmp_path, rate):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * rate).astype(np.float32)
    path = write(tmp_path / "a.mkv", [noise] * 2, rate, codec="pcm_s16le", layout="stereo")
    whole = decode_video(path, pictures=False, stop_seconds=None).samples
    pieces = decode_chunks(path, pictures=False, chunk_seconds=0.37)
    joined = np.concatenate([piece.samples for piece in pieces if piece.samples is not None])
    np.testing.assert_array_equal(joined, whole)


@pytest.mark.parametrize("rate", [8_000, 767_999])
def test_the_lowest_and_the_oddest_rates_keep_length_and_level(tmp_path, rate):
    path = write(tmp_path / "a.mkv", [tone(1000, rate)], rate, codec="pcm_f32le", layout="mono")
    samples = decode_video(path, pictures=False).samples
    assert len(samples) == pytest.approx(32_000, abs=1)
    assert abs(level_db(samples)) < 0.1


def silent_or_not(tmp_path: Path, channels: list[np.ndarray], codec: str = "pcm_s16le"):
    """Decode 2 s of frames with these channels beside them."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    path = write(tmp_path / "v.mkv", channels, 48_000, codec=codec, layout=layout, n_pictures=50)
    return decode_video(path)


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "libopus", "ac3", "flac"])
def test_a_digitally_silent_track_is_missing_with_a_reason_of_its_own(tmp_path, codec):
    video = silent_or_not(tmp_path, [np.zeros(96_000, np.float32)] * 2, codec)
    assert video.reasons == ("silent_audio",)
    assert video.samples is None
    assert video.samples_stop_seconds == 0
    assert len(video.start_seconds) == 50


def test_a_constant_is_silence_and_one_step_of_16_bits_of_noise_is_not(tmp_path):
    constant = np.full(96_000, 8 / 32_768, np.float32)  # zero, coded in A-law
    assert silent_or_not(tmp_path, [constant]).reasons == ("silent_audio",)
    dither = np.random.default_rng(0).integers(-1, 2, 96_000) / np.float32(32_768)
    video = silent_or_not(tmp_path, [dither.astype(np.float32)])
    assert video.reasons == ()
    assert video.samples is not None


def test_a_silent_track_requested_alone_is_rejected_with_its_own_reason(tmp_path):
    path = write(
        tmp_path / "a.wav",
        [np.zeros(48_000, np.float32)],
        48_000,
        codec="pcm_s16le",
        layout="mono",
    )
    with pytest.raises(Rejected, match=r"a\.wav has an audio track that is silent") as caught:
        decode_video(path, pictures=False)
    assert caught.value.reason == "silent_audio"


def test_only_the_requested_seconds_make_a_track_silent(tmp_path):
    late = np.concatenate([np.zeros(48_000, np.float32), tone(440, 48_000, 1.0)])
    path = write(tmp_path / "v.mkv", [late], 48_000, codec="flac", layout="mono", n_pictures=50)
    assert decode_video(path).reasons == ()
    assert "silent_audio" in decode_video(path, stop_seconds=0.9).reasons


def test_stereo_in_opposite_phase_is_degraded_with_a_reason(tmp_path):
    left = tone(440, 48_000)
    exact = silent_or_not(tmp_path, [left, -left])
    assert exact.reasons == ("channels_cancel", "silent_audio")
    assert exact.samples is None
    nearly = silent_or_not(tmp_path, [left, -0.9 * left])  # keeps 0.28 %
    assert nearly.reasons == ("channels_cancel",)
    assert nearly.samples is not None


@pytest.mark.parametrize(
    "gains", [(1, 1), (1, 0), (1, -0.5), (1, 0, 0, 0, 0, 0)], ids=["both", "one", "half", "5.1"]
)
def test_ordinary_channels_do_not_cancel(tmp_path, gains):
    """The mean keeps 100, 50, 10 and 16.7 % of the energy."""
    left = tone(440, 48_000)
    channels = [np.float32(gain) * left for gain in gains]
    assert silent_or_not(tmp_path, channels).reasons == ()


def test_two_unrelated_channels_do_not_cancel(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 96_000)).astype(np.float32)
    assert silent_or_not(tmp_path, list(noise)).reasons == ()
