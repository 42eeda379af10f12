"""Tracks whose time stamps lie far apart in one file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tristream.media.chunks import decode_chunks
from tristream.media.clocks import LiveClocks, early_tracks
from tristream.media.decode import Rejected, decode_video
from tristream.media.probe import judge

FPS = 25


def write(
    path: Path,
    *,
    frames_at: float,
    audio_at: float,
    seconds: float = 4.0,
    audio_seconds: float | None = None,
) -> Path:
    """Grey frames and a tone; each track begins at its own second, packets in the order of their time stamps."""
    ts = path.suffix == ".ts"
    packets = []
    with av.open(str(path), "w", options={"muxdelay": "0"} if ts else {}) as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        for i in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), 2 * i % 200, np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = i + round(frames_at * FPS), Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode()
        n = round((audio_seconds or seconds) * 16_000)
        tone = (0.4 * np.sin(2 * np.pi * 440 * np.arange(n) / 16_000)).astype(np.float32)
        for first in range(0, n, 1024):
            block = av.AudioFrame.from_ndarray(tone[None, first : first + 1024], "fltp", "mono")
            block.sample_rate, block.time_base = 16_000, Fraction(1, 16_000)
            block.pts = first + round(audio_at * 16_000)
            packets += audio.encode(block)
        packets += audio.encode()
        for packet in sorted(packets, key=lambda p: (p.dts * p.time_base, p.stream.index)):
            container.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
@pytest.mark.parametrize(("frames_at", "audio_at"), [(0, 1000), (1000, 0)])
def test_tracks_whose_clocks_differ_are_put_on_one_and_the_gap_is_reported(
    tmp_path, suffix, frames_at, audio_at
):
    path = write(tmp_path / f"v.{suffix}", frames_at=frames_at, audio_at=audio_at)
    video = decode_video(path)
    assert video.reasons == ("timestamp_gap",)
    assert len(video.frames) == 4 * FPS
    assert video.start_seconds[0] == pytest.approx(0, abs=0.1)
    assert video.samples_start_seconds == pytest.approx(0, abs=0.1)
    assert len(video.samples) == pytest.approx(4 * 16_000, abs=2500)


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4"])
@pytest.mark.parametrize(
    ("frames_at", "audio_at", "seconds"),
    [(0, 1000, 4), (1000, 0, 4), (0, 1000, 60), (0, 50, 4), (0, 0, 4), (0, 40, 60)],
)
def test_check_and_embed_agree_on_tracks_that_lie_apart(
    tmp_path, suffix, frames_at, audio_at, seconds
):
    path = write(tmp_path / f"v.{suffix}", frames_at=frames_at, audio_at=audio_at, seconds=seconds)
    embedded = decode_video(path)  # [0, 36) s, as embedding asks for
    verdict = judge(path)
    assert verdict.status == ("degraded" if embedded.reasons else "ok")
    assert verdict.reasons == embedded.reasons


def test_each_track_alone_is_moved_as_both_are_together(tmp_path):
    path = write(tmp_path / "v.ts", frames_at=0, audio_at=1000)
    both = decode_video(path)
    alone = decode_video(path, pictures=False)
    assert alone.reasons == ("timestamp_gap",)
    assert alone.samples_start_seconds == both.samples_start_seconds
    np.testing.assert_array_equal(alone.samples, both.samples)


def test_pieces_of_a_file_with_two_clocks_are_the_whole(tmp_path):
    path = write(tmp_path / "v.ts", frames_at=0, audio_at=1000)
    whole = decode_video(path, stop_seconds=None)
    pieces = list(decode_chunks(path, chunk_seconds=60))
    np.testing.assert_array_equal(
        np.concatenate([piece.samples for piece in pieces if piece.samples is not None]),
        whole.samples,
    )
    assert pieces[-1].reasons == whole.reasons


def test_audio_that_overlaps_the_frames_stays_where_it_is(tmp_path):
    path = write(tmp_path / "v.mkv", frames_at=0, audio_at=7, seconds=10, audio_seconds=3)
    video = decode_video(path)
    assert video.samples_start_seconds == pytest.approx(7, abs=0.1)
    assert video.reasons == ()


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_a_late_track_longer_than_its_gap_stays_and_is_out_of_range_for_both(tmp_path, suffix):
    path = write(tmp_path / f"v.{suffix}", frames_at=0, audio_at=40, seconds=60, audio_seconds=50)
    assert decode_video(path).reasons == ("nothing_in_range",)
    assert "nothing_in_range" in judge(path).reasons
    with pytest.raises(Rejected, match="nothing in the requested seconds"):
        decode_video(path, pictures=False)
    assert judge(path, pictures=False).reasons == ("nothing_in_range",)


@pytest.mark.parametrize(
    ("spans", "early"),
    [
        ({0: (0, 4), 1: (0, 4)}, {}),
        ({0: (0, 4), 1: (1000, 1004)}, {1: 1000}),
        ({0: (1000, 1004), 1: (1000.5, 1003), 2: (0, 3)}, {0: 1000, 1: 1000}),
        ({0: (0, 10), 1: (7, 10)}, {}),
        ({0: (0, 4), 1: (50, 150)}, {}),
        ({0: (0, 1), 1: (1.5, 2)}, {}),
        ({}, {}),
    ],
)
def test_groups_of_overlapping_tracks_move_together(spans, early):
    assert early_tracks(spans) == early


def test_a_live_track_moves_only_if_it_starts_far_from_the_other():
    assert LiveClocks().early_seconds(1, 1003.0, 3.0) == 1000
    assert LiveClocks().early_seconds(1, 20.0, 3.0) == 0
