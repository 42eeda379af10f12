"""The kit of bad files (tests/torture) against its expectations: every file ends in the state it must end in.

An expectation with `audio` null does not concern audio: most of those files have no audio track, and `no_audio`, which
is reported for every such file, counts neither for nor against it (20_no_audio.mp4 must have it). The same holds for
`silent_audio` where `audio` is "silent".
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import typer

from tristream.commands import check
from tristream.dataset.manifest import ManifestError, index_csv
from tristream.media.probe import Verdict, judge
from tristream.media.sandbox.pool import DecodePool

pytestmark = pytest.mark.slow

KIT = Path(__file__).parent / "torture" / "make_bad_videos.py"
MEDIA_GROUPS = {"control", "bytes", "streams", "time", "geometry", "names", "hostile"}
SSRF_PORT = 18099
CANARY = Path(tempfile.gettempdir()) / "TORTURE_CANARY_PICKLE_EXECUTED"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torture") / "kit"
    subprocess.run([sys.executable, str(KIT), str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def cases(kit: Path) -> list[dict]:
    found = json.loads((kit / "expectations.json").read_text())["cases"]
    return [case for case in found if case["group"] in MEDIA_GROUPS]


@pytest.fixture(scope="module")
def pool():
    with DecodePool(1) as pool:
        yield pool


def peak_memory_mib(pool: DecodePool) -> float:
    """Peak memory of any decode process since it started."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in pool.pids()]
    return max(int(re.search(r"VmHWM:\s+(\d+)", text)[1]) for text in texts) / 1024


def through(pool: DecodePool):
    return lambda path, **options: pool.submit(path, **options).result()


# Reasons that count neither for nor against a file, by what the kit says of its audio.
NOT_COUNTED = {None: "no_audio", "silent": "silent_audio"}


def misses(verdict: Verdict, expect: dict, seconds: float, memory: float) -> list[str]:
    """Differences of a verdict from the expected one."""
    reasons = set(verdict.reasons) - {NOT_COUNTED.get(expect["audio"])}
    status = "reject" if verdict.status == "rejected" else "degraded" if reasons else "ok"
    found = []
    if status != expect["status"]:
        found.append(f"{status} {sorted(reasons)}, expected {expect['status']}")
    if expect["reason"] is not None and expect["reason"] not in reasons:
        found.append(f"reasons {sorted(reasons)} lack {expect['reason']}")
    if (
        status != "reject"
        and expect["frames"]
        and not expect["frames"][0] <= verdict.n_frames <= expect["frames"][1]
    ):
        found.append(f"{verdict.n_frames} frames, expected {expect['frames']}")
    if seconds > expect["max_s"]:
        found.append(f"{seconds:.1f} s, allowed {expect['max_s']}")
    if memory > expect["max_rss_mb"]:
        found.append(f"{memory:.0f} MiB, allowed {expect['max_rss_mb']}")
    return found


def test_every_media_file_of_the_kit_ends_as_expected(kit, cases, pool):
    pool.submit(kit / "00_good.mp4").result()  # the start of the process is nobody's time
    with socket.create_server(("127.0.0.1", SSRF_PORT)) as server:
        wrong = {}
        for case in cases:
            begun = time.monotonic()
            verdict = judge(kit / case["file"], decode=through(pool), root=kit)
            found = misses(verdict, case["expect"], time.monotonic() - begun, peak_memory_mib(pool))
            if verdict.status == "rejected" and not verdict.message.split("/")[-1].isprintable():
                found.append(f"message is not safe to print: {verdict.message!r}")
            if found:
                wrong[case["file"]] = found
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert wrong == {}
    assert len(cases) == 67


def test_the_embedding_path_keeps_within_the_same_limits(kit, cases, pool):
    """As `embed` decodes: pictures kept, 36 s; a rejection for the same reason as when nothing is kept."""
    wrong = {}
    for case in cases:
        begun = time.monotonic()
        error = pool.submit(kit / case["file"], max_side=96, root=kit).exception()
        seconds, memory = time.monotonic() - begun, peak_memory_mib(pool)
        reason = getattr(error, "reason", error and repr(error))
        expected = case["expect"]["reason"] if case["expect"]["status"] == "reject" else None
        within = seconds < case["expect"]["max_s"] and memory < case["expect"]["max_rss_mb"]
        if reason != expected or not within:
            wrong[case["file"]] = (reason, expected, seconds, memory)
    assert wrong == {}


