"""Facts of a header, and one verdict per file."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tristream.media.decode import Limits, Rejected, decode_video
from tristream.media.encode import write_video
from tristream.media.probe import Probe, Verdict, judge, probe
from tristream.media.sandbox.pool import DecodePool


def picture_file(path: Path, n_frames: int = 30, *, sound: bool = True) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (n_frames, 48, 64, 3), np.uint8)
    samples = np.full(round(n_frames / 30 * 16000), 0.1, np.float32) if sound else None
    write_video(path, frames, fps=30, samples=samples)
    return path


def test_a_probe_is_what_was_written(tmp_path):
    found = probe(picture_file(tmp_path / "x.mp4"))
    assert found.duration_seconds == pytest.approx(1.0, abs=0.1)
    assert found == Probe(
        n_frames=30,
        fps=30.0,
        duration_seconds=found.duration_seconds,
        height=48,
        width=64,
        has_video=True,
        has_audio=True,
        container="mov,mp4,m4a,3gp,3g2,mj2",
        video_codec="h264",
        audio_codec="aac",
    )


def test_a_file_of_sound_alone_has_no_size(tmp_path):
    write_video(tmp_path / "x.mp4", None, fps=25, samples=np.zeros(16000, np.float32))
    found = probe(tmp_path / "x.mp4")
    assert (found.has_video, found.has_audio) == (False, True)
    assert (found.n_frames, found.fps, found.height, found.width, found.video_codec) == (
        None,
        None,
        None,
        None,
        "",
    )


def test_the_size_is_the_upright_one(tmp_path):
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("libx264", rate=25)
        track.width, track.height, track.pix_fmt = 128, 96, "yuv420p"
        track.set_display_rotation(90)
        frame = av.VideoFrame.from_ndarray(np.zeros((96, 128, 3), np.uint8), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(track.encode(frame))
        container.mux(track.encode())
    found = probe(path)
    assert (found.height, found.width) == (128, 96)


def test_a_probe_decodes_one_picture_only(tmp_path, monkeypatch):
    counts = []
    from tristream.media import decode

    class Counted(decode.Pictures):
        def receive(self, frame, origin_seconds):
            counts.append(frame.pts)
            super().receive(frame, origin_seconds)

    monkeypatch.setattr(decode, "Pictures", Counted)
    probe(picture_file(tmp_path / "x.mp4", 200))
    assert len(counts) <= 2


def test_a_probe_rejects_what_decoding_rejects(tmp_path):
    path = picture_file(tmp_path / "x.mp4")
    with pytest.raises(Rejected, match="shorter side must have 49 px"):
        probe(path, limits=Limits(min_side_px=49))
    path.write_bytes(b"")
    with pytest.raises(Rejected, match=r"x\.mp4 is empty"):
        probe(path)


def test_a_good_file_is_ok(tmp_path):
    verdict = judge(picture_file(tmp_path / "x.mp4"))
    assert verdict.seconds == pytest.approx(1.0, abs=0.1)
    assert verdict == Verdict(status="ok", reasons=(), n_frames=30, seconds=verdict.seconds)


@pytest.mark.parametrize(
    ("n_frames", "reasons"),
    [
        (1, ("no_audio", "too_short_for_flow")),
        (10, ("no_audio", "padded_short_clip")),
        (11, ("no_audio",)),
    ],
)
def test_short_files_are_degraded_by_what_they_are_too_short_for(tmp_path, n_frames, reasons):
    verdict = judge(picture_file(tmp_path / "x.mp4", n_frames, sound=False))
    assert (verdict.status, verdict.reasons) == ("degraded", reasons)


def test_what_nobody_asks_for_is_not_missed(tmp_path):
    silent = picture_file(tmp_path / "x.mp4", sound=False)
    assert judge(silent, sound=False).status == "ok"
    rejected = judge(silent, pictures=False)
    assert (rejected.status, rejected.reasons) == ("rejected", ("no_audio",))
    assert rejected.message.endswith("x.mp4 has no audio that can be decoded")


def test_a_verdict_is_the_same_through_a_pool(tmp_path):
    path = picture_file(tmp_path / "x.mp4")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(path.read_bytes()[:2000])
    with DecodePool(1) as pool:
        for file in (path, bad):
            there = judge(
                file, decode=lambda path, **options: pool.submit(path, **options).result()
            )
            assert there == judge(file, decode=decode_video)


def test_a_verdict_is_plain_data(tmp_path):
    verdict = judge(picture_file(tmp_path / "x.mp4"))
    assert json.loads(json.dumps(verdict.__dict__))["status"] == "ok"
