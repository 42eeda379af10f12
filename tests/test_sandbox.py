"""The parent survives whatever happens in a decode process, and no process or file stays behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from tristream.media.decode import Limits, Rejected, decode_video
from tristream.media.encode import write_video
from tristream.media.probe import probe
from tristream.media.sandbox import pool as pools
from tristream.media.sandbox import protocol
from tristream.media.sandbox.pool import DecodePool, StartError

ROOT = Path(__file__).parents[1]
LONG_SECONDS = 20


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of frames and audio."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (25, 48, 64, 3), np.uint8)
    write_video(path, frames, fps=25, samples=rng.uniform(-0.5, 0.5, 16000).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Video that takes about a second to decode."""
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (100, 160, 208, 3), np.uint8)
    write_video(path, np.tile(frames, (LONG_SECONDS // 4, 1, 1, 1)), fps=25, crf=30)
    return path


def wait_for(condition, seconds: float = 20.0):
    """Return the value of `condition` as soon as it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_at_work(pool: DecodePool, file: Path) -> int | None:
    """Return the child that has `file` open, once there is one."""
    for pid in pool.pids():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if link.readlink() == file:
                    return pid
            except FileNotFoundError:
                continue
    return None


def test_a_pool_gives_what_decoding_gives(clip):
    here = decode_video(clip, max_side=40)
    with DecodePool(1) as pool:
        there = pool.submit(clip, max_side=40).result()
        assert pool.probe(clip).result() == probe(clip)
    for name in here.__dataclass_fields__:
        ours, theirs = getattr(here, name), getattr(there, name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert ours == theirs


def test_a_rejected_file_is_rejected_with_the_same_words(tmp_path):
    bad = tmp_path / "bad\n\udcff.mp4"
    bad.write_bytes(b"nothing")
    with pytest.raises(Rejected) as here:
        decode_video(bad)
    with (
        DecodePool(1) as pool,
        pytest.raises(Rejected, match=r"bad\\n\\xff\.mp4 is not a video") as there,
    ):
        pool.submit(bad).result()
    assert (str(there.value), there.value.reason) == (str(here.value), "not_a_video")


def test_a_relative_path_means_the_same_in_the_child(clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    with DecodePool(1) as pool:
        assert len(pool.submit(Path(clip.name)).result().frames) == 25


def test_a_child_that_crashes_is_one_failed_video(clip, long_clip):
    with DecodePool(1) as pool:
        future = pool.submit(long_clip)
        os.kill(wait_for(lambda: is_at_work(pool, long_clip)), signal.SIGSEGV)
        with pytest.raises(
            Rejected, match=r"long\.mp4 ended its decode process, which was ended by SIGSEGV"
        ) as caught:
            future.result()
        assert caught.value.reason == "decoder_crashed"
        assert len(pool.submit(clip).result().frames) == 25


def test_a_child_that_is_killed_from_outside_loses_nothing(clip, long_clip):
    with DecodePool(1) as pool:
        future = pool.submit(long_clip, keep=False, stop_seconds=None)
        os.kill(wait_for(lambda: is_at_work(pool, long_clip)), signal.SIGKILL)
        assert len(future.result().start_seconds) == 25 * LONG_SECONDS
        os.kill(pool.pids()[0], signal.SIGKILL)  # idle
        assert len(pool.submit(clip).result().frames) == 25


def test_a_file_whose_children_are_always_killed_is_given_up(long_clip):
    with DecodePool(1) as pool:
        future = pool.submit(long_clip)
        for _ in range(pools.ATTEMPTS):
            os.kill(wait_for(lambda: is_at_work(pool, long_clip)), signal.SIGKILL)
            wait_for(lambda: future.done() or not is_at_work(pool, long_clip))
        with pytest.raises(Rejected, match="SIGKILL") as caught:
            future.result()
        assert caught.value.reason == "decoder_crashed"


def test_a_child_that_uses_too_much_processor_time_is_named_so(long_clip):
    with DecodePool(1) as pool:
        future = pool.submit(long_clip)
        os.kill(
            wait_for(lambda: is_at_work(pool, long_clip)), signal.SIGXCPU
        )  # what the system sends
        with pytest.raises(Rejected, match=r"long\.mp4 used more processor time") as caught:
            future.result()
        assert caught.value.reason == "decoder_timeout"


def test_processor_time_is_bounded_by_the_system_too(tmp_path):
    code = "from tristream.media.sandbox.isolation import limit_cpu_seconds\nlimit_cpu_seconds(1)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGXCPU


@pytest.mark.parametrize("header", [{}, {"rejected": "because"}, {"found": {"frames": 1}}])
def test_an_answer_that_makes_no_sense_is_the_files_fault(header):
    with pytest.raises(Rejected, match=r"x\.mp4 got no valid answer") as caught:
        pools._result(Path("x.mp4"), header, {}, pools._to_video)
    assert caught.value.reason == "decoder_crashed"


def test_a_child_that_hangs_is_ended_and_named(clip, long_clip):
    with DecodePool(1, limits=Limits(open_seconds=0.5, realtime_factor=0.5)) as pool:
        future = pool.submit(long_clip)
        pid = wait_for(lambda: is_at_work(pool, long_clip))
        os.kill(pid, signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(Rejected, match=r"long\.mp4 takes too long to decode: ") as caught:
            future.result()
        assert caught.value.reason == "decoder_timeout"
        assert time.monotonic() - begun < 0.5 + 0.5 * LONG_SECONDS + 2
        assert not is_alive(pid)
        assert len(pool.submit(clip).result().frames) == 25


def test_memory_of_a_child_is_bounded(clip, tmp_path):
    large = tmp_path / "large.mp4"
    write_video(large, np.zeros((8, 2000, 3000, 3), np.uint8), fps=25)
    with DecodePool(1, limits=Limits(memory_bytes=300 << 20)) as pool:
        with pytest.raises(Rejected, match=r"large\.mp4 needs more memory") as caught:
            pool.submit(large).result()
        assert caught.value.reason == "out_of_memory"
        assert len(pool.submit(clip).result().frames) == 25


def test_many_threads_may_submit(clip):
    found = []
    with DecodePool(2) as pool:

        def work() -> None:
            found.extend(
                len(future.result().frames) for future in [pool.submit(clip) for _ in range(5)]
            )

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(pool.pids()) <= 2
    assert found == [25] * 20


def test_a_closed_pool_leaves_no_process_and_no_waiting_future(clip, long_clip):
    pool = DecodePool(1)
    futures = [pool.submit(long_clip) for _ in range(5)]
    pid = wait_for(lambda: is_at_work(pool, long_clip))
    begun = time.monotonic()
    pool.close()
    assert time.monotonic() - begun < 2
    assert not is_alive(pid)
    for future in futures:
        with pytest.raises((Rejected, CancelledError)):
            future.result(timeout=1)


PARENT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs tests in the background ignores it
from pathlib import Path
from tristream.media.sandbox.pool import DecodePool
with DecodePool(2) as pool:
    futures = [pool.submit(Path(sys.argv[1])) for _ in range(50)]
    futures[0].result()
    print(*pool.pids(), flush=True)
    for future in futures:
        future.result()
    time.sleep(60)
"""


def start_parent(file: Path) -> tuple[subprocess.Popen, list[int]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


def test_children_do_not_outlive_a_parent_that_is_killed(long_clip):
    parent, pids = start_parent(long_clip)
    assert pids
    parent.kill()
    parent.communicate()
    wait_for(lambda: not any(is_alive(pid) for pid in pids), 5)


def test_ctrl_c_ends_everything_at_once_with_one_traceback_at_most(long_clip):
    parent, pids = start_parent(long_clip)
    begun = time.monotonic()
    os.killpg(parent.pid, signal.SIGINT)  # what a terminal does
    _, errors = parent.communicate(timeout=20)
    assert time.monotonic() - begun < 5
    assert errors.count("Traceback") == 1  # the parent's own KeyboardInterrupt
    assert "KeyboardInterrupt" in errors
    wait_for(lambda: not any(is_alive(pid) for pid in pids), 5)


def test_children_ignore_ctrl_c(clip, long_clip):
    with DecodePool(1) as pool:
        future = pool.submit(long_clip, keep=False, stop_seconds=None)
        os.kill(wait_for(lambda: is_at_work(pool, long_clip)), signal.SIGINT)
        assert future.result().n_decoded_frames == 25 * LONG_SECONDS


ISOLATED = """
import os, socket, sys
from pathlib import Path
from tristream.media.sandbox.isolation import isolate
inside = Path(sys.argv[1])
achieved = isolate(memory_bytes=1 << 30, parent=os.getppid())
def attempt(what):
    try:
        what()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
print(attempt(lambda: (inside / "known").read_text()))
print(attempt(lambda: (inside / "new").write_bytes(b"")))
print(attempt(lambda: (inside / "known").write_text("changed")))
print(attempt(lambda: (inside / "known").unlink()))
print(attempt(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2])), 1)))
print(attempt(lambda: os.execv("/bin/true", ["true"])))
print(attempt(lambda: os.kill(os.getppid(), 0)))
print(attempt(lambda: bytearray(2 << 30)))
print(achieved)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Landlock and seccomp are Linux's")
def test_a_child_can_read_and_nothing_else(tmp_path):
    (tmp_path / "known").write_text("known")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        command = [sys.executable, "-c", ISOLATED, str(tmp_path), str(server.getsockname()[1])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        *attempts, achieved = done.stdout.splitlines()
        if "refused (Landlock" not in achieved or "refused (seccomp)" not in achieved:
            pytest.skip(f"this kernel offers less: {achieved}")
        with pytest.raises(TimeoutError):
            server.accept()
    assert attempts == ["done", *["PermissionError"] * 6, "MemoryError"]
    assert (tmp_path / "known").read_text() == "known"
    assert not (tmp_path / "new").exists()


def test_what_was_achieved_is_said():
    achieved = pools.isolation()
    assert achieved["limits"].startswith("1536 MiB of memory")
    assert set(achieved) == {"limits", "end with the parent", "writing", "network, programs"}


def test_the_parent_loads_no_decoder_and_no_torch():
    code = "import sys, tristream.media.sandbox.pool, tristream.dataset.manifest; "
    code += "print({'av', 'torch', 'cv2'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


ONE_FILE = """
import sys
from pathlib import Path
from tristream.media.sandbox.pool import DecodePool
with DecodePool(1) as pool:
    print(len(pool.submit(Path(sys.argv[1])).result().frames))
"""


def test_a_child_finds_our_code_from_any_folder(clip, tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "__init__.py").write_text("raise SystemExit('the wrong media')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", ONE_FILE, str(clip)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "25"


def test_a_child_that_cannot_start_is_not_the_files_fault(clip):
    too_little = Limits(memory_bytes=50 << 20)  # Python starts in it, the libraries do not
    with (
        DecodePool(1, limits=too_little) as pool,
        pytest.raises(StartError, match=r"does not start: .*rror") as caught,
    ):
        pool.submit(clip).result()
    assert not isinstance(caught.value, Rejected)


def test_children_together_stay_within_their_share_of_memory(monkeypatch):
    monkeypatch.setattr(pools, "memory_bytes", lambda: 8 << 30)
    with DecodePool(16, limits=Limits(memory_bytes=1 << 30)) as pool:
        assert pool.n_workers == 4  # 60 % of 8 GiB
    with DecodePool(16, limits=Limits(memory_bytes=100 << 30)) as pool:
        assert pool.n_workers == 1


def test_no_worker_is_no_pool():
    with pytest.raises(ValueError, match="0 decode workers; at least 1"):
        DecodePool(0)


@pytest.mark.slow
def test_workers_that_are_killed_all_the_time_lose_no_video(clip, long_clip):
    files = [clip, long_clip] * 10
    expected = {
        file: decode_video(file, max_side=40).frames.tobytes() for file in (clip, long_clip)
    }
    with DecodePool(2) as pool:
        futures = [pool.submit(file, max_side=40) for file in files]
        rng = np.random.default_rng(0)
        n_kills = 0
        while not all(future.done() for future in futures):
            time.sleep(2)
            if pids := pool.pids():
                os.kill(int(rng.choice(pids)), signal.SIGKILL)
                n_kills += 1
        assert n_kills >= 1
        assert [future.result().frames.tobytes() for future in futures] == [
            expected[file] for file in files
        ]


# ---- messages


def message(header: dict, raw: bytes = b"") -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        protocol.send(theirs, header)
        theirs.sendall(raw)
    return ours


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        (["frames", "uint8", [1 << 40]], "larger than allowed"),
        (["frames", "object", [1]], "type 'object'"),
        (["frames", "uint8", [-1, 5]], r"shape \[-1, 5\]"),
    ],
)
def test_arrays_that_no_child_of_ours_sends_are_not_read(listed, text):
    with socket.socketpair()[0] as nobody, pytest.raises(protocol.Closed, match=text):
        protocol.receive_arrays(nobody, {"arrays": [listed]}, max_bytes=1 << 20)


def test_a_header_without_end_is_not_read():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(protocol.Closed, match="header of 4294967295 bytes"):
            protocol.receive_header(ours)


@pytest.mark.parametrize(("raw", "text"), [(b"[1]", "not a JSON object"), (b"{{{", "not JSON")])
def test_a_header_must_be_a_json_object(raw, text):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(len(raw).to_bytes(4, "big") + raw)
        with pytest.raises(protocol.Closed, match=text):
            protocol.receive_header(ours)


def test_an_answer_that_breaks_off_is_noticed():
    with message({}, b"123") as source:
        protocol.receive_header(source)
        with pytest.raises(protocol.Closed, match="the other side has closed"):
            protocol.receive_arrays(
                source, {"arrays": [["samples", "float32", [4]]]}, max_bytes=100
            )
