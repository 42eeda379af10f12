from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tristream.media.chunks import decode_chunks
from tristream.media.decode import DecodedVideo, decode_video
from tristream.media.encode import write_video
from tristream.media.limits import Limits
from tristream.media.reasons import Rejected
from tristream.media.sandbox.pool import DecodePool


def scene(
    path: Path, *, seconds: float = 5.3, fps: float = 25, sound: bool = True, late: float = 0.0
) -> Path:
    rng = np.random.default_rng(0)
    n = round(seconds * fps)
    frames = np.repeat(rng.integers(0, 256, (n, 12, 16, 3), np.uint8), 4, axis=1).repeat(4, axis=2)
    samples = rng.uniform(-0.5, 0.5, round((seconds - late) * 16000)).astype(np.float32)
    write_video(path, frames, fps=fps, samples=samples if sound else None)
    return path


def joined(pieces: list[DecodedVideo]) -> dict[str, np.ndarray]:
    sounding = [piece for piece in pieces if piece.samples is not None]
    for before, after in itertools.pairwise(sounding):
        assert after.samples_start_seconds == pytest.approx(before.samples_stop_seconds, abs=1e-9)
    shown = [piece for piece in pieces if piece.frames is not None]
    return {
        "frames": np.concatenate([piece.frames for piece in shown]) if shown else np.zeros(0),
        "starts": np.concatenate([piece.start_seconds for piece in pieces]),
        "stops": np.concatenate([piece.stop_seconds for piece in pieces]),
        "suspect": np.concatenate([piece.suspect for piece in pieces]),
        "samples": np.concatenate([piece.samples for piece in sounding])
        if sounding
        else np.zeros(0),
    }


@pytest.mark.parametrize("chunk_seconds", [0.21, 1.0, 60.0])
@pytest.mark.parametrize("name", ["scene", "silent", "slow"])
def test_the_pieces_are_the_whole_bit_for_bit_whatever_their_length(
    tmp_path: Path, chunk_seconds: float, name: str
) -> None:
    path = scene(
        tmp_path / "a.mp4", sound=name != "silent", fps=7.3 if name == "slow" else 25, late=0.8
    )
    whole = decode_video(path, stop_seconds=None, max_side=40)
    pieces = list(decode_chunks(path, chunk_seconds=chunk_seconds, max_side=40))
    found = joined(pieces)
    assert np.array_equal(found["frames"], whole.frames)
    assert np.array_equal(found["starts"], whole.start_seconds)
    np.testing.assert_allclose(found["stops"], whole.stop_seconds, atol=1e-9)
    assert np.array_equal(found["samples"], np.zeros(0) if whole.samples is None else whole.samples)
    assert pieces[-1].reasons == whole.reasons
    for piece in pieces[:-1]:
        k = np.floor(piece.start_seconds[0] / chunk_seconds + 1e-9)
        assert piece.start_seconds[-1] < (k + 1) * chunk_seconds


def test_no_piece_is_larger_than_its_seconds(tmp_path: Path) -> None:
    path = scene(tmp_path / "a.mp4")
    for piece in decode_chunks(path, chunk_seconds=0.5):
        assert len(piece.start_seconds) <= 13
        assert piece.samples is None or len(piece.samples) <= 8000


def test_a_decode_process_gives_the_same_pieces_and_serves_again_afterwards(tmp_path: Path) -> None:
    path = scene(tmp_path / "a.mp4")
    here = joined(list(decode_chunks(path)))
    with DecodePool(1) as pool:
        there = joined(list(pool.stream(path)))
        assert all(np.array_equal(here[name], there[name]) for name in here)
        first = pool.pids()
        assert pool.submit(path).result().n_decoded_frames == 132
        assert pool.pids() == first
        pieces = pool.stream(path)
        next(pieces)
        pieces.close()  # given up half way: its process is gone, the next file gets another
        assert pool.submit(path).result().n_decoded_frames == 132
        assert pool.pids() != first


def test_a_file_that_is_none_is_rejected_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all")
    with (
        DecodePool(1) as pool,
        pytest.raises(Rejected, match=r"a\.mp4 is not a video or audio file"),
    ):
        list(pool.stream(path))


def test_a_file_beyond_the_limits_is_rejected_after_the_pieces_before(tmp_path: Path) -> None:
    path = scene(tmp_path / "a.mp4")
    found = []
    with pytest.raises(Rejected, match="more than 2 s of audio; cut it"):
        found.extend(decode_chunks(path, limits=Limits(max_seconds=2.0)))
    assert len(found) in (1, 2)
