"""`tristream check`: states, limits, links and exit codes, shared with the commands over a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from tristream import settings
from tristream.commands.check import run as check_command
from tristream.errors import UsageError
from tristream.media.encode import write_video
from tristream.media.limits import Limits

HOME = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good videos, one of them silent; two bad files; a link out of the folder."""
    folder = tmp_path_factory.mktemp("check") / "videos"
    outside = folder.parent / "outside.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (25, 48, 64, 3), np.uint8)
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)
    write_video(outside, frames, fps=25, samples=tone)
    (folder / "walk").mkdir(parents=True)
    write_video(folder / "walk" / "good.mp4", frames, fps=25, samples=tone)
    write_video(folder / "silent.mp4", frames, fps=25)
    (folder / os.fsdecode(b"bad\n\xff.mp4")).write_bytes(b"nothing")
    (folder / "=empty.mp4").write_bytes(b"")
    (folder / "link.mp4").symlink_to(outside)
    (folder / "notes.txt").write_text("no video")
    return folder


def check(*arguments: object) -> tuple[int, str, str]:
    command = [sys.executable, "orchestrate.py", "check", "--workers", "1", *map(str, arguments)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_every_file_is_one_line_with_one_state(folder):
    code, out, errors = check(folder)
    assert code == 3
    lines = [line.replace(f"{folder}/", "") for line in out.splitlines()]
    assert lines == [
        "rejected  =empty.mp4  empty_file: is empty (0 bytes); copy or download it again",
        "rejected  bad\\n\\xff.mp4  not_a_video: is not a video or audio file: Invalid data found when "
        "processing input",
        "rejected  link.mp4  outside_root: leads outside the data root; copy the file in, name its own folder, or "
        "allow links with --follow-links",
        "degraded  silent.mp4  no_audio",
        "ok        walk/good.mp4",
    ]
    assert "5 files: 1 ok, 1 degraded, 3 rejected; decoded by FFmpeg" in errors


def test_the_same_is_said_in_json_that_any_program_reads(folder):
    code, out, _ = check(folder, "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["degraded"], found["rejected"]) == (3, 1, 1, 3)
    assert "\\ud" not in out.lower()  # half a surrogate pair is no Unicode text
    states = {
        Path(entry["path"]).name: (entry["state"], entry["reasons"]) for entry in found["files"]
    }
    assert states == {
        "=empty.mp4": ("rejected", ["empty_file"]),
        "bad\n\\xff.mp4": ("rejected", ["not_a_video"]),
        "link.mp4": ("rejected", ["outside_root"]),
        "silent.mp4": ("degraded", ["no_audio"]),
        "good.mp4": ("ok", []),
    }
    good = found["files"][-1]
    assert (good["n_frames"], good["n_errors"], good["n_suspect"]) == (25, 0, 0)
    assert found["limits"]["max_pixels"] == 8_300_000


def test_links_out_of_the_root_are_followed_when_that_is_asked_for_and_said(folder):
    code, out, errors = check(folder, "--follow-links")
    assert code == 3
    assert f"ok        {folder}/link.mp4" in out
    assert f"the data root is {folder.resolve()}" in errors


def test_good_files_give_zero_and_a_named_file_may_be_a_link(folder):
    assert check(folder / "walk" / "good.mp4", folder / "link.mp4")[0] == 0
    code, out, _ = check(folder / "link.mp4", "--data", folder)
    assert (code, "outside_root" in out) == (3, True)


def test_quick_reads_headers_only(folder, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    data = bytearray((folder / "silent.mp4").read_bytes())
    middle = data.index(b"mdat") + 4 + len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    damaged.write_bytes(data)
    assert check(damaged)[1].split()[2] == "decode_errors"
    code, out, _ = check(
        damaged,
        folder / "walk" / "good.mp4",
        folder / "silent.mp4",
        folder / "=empty.mp4",
        "--quick",
    )
    assert code == 3
    assert [line.split()[0] for line in out.splitlines()] == [
        "degraded",
        "ok",
        "degraded",
        "rejected",
    ]
    assert "decode_errors" not in out


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("max_pixels=1000", "resolution_too_large"),
        ("min_side_px=49", "resolution_too_small"),
        ("max_seconds=0.5", "too_long"),
        ("max_frames=20", "too_many_frames"),
        ("max_bytes=100", "file_too_large"),
        ("max_streams=1", "too_many_streams"),
    ],
)
def test_each_limit_can_be_set(folder, limit, reason, capsys):
    with pytest.raises(typer.Exit) as stopped:
        check_command([folder / "walk" / "good.mp4"], assignments=[f"limits.{limit}"], workers=1)
    assert (stopped.value.exit_code, capsys.readouterr().out.split()[2]) == (3, f"{reason}:")


def test_limits_come_from_a_file_and_an_assignment_is_over_it(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[limits]\nmax_frames = 7\nmax_seconds = 60\n[sampler]\nn_samples = 3\n")
    assert settings.limits(None) == Limits()
    assert settings.limits(file) == Limits(max_frames=7, max_seconds=60)
    assert settings.limits(file, ["limits.max_frames=9"]) == Limits(max_frames=9, max_seconds=60)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        (
            "limits.max_frame=9",
            r"unknown key 'max_frame' in \[limits\]; valid: max_bytes, max_pixels",
        ),
        ("limits.max_frames=0", r"\[limits\] max_frames = 0: .*greater than or equal to 1"),
        ("limits.pictures_bytes=9", "unknown key 'pictures_bytes'"),
        ("sampler.n_samples=9", r"--set sampler.n_samples=9: only limits\.… can be set here"),
        ("limits=9", r"\[limits\] is 9; it must be a section of keys"),
    ],
)
def test_a_wrong_limit_is_named_before_any_work(assignment, said):
    with pytest.raises(UsageError, match=said):
        settings.limits(None, [assignment])


def test_every_limit_but_one_can_be_set_and_has_one_default():
    assert settings.LimitsConfig().to_limits() == Limits()
    assert {*settings.LimitsConfig.model_fields, "pictures_bytes"} == set(
        Limits.__dataclass_fields__
    )


def test_a_folder_without_media_and_a_missing_file_are_named(tmp_path):
    code, _, errors = check(tmp_path)
    assert (code, f"{tmp_path} holds no file with the suffix" in errors) == (2, True)
    code, out, _ = check(tmp_path / "none.mp4")
    assert (code, "not_found" in out) == (3, True)


OLD = """
import sys, orchestrate
from tristream.media import ffmpeg
ffmpeg.MIN_FFMPEG = (99, 0)
sys.argv = ["tristream", "check", sys.argv[1], "--workers", "1"]
orchestrate.main()
"""


def test_an_old_decoder_ends_check_with_four_before_any_file(folder):
    command = [sys.executable, "-c", OLD, str(folder)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert "it must be 99.0 or newer: pip install -U av" in done.stderr
