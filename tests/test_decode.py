"""Frames and audio are decoded at the times at which they were encoded, and damage is reported."""

from __future__ import annotations

import copy
import os
import re
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tristream.media.decode import Limits, Rejected, decode_video, decoder_build
from tristream.media.reasons import DEGRADED, REJECTED, printable

DATA = Path(__file__).parents[2] / "shared" / "data"
MILLISECOND = Fraction(1, 1000)


def numbered(i: int, width: int = 128, height: int = 96) -> np.ndarray:
    """Frame that carries its own number: 8 bits as black and white blocks along the top."""
    picture = np.full((height, width, 3), 90, np.uint8)
    for bit in range(8):
        picture[: height // 4, bit * width // 8 : (bit + 1) * width // 8] = (
            235 if i >> bit & 1 else 16
        )
    return picture


def number_of(picture: np.ndarray) -> int:
    height, width = picture.shape[:2]
    blocks = [picture[: height // 8, (2 * bit + 1) * width // 16].mean() > 128 for bit in range(8)]
    return sum(1 << bit for bit, white in enumerate(blocks) if white)


def write(
    path: Path,
    pictures: list[np.ndarray] | None,
    *,
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int | None = None,
    sound: list[tuple[float, np.ndarray]] | None = None,
    rate: int = 16000,
    sound_codec: str = "pcm_f32le",
    offset_seconds: float = 0.0,
) -> Path:
    """Write a media file: frames at pts · time_base, mono audio at its seconds, all `offset` seconds later."""
    packets = []
    with av.open(str(path), "w") as container:
        if pictures:
            track = container.add_stream(codec, rate=25)
            track.height, track.width = pictures[0].shape[:2]
            track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            track.codec_context.time_base = time_base
            track.codec_context.gop_size = 25
            track.options = options or (
                {"preset": "ultrafast", "crf": "10"} if codec == "libx264" else {}
            )
            if rotation is not None:
                track.set_display_rotation(rotation)
        if sound:
            heard = container.add_stream(sound_codec, rate=rate, layout="mono")
        for i, picture in enumerate(pictures or []):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = (i if pts is None else pts[i]) + round(offset_seconds / time_base)
            frame.time_base = time_base
            packets += track.encode(frame)
        packets += track.encode() if pictures else []
        for start, samples in sound or []:
            for first in range(0, len(samples), 1024):
                block = np.ascontiguousarray(samples[None, first : first + 1024], np.float32)
                frame = av.AudioFrame.from_ndarray(
                    block, format="fltp" if sound_codec == "aac" else "flt", layout="mono"
                )
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round((start + offset_seconds) * rate) + first
                packets += heard.encode(frame)
        packets += heard.encode() if sound else []
        for packet in sorted(
            packets, key=lambda packet: (packet.dts * packet.time_base, packet.stream.index)
        ):
            container.mux(packet)
    return path


def sine(seconds: float, rate: int = 16000, hertz: float = 440.0, start: float = 0.0) -> np.ndarray:
    return (
        0.4 * np.sin(2 * np.pi * hertz * (start + np.arange(round(seconds * rate)) / rate))
    ).astype(np.float32)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 numbered frames at 25 fps and 2 s of a tone."""
    folder = tmp_path_factory.mktemp("good")
    return write(folder / "good.mkv", [numbered(i) for i in range(50)], sound=[(0.0, sine(2))])


# ---- times


def test_every_frame_comes_at_its_own_presentation_time(tmp_path):
    pts = np.cumsum([0, 10, 10, 200, 40, 5, 90, 33, 400, 16, 16, 40]).tolist()
    path = write(
        tmp_path / "vfr.mkv", [numbered(i) for i in range(12)], pts=pts, time_base=MILLISECOND
    )
    video = decode_video(path, sound=False)
    assert [number_of(frame) for frame in video.frames] == list(range(12))
    np.testing.assert_allclose(video.start_seconds, np.array(pts) / 1000, atol=1e-9)


def test_a_frame_lasts_until_the_next_and_the_last_one_median_step(tmp_path):
    pts = [0, 40, 80, 120, 300, 340]
    path = write(
        tmp_path / "vfr.mkv", [numbered(i) for i in range(6)], pts=pts, time_base=MILLISECOND
    )
    video = decode_video(path, sound=False)
    np.testing.assert_allclose(video.stop_seconds, [0.04, 0.08, 0.12, 0.3, 0.34, 0.38], atol=1e-9)


def test_the_wanted_interval_is_half_open_for_pictures_and_sound(good):
    video = decode_video(good, start_seconds=0.4, stop_seconds=1.2)
    assert [number_of(frame) for frame in video.frames] == list(range(10, 30))
    assert video.stop_seconds[-1] == pytest.approx(1.2)
    assert video.samples_start_seconds == 0.4
    assert len(video.samples) == round(0.8 * 16000)
    np.testing.assert_allclose(video.samples, sine(0.8, start=0.4), atol=1e-6)


def test_windows_that_touch_make_up_the_whole(good):
    whole = decode_video(good)
    parts = [
        decode_video(good, start_seconds=a, stop_seconds=b)
        for a, b in [(0, 0.5), (0.5, 1.01), (1.01, 9)]
    ]
    np.testing.assert_array_equal(np.concatenate([part.frames for part in parts]), whole.frames)
    np.testing.assert_array_equal(np.concatenate([part.samples for part in parts]), whole.samples)
    np.testing.assert_array_equal(
        np.concatenate([part.start_seconds for part in parts]), whole.start_seconds
    )


def test_the_containers_start_is_taken_off_both_tracks_once(tmp_path):
    flash = [numbered(255 if i == 10 else 0) for i in range(25)]
    click = np.zeros(16000, np.float32)
    click[6400] = 1  # 0.4 s, when picture 10 begins
    path = write(tmp_path / "late.mkv", flash, sound=[(0.0, click)], offset_seconds=5.0)
    video = decode_video(path)
    assert video.start_seconds[0] == 0
    seen = video.start_seconds[[number_of(frame) for frame in video.frames].index(255)]
    heard = video.samples_start_seconds + np.argmax(np.abs(video.samples)) / 16000
    assert seen == pytest.approx(0.4, abs=1e-6)
    assert heard == pytest.approx(0.4, abs=1e-3)  # Matroska keeps milliseconds


def test_late_sound_says_when_it_begins(tmp_path):
    path = write(tmp_path / "late.mkv", [numbered(i) for i in range(50)], sound=[(1.0, sine(1))])
    video = decode_video(path)
    assert video.samples_start_seconds == 1.0
    assert len(video.samples) == 16000
    assert video.reasons == ()


def test_a_hole_in_sound_is_silence_and_what_follows_is_in_its_place(tmp_path):
    path = write(
        tmp_path / "hole.mkv",
        [numbered(i) for i in range(25)],
        sound=[(0.0, sine(0.3)), (0.8, sine(0.2))],
    )
    samples = decode_video(path).samples
    assert len(samples) == 16000
    np.testing.assert_array_equal(samples[4800:12800], 0)
    np.testing.assert_allclose(samples[12800:], sine(0.2), atol=1e-6)


def test_a_clock_that_starts_anew_goes_on(tmp_path):
    first = write(tmp_path / "0.ts", [numbered(i) for i in range(25)])
    uneven = np.array([0, 2, 3, 7, 8, 12])
    second = write(tmp_path / "1.ts", [numbered(100 + i) for i in range(6)], pts=uneven.tolist())
    (tmp_path / "both.ts").write_bytes(first.read_bytes() + second.read_bytes())
    video = decode_video(tmp_path / "both.ts")
    assert [number_of(frame) for frame in video.frames] == [*range(25), *range(100, 106)]
    np.testing.assert_allclose(
        video.start_seconds, np.append(np.arange(25), 25 + uneven) / 25, atol=1e-6
    )
    assert "timestamps_not_monotonic" in video.reasons


def test_a_hole_in_time_is_not_filled_and_the_frame_before_it_ends(tmp_path):
    pts = [0, 40, 36_000_000, 36_000_040]
    path = write(
        tmp_path / "gap.mkv", [numbered(i) for i in range(4)], pts=pts, time_base=MILLISECOND
    )
    whole = decode_video(path, stop_seconds=None)
    np.testing.assert_allclose(whole.stop_seconds, [0.04, 0.08, 36000.04, 36000.08])
    assert "timestamp_gap" in whole.reasons
    assert "timestamp_gap" in decode_video(path).reasons  # the first 36 s know that they end in one


def test_b_frames_of_an_avi_come_in_order_and_evenly(tmp_path):
    path = write(
        tmp_path / "b.avi",
        [numbered(i) for i in range(40)],
        codec="mpeg4",
        options={"bf": "2", "q": "2"},
    )
    video = decode_video(path)
    numbers = [number_of(frame) for frame in video.frames]
    assert numbers == sorted(numbers)
    np.testing.assert_allclose(np.diff(video.start_seconds), 0.04)
    assert video.reasons == ("no_audio",)


@pytest.mark.skipif(
    not (DATA / "ut_interaction").is_dir(), reason="needs shared/data/ut_interaction"
)
def test_real_avi_with_swapped_guesses_is_not_called_damaged():
    video = decode_video(DATA / "ut_interaction/kick/ut2_seq14_023_kick.avi")
    assert video.reasons == ("no_audio",)
    np.testing.assert_allclose(np.diff(video.start_seconds), 1 / 30)


# ---- pictures


def test_pictures_are_scaled_down_by_averaging_areas(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    smooth = [cv2.GaussianBlur(noise, (0, 0), 2)]
    path = write(tmp_path / "noise.mkv", smooth, codec="ffv1")
    full = decode_video(path).frames[0]
    small = decode_video(path, max_side=64).frames[0]
    assert small.shape == (48, 64, 3)
    expected = cv2.resize(full, (64, 48), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(small - expected).mean() < 1.0


def test_pictures_are_never_scaled_up(good):
    assert decode_video(good, max_side=1000).frames.shape == (50, 96, 128, 3)


def test_the_longer_side_of_an_upright_picture_is_bounded(tmp_path):
    path = write(tmp_path / "tall.mkv", [numbered(0, 96, 192)])
    assert decode_video(path, max_side=64).frames.shape == (1, 64, 32, 3)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_picture_is_turned_back_once(tmp_path, degrees):
    upright = numbered(0b10010110)
    path = write(tmp_path / "turned.mp4", [np.rot90(upright, -degrees // 90)], rotation=degrees)
    video = decode_video(path)
    assert video.frames[0].shape == upright.shape
    assert number_of(video.frames[0]) == 0b10010110
    assert (video.source_height, video.source_width) == (96, 128)


def test_other_sizes_are_scaled_to_the_first(tmp_path):
    parts = [
        write(tmp_path / f"{i}.ts", [numbered(i, 128 * (i + 1), 96 * (i + 1))] * 5).read_bytes()
        for i in range(2)
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    video = decode_video(tmp_path / "both.ts")
    assert [number_of(frame) for frame in video.frames] == [0] * 5 + [1] * 5
    assert "resolution_changed" in video.reasons


def test_of_two_picture_tracks_the_larger_is_taken(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        tracks = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for track, (width, height) in zip(tracks, [(64, 48), (128, 96)]):
            track.width, track.height, track.pix_fmt = width, height, "yuv444p"
        for i in range(3):
            for track, number in zip(tracks, (100 + i, i)):
                frame = av.VideoFrame.from_ndarray(
                    numbered(number, track.width, track.height), format="rgb24"
                )
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(track.encode(frame))
    video = decode_video(path)
    assert [number_of(frame) for frame in video.frames] == [0, 1, 2]
    assert "multiple_video_streams" in video.reasons


def test_too_many_pictures_are_thinned_evenly(good):
    budget = 20 * 96 * 128 * 3  # twenty of the fifty
    video = decode_video(good, limits=Limits(pictures_bytes=budget))
    assert [number_of(frame) for frame in video.frames] == list(range(0, 50, 4))
    np.testing.assert_allclose(video.start_seconds, np.arange(0, 50, 4) / 25, atol=1e-6)
    np.testing.assert_allclose(np.diff(video.start_seconds), 0.16, atol=1e-6)
    assert "frames_thinned" in video.reasons


def test_keeping_nothing_finds_the_same_facts(good):
    kept, judged = decode_video(good), decode_video(good, keep=False)
    assert judged.frames is None
    assert judged.samples is None
    np.testing.assert_array_equal(judged.start_seconds, kept.start_seconds)
    assert judged.samples_stop_seconds == kept.samples_stop_seconds == 2.0
    assert (judged.reasons, judged.n_decoded_frames) == (kept.reasons, 50)


def test_the_same_file_decodes_to_the_same_bytes(good):
    one, two = decode_video(good, max_side=50), decode_video(good, max_side=50)
    assert one.frames.tobytes() == two.frames.tobytes()
    assert one.samples.tobytes() == two.samples.tobytes()


# ---- damage


def damaged(path: Path, first: int, last: int) -> Path:
    """Copy of a file with the payload of frames first…last − 1 destroyed."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[first:last]:
        data[packet.pos + 4 : packet.pos + packet.size] = b"\xff" * (packet.size - 4)
    target = path.with_name("damaged" + path.suffix)
    target.write_bytes(data)
    return target


def test_frames_from_an_error_to_the_next_clean_key_frame_are_suspect(tmp_path):
    path = write(
        tmp_path / "good.mp4",
        [numbered(i) for i in range(60)],
        sound=[(0.0, sine(2.4))],
        sound_codec="aac",
    )
    video = decode_video(damaged(path, 10, 13))
    numbers = np.array([number_of(frame) for frame in video.frames])
    assert video.n_decode_errors == 3
    assert "decode_errors" in video.reasons
    np.testing.assert_array_equal(
        video.suspect, (video.start_seconds > 0.4) & (video.start_seconds < 1.0)
    )
    np.testing.assert_array_equal(numbers[~video.suspect], [*range(10), *range(25, 60)])
    np.testing.assert_allclose(
        video.start_seconds[~video.suspect], numbers[~video.suspect] / 25, atol=1e-6
    )


def test_damage_before_a_clock_starts_anew_ends_with_it(tmp_path):
    pictures = [numbered(i) for i in range(75)]
    first = write(tmp_path / "0.mkv", pictures, codec="mpeg4", options={"g": "250", "q": "2"})
    parts = [damaged(first, 60, 62)]
    with av.open(str(parts[0])) as source, av.open(str(tmp_path / "0.ts"), "w") as target:
        track = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = track
                target.mux(packet)
    second = write(
        tmp_path / "1.ts", [numbered(100 + i) for i in range(25)], codec="mpeg4", options={"q": "2"}
    )
    (tmp_path / "both.ts").write_bytes((tmp_path / "0.ts").read_bytes() + second.read_bytes())
    video = decode_video(tmp_path / "both.ts")
    assert not video.suspect[:59].any()  # one more than need be: this decoder is one frame late
    assert video.suspect[60:-25].all()
    assert not video.suspect[-25:].any()
    assert [number_of(frame) for frame in video.frames[-25:]] == list(range(100, 125))


def test_a_file_that_ends_early_says_so(tmp_path):
    path = write(tmp_path / "good.mkv", [numbered(i) for i in range(50)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    video = decode_video(path)
    assert 5 < len(video.frames) < 45
    assert "fewer_frames_than_declared" in video.reasons


def test_sound_that_ends_early_says_so(tmp_path):
    path = write(tmp_path / "short.mkv", [numbered(i) for i in range(50)], sound=[(0.0, sine(0.5))])
    assert decode_video(path).reasons == ("audio_shorter_than_video",)


def test_samples_that_are_no_numbers_are_silence_and_spoil_no_others(tmp_path):
    tone = sine(1.0)
    bad = tone.copy()
    bad[5000:5100], bad[9000], bad[9001] = np.nan, np.inf, -np.inf
    path = write(tmp_path / "nan.mkv", [numbered(0)] * 25, sound=[(0.0, bad)])
    video = decode_video(path)
    expected = np.where(np.isfinite(bad), tone, 0)
    np.testing.assert_allclose(video.samples, expected, atol=1e-6)
    assert video.reasons == ("nonfinite_audio",)


@pytest.mark.parametrize("n_channels", [6, 16])
def test_sound_of_many_channels_is_mixed_or_named(tmp_path, n_channels):
    """PyAV reads beyond the planes of a frame with more than eight."""
    path = tmp_path / "many.mkv"
    layout = {6: "5.1", 16: "hexadecagonal"}[n_channels]
    with av.open(str(path), "w") as container:
        track = container.add_stream(
            "flac" if n_channels == 6 else "pcm_f32le", rate=16000, layout=layout
        )
        resampler = av.AudioResampler(format=track.codec_context.format, layout=layout, rate=16000)
        block = np.repeat(sine(1)[:, None], n_channels, 1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="flt", layout=layout)
        frame.sample_rate, frame.pts = 16000, 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(track.encode(piece))
        container.mux(track.encode())
    samples = decode_video(path).samples
    assert np.argmax(np.abs(np.fft.rfft(samples))) == 440


def test_samples_that_are_no_numbers_do_not_spread_where_sound_is_resampled(tmp_path):
    tone = sine(1.0, 48000)
    bad, silent = tone.copy(), tone.copy()
    bad[15000:15300], silent[15000:15300] = np.nan, 0
    files = [
        write(tmp_path / f"{i}.mkv", None, sound=[(0.0, data)], rate=48000)
        for i, data in enumerate((bad, silent))
    ]
    np.testing.assert_array_equal(*[decode_video(file).samples for file in files])


def test_sound_that_nobody_asked_for_makes_no_file_too_short(tmp_path):
    path = write(tmp_path / "long.mkv", [numbered(i) for i in range(25)], sound=[(0.0, sine(5))])
    assert decode_video(path, sound=False).reasons == ()


def test_a_file_with_broken_pictures_is_rejected_but_its_sound_can_be_asked_for(tmp_path):
    path = write(
        tmp_path / "good.mp4",
        [numbered(i) for i in range(25)],
        sound=[(0.0, sine(1))],
        sound_codec="aac",
    )
    path = damaged(path, 0, 25)
    with pytest.raises(
        Rejected, match=r"damaged\.mp4 .*without a frame \(25 frames declared, 25 decode errors\)"
    ):
        decode_video(path)
    assert len(decode_video(path, pictures=False).samples) >= 16000


# ---- sound


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_sound_of_any_rate_keeps_its_phase(tmp_path, rate):
    path = write(tmp_path / "tone.mkv", None, sound=[(0.0, sine(2, rate))], rate=rate)
    samples = decode_video(path).samples
    assert abs(len(samples) - 32000) <= 32
    np.testing.assert_allclose(samples[1000:31000], sine(2)[1000:31000], atol=2e-3)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("wav", "pcm_f32le"),
        ("flac", "flac"),
        ("ogg", "libopus"),
        ("mp3", "libmp3lame"),
        ("m4a", "aac"),
    ],
)
def test_a_file_of_sound_alone_is_heard(tmp_path, suffix, codec):
    path = tmp_path / f"tone.{suffix}"
    rate = 48000
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(sine(2, rate)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(
            format=track.codec_context.format,
            layout="mono",
            rate=rate,
            frame_size=track.frame_size or 1024,
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(track.encode(piece))
        container.mux(track.encode())
    video = decode_video(path)
    assert video.frames is None
    assert video.reasons == ("no_video",)
    spectrum = np.abs(np.fft.rfft(video.samples[4000:20000]))
    assert np.argmax(spectrum) == 440
    assert np.std(video.samples[4000:20000]) == pytest.approx(0.4 / np.sqrt(2), rel=0.05)


def test_a_sample_rate_that_cannot_be_is_no_sound(tmp_path):
    path = write(tmp_path / "tone.wav", None, sound=[(0.0, sine(0.5))])
    data = bytearray(path.read_bytes())
    assert data[24:28] == (16000).to_bytes(4, "little")
    data[24:28] = (855_654_016).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(
        Rejected, match=r"tone\.wav has neither frames nor audio that can be decoded"
    ):
        decode_video(path)


def test_louder_than_full_scale_is_clipped(tmp_path):
    path = write(tmp_path / "loud.mkv", None, sound=[(0.0, 10 * sine(1))])
    samples = decode_video(path).samples
    assert (samples.min(), samples.max()) == (-1.0, 1.0)


# ---- what is refused


@pytest.mark.parametrize(
    ("content", "reason", "text"),
    [
        (b"", "empty_file", r"x\.mp4 is empty \(0 bytes\)"),
        (b"\x07" * 4096, "not_a_video", r"x\.mp4 is not a video or audio file"),
        (b"#EXTM3U\nhttp://127.0.0.1/x.ts\n", "container_not_allowed", r"x\.mp4 is a playlist"),
        (
            b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\0\0mdat" + bytes(64),
            "truncated_no_index",
            r"x\.mp4 was cut off",
        ),
    ],
)
def test_what_is_no_video_is_named(tmp_path, content, reason, text):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(Rejected, match=text) as caught:
        decode_video(tmp_path / "x.mp4")
    assert caught.value.reason == reason


def test_a_title_in_another_encoding_does_not_matter(tmp_path, good):
    with av.open(str(good)) as source, av.open(str(tmp_path / "titled.mkv"), "w") as copy:
        copy.metadata["title"] = "Zuerich"
        track = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = track
                copy.mux(packet)
    written = (tmp_path / "titled.mkv").read_bytes()
    assert written.count(b"Zuerich") == 1
    latin = tmp_path / "latin.mkv"
    latin.write_bytes(written.replace(b"Zuerich", "Zürichs".encode("latin-1")))
    assert len(decode_video(latin).frames) == 50


def test_a_name_is_only_a_name(tmp_path, good):
    odd = tmp_path / "concat:a.mp4|http:%03d.mkv"
    odd.write_bytes(good.read_bytes())
    assert len(decode_video(odd).frames) == 50
    with pytest.raises(Rejected, match=r"good\.mkv\\x00\.txt is not a valid file name"):
        decode_video(Path(f"{good}\0.txt"))


def test_a_link_may_leave_the_data_root_only_when_allowed(tmp_path, good):
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.mkv").symlink_to(good)
    with pytest.raises(Rejected, match=r"link\.mkv leads outside the data root") as caught:
        decode_video(root / "link.mkv", root=root)
    assert caught.value.reason == "outside_root"
    assert len(decode_video(root / "link.mkv", root=root, follow_links=True).frames) == 50
    with pytest.raises(Rejected, match="leads outside"):
        decode_video(root / os.path.relpath(good, root), root=root, follow_links=True)


def test_a_file_that_may_not_be_read_is_named(good, monkeypatch):
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Rejected, match=r"good\.mkv cannot be opened: Permission denied") as caught:
        decode_video(good)
    assert caught.value.reason == "not_readable"


def test_pipes_and_folders_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(Rejected, match=r"pipe\.mp4 is a pipe, socket or device"):
        decode_video(tmp_path / "pipe.mp4")
    with pytest.raises(Rejected, match="is a directory"):
        decode_video(tmp_path)


@pytest.mark.parametrize(
    ("limits", "reason", "text"),
    [
        (Limits(max_pixels=128 * 96 - 1), "resolution_too_large", "more than 12287 px in all"),
        (
            Limits(min_side_px=97),
            "resolution_too_small",
            "128x96 px; the shorter side must have 97 px",
        ),
        (Limits(max_frames=30), "too_many_frames", "has over 30 frames"),
        (Limits(max_seconds=1.5), "too_long", r"more than 1\.5 s"),
        (Limits(max_bytes=1000), "file_too_large", "at most 1000 allowed"),
        (Limits(max_streams=1), "too_many_streams", "has 2 tracks; at most 1 allowed"),
        (Limits(pictures_bytes=30_000), "out_of_memory", "frames larger than"),
    ],
)
def test_every_limit_is_named_with_its_value(good, limits, reason, text):
    with pytest.raises(Rejected, match=text) as caught:
        decode_video(good, limits=limits)
    assert caught.value.reason == reason


def test_sound_is_bounded_too(tmp_path):
    path = write(tmp_path / "long.mkv", None, sound=[(0.0, sine(3))])
    with pytest.raises(Rejected, match="has more than 2 s of audio"):
        decode_video(path, limits=Limits(max_seconds=2))
    with pytest.raises(Rejected, match="MiB of audio; request fewer seconds"):
        decode_video(path, limits=Limits(memory_bytes=8 * 4 * 16000))


def test_rare_codecs_are_refused(tmp_path):
    path = write(
        tmp_path / "rare.mkv", [numbered(0)] * 3, codec="snow", options={"strict": "experimental"}
    )
    with pytest.raises(
        Rejected, match=r"rare\.mkv has its video in snow, which is not decoded here"
    ) as caught:
        decode_video(path)
    assert caught.value.reason == "codec_not_allowed"


def test_asking_for_what_is_not_there_is_said(tmp_path, good):
    silent = write(tmp_path / "silent.mkv", [numbered(0)] * 5)
    with pytest.raises(Rejected, match=r"silent\.mkv has no audio that can be decoded"):
        decode_video(silent, pictures=False)
    tone = write(tmp_path / "tone.mkv", None, sound=[(0.0, sine(1))])
    with pytest.raises(Rejected, match=r"tone\.mkv has no video track"):
        decode_video(tone, sound=False)
    with pytest.raises(Rejected, match="nothing in the requested seconds"):
        decode_video(good, start_seconds=10, stop_seconds=20)


def test_every_reason_that_the_code_gives_is_in_the_list_and_the_other_way_round():
    home = Path(__file__).parents[1]
    files = [
        *home.glob("media/**/*.py"),
        *home.glob("dataset/*.py"),
        *home.glob("streams/**/*.py"),
        home / "tristream/companions.py",
    ]
    source = "".join(
        file.read_text(encoding="utf-8") for file in files if file.name != "reasons.py"
    )
    assert set(re.findall(r'Rejected\(\s*"(\w+)"', source)) <= set(REJECTED)
    assert set(re.findall(r'(?:easons\.add|Absent)\("(\w+)"', source)) <= set(DEGRADED)
    unused = {reason for reason in (*REJECTED, *DEGRADED) if f'"{reason}"' not in source}
    assert unused <= {"audio_too_short"}, "which a stream gives, if it is there"


def test_a_rejection_travels_between_processes_whole():
    error = Rejected("empty_file", Path("x.mp4"), "is empty")
    again = copy.copy(error)  # the same way as between processes
    assert (str(again), again.reason, again.path) == ("x.mp4 is empty", "empty_file", Path("x.mp4"))


def test_the_decoder_is_one_that_is_safe():
    found = re.fullmatch(r"PyAV [\d.]+, FFmpeg n?([\d.]+)\S*, schema \d+", decoder_build())
    assert [int(part) for part in found[1].split(".")] >= [8, 1, 2]  # CVE-2026-8461


def test_names_are_printed_on_one_line_without_control_characters():
    assert printable("a\nb\x1b[31m\udcff\\\u202e日.mp4") == r"a\nb\x1b[31m\xff\\\xe2\x80\xae日.mp4"