def number_of(picture: np.ndarray) -> int:
    """The kit's barcode: 8 bits along the top quarter."""
    height, width = picture.shape[:2]
    blocks = [
        picture[height // 10 : height // 6, (2 * bit + 1) * width // 16].mean() > 128
        for bit in range(8)
    ]
    return sum(1 << bit for bit, white in enumerate(blocks) if white)


def test_the_right_frames_come_out_at_the_right_times(kit, cases, pool):
    """Of every file: those that are not suspect carry the number that belongs to their time."""
    irregular = ("30_", "32_", "34_", "37_", "38_", "50_dup/classB", "50_dup/classA/v001.mkv")
    for case in cases:
        name = case["file"]
        if (
            case["expect"]["status"] == "reject"
            or case["expect"]["reason"] == "no_video"
            or name.startswith(irregular)
        ):
            continue
        video = pool.submit(kit / name, root=kit).result()
        as_stored = [
            np.rot90(frame, -1) if name.startswith("41_") else frame for frame in video.frames
        ]
        numbers = np.array([number_of(frame) for frame in as_stored])
        # the transport stream begins with 64 ms of the sound encoder's own delay, as its time stamps say
        begins = 0.064 if name.startswith("16_") else 0.0
        expected = np.round((video.start_seconds - begins) * 25).astype(int)
        clean = ~video.suspect
        np.testing.assert_array_equal(numbers[clean], expected[clean], err_msg=name)


def test_variable_frame_rates_keep_their_times(kit, pool):
    video = pool.submit(kit / "30_vfr.mkv").result()
    steps = np.array([10, 10, 200, 40, 5, 90, 33, 400, 16, 16] * 5)[:49] / 1000
    np.testing.assert_allclose(video.start_seconds, np.cumsum([0, *steps]), atol=1e-6)
    assert [number_of(frame) for frame in video.frames] == list(range(50))


def test_files_of_one_name_stay_apart(kit, pool):
    def first(name: str) -> int:
        return number_of(pool.submit(kit / "50_dup" / name, root=kit).result().frames[0])

    assert [first("classA/v001.mp4"), first("classB/v001.mp4"), first("classA/v001.mkv")] == [
        0,
        100,
        50,
    ]


def test_damaged_pictures_are_suspect(kit, pool):
    def suspect(name: str) -> int:
        return int(pool.submit(kit / name).result().suspect.sum())

    # 50 of 50 and 45 of 46 pictures of these differ from the original; in the third, 20 of 40 follow the damage
    assert suspect("10_bitrot_mdat.mp4") == 50
    assert suspect("16_packet_loss.ts") >= 45
    assert suspect("11_corrupt_frames_20_29.mp4") == 20
    assert suspect("00_good.mp4") == 0


def test_sound_of_every_kind_is_finite_and_in_its_place(kit, cases, pool):
    for case in cases:
        if case["expect"]["audio"] in (None, "missing"):
            continue
        video = pool.submit(kit / case["file"], root=kit).result()
        if case["expect"]["audio"] == "silent":
            assert video.samples is None
            assert video.reasons == ("silent_audio",)
            continue
        assert np.isfinite(video.samples).all(), case["file"]
        assert video.samples_start_seconds == (
            1.0 if case["expect"]["audio"].startswith("offset") else 0.0
        ), case["file"]
        if case["expect"]["audio"] == "downmix+resample":
            assert np.argmax(np.abs(np.fft.rfft(video.samples[:16000]))) == 440


def test_all_thirteen_problems_of_the_label_file_are_named_by_line(kit):
    with pytest.raises(ManifestError) as caught:
        index_csv(kit / "70_labels_bad.csv")
    codes = [re.match(r"line (\d+): (\w+)", problem).groups() for problem in caught.value.problems]
    assert codes == [
        ("3", "outside_root"),
        ("4", "outside_root"),
        ("5", "not_a_local_path"),
        ("6", "not_a_local_path"),
        ("7", "not_found"),
        ("8", "contradicts"),
        ("9", "empty_label"),
        ("10", "one_video"),
        ("11", "one_video"),
        ("12", "not_found"),
        ("13", "wrong_field_count"),
        ("14", "wrong_field_count"),
        ("15", "not_utf8"),
    ]
    assert "line 8: contradicts line 2" in caught.value.problems[5]


def test_mutated_files_never_end_the_parent_nor_outlast_the_limit():
    """300 of the 10,000 mutations of docs/reliability.md, through `tristream check`."""
    script = KIT.with_name("mutate.py")
    command = [sys.executable, str(script), "--n", "300", "--batch", "150", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 mutations, seed 0" in done.stdout


def test_what_is_no_media_is_judged_too(kit, capsys):
    """List, pickles, lying weights and archives end in the state that the kit expects, and no pickle is run."""
    found = json.loads((kit / "expectations.json").read_text())["cases"]
    others = {
        case["file"]: case["expect"]["reason"]
        for case in found
        if case["group"] not in MEDIA_GROUPS
    }
    assert len(others) == 9
    CANARY.unlink(missing_ok=True)
    with pytest.raises(typer.Exit) as stopped:
        check.run([kit / name for name in others], data=kit, workers=1, as_json=True)
    assert stopped.value.exit_code == 3
    entries = json.loads(capsys.readouterr().out)["files"]
    assert {Path(entry["path"]).name: entry["reasons"][0] for entry in entries} == others
    assert all(entry["sentence"].isprintable() for entry in entries)
    assert not CANARY.exists()
