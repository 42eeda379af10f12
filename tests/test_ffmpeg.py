from __future__ import annotations

import pytest

from tristream.media import ffmpeg
from tristream.media.sandbox.pool import DecodePool, StartError


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("8.1.2", (8, 1, 2)),
        ("n8.1", (8, 1)),
        ("5.1.9-0+deb12u1", (5, 1, 9)),
        ("N-117000-gabcdef", ()),
        ("2026-01-02-git-1f", (2026,)),
        ("", ()),
    ],
)
def test_the_numbers_of_a_version(version, numbers):
    assert ffmpeg.version_numbers(version) == numbers


@pytest.mark.parametrize("version", ["8.1.1", "n8.1", "8.0.9", "7.2", "5.1.9-0+deb12u1"])
def test_an_old_decoder_is_named_with_what_to_do(version):
    assert ffmpeg.fault(version) == (
        f"PyAV decodes with FFmpeg {version}, which has known vulnerabilities (CVE-2026-8461); "
        "it must be 8.1.2 or newer: "
        "pip install -U av"
    )


@pytest.mark.parametrize("version", ["8.1.2", "8.1.10", "8.2", "9.0", "N-117000-gabcdef"])
def test_a_new_decoder_is_well(version):
    assert ffmpeg.fault(version) == ""


def test_the_pool_says_what_it_decodes_with():
    import av

    with DecodePool(1) as pool:
        assert pool.check_decoder() == str(av.ffmpeg_version_info)
        assert len(pool.pids()) == 1


def test_a_pool_gives_no_file_to_an_old_decoder(monkeypatch, tmp_path):
    monkeypatch.setattr(ffmpeg, "MIN_FFMPEG", (99,))
    (tmp_path / "a.mp4").write_bytes(b"x")
    with DecodePool(1) as pool:
        for ask in (pool.check_decoder, lambda: pool.submit(tmp_path / "a.mp4").result()):
            with pytest.raises(StartError, match="it must be 99 or newer"):
                ask()
        assert pool.pids() == []
