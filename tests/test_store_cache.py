from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tristream.store import entry
from tristream.store.atomic import replace_file, write_bytes
from tristream.store.cache import KINDS, Cache

HOME = Path(__file__).parents[1]
ENTRY = {
    "embedding": np.arange(6, dtype=np.float32).reshape(2, 3),
    "start_seconds": np.array([0.0, 0.5]),
    "notes": np.frombuffer(b'["no_audio"]', np.uint8),
    "none": np.zeros((0, 4), np.float32),
    "one": np.array(3),
}


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(tmp_path, said):
    return Cache(tmp_path / "cache", report=said.append)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_appears_whole_and_readable_for_others(tmp_path):
    with replace_file(tmp_path / "new" / "a.bin") as handle:
        handle.write(b"half")
        handle.flush()
        assert not (tmp_path / "new" / "a.bin").exists()
        handle.write(b"whole")
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"halfwhole"
    assert (tmp_path / "new" / "a.bin").stat().st_mode & 0o777 == 0o644
    assert files(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_bytes(tmp_path / "a.bin", b"old")
    with pytest.raises(error), replace_file(tmp_path / "a.bin") as handle:  # noqa: PT012
        handle.write(b"new" * 100_000)
        raise error
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert files(tmp_path) == ["a.bin"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "a.bin", b"new")
    assert files(tmp_path) == []


def test_a_rename_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.bin").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "a.bin", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda descriptor: order.append("sync") or fsync(descriptor))
    monkeypatch.setattr("os.replace", lambda old, new: order.append("rename") or replace(old, new))
    write_bytes(tmp_path / "a.bin", b"new")
    assert order == ["sync", "rename"]


def test_an_entry_comes_back_as_it_was_put(cache):
    cache.put("segments", "ab12", ENTRY)
    found = cache.get("segments", "ab12")
    assert found.keys() == ENTRY.keys()
    for name, array in ENTRY.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)


def test_what_is_not_there_is_none(cache, said):
    assert cache.get("flow", "ab12") is None
    assert said == []
    assert not cache.root.exists()


def test_entries_stand_where_the_design_says_and_are_all_there_is(cache):
    for kind in KINDS:
        cache.put(kind, "ab12", ENTRY)
    found = sorted(
        path.relative_to(cache.root).as_posix() for path in cache.root.rglob("*") if path.is_file()
    )
    assert found == sorted(
        f"{kind}/ab/ab12" for kind in ("plan", "motion", "flow", "segments", "compiled")
    )
    assert sorted((kind, path.name) for kind, path in cache.entries()) == sorted(
        (kind, "ab12") for kind in KINDS
    )


@pytest.mark.parametrize("ask", ["get", "path"])
def test_an_unknown_kind_is_refused_with_those_there_are(cache, ask):
    with pytest.raises(
        ValueError, match="'stacks'; available: plan, motion, flow, segments, compiled"
    ):
        getattr(cache, ask)("stacks", "ab12")


def test_every_flipped_bit_is_found_named_and_removed(cache, said):
    """Of all bits of a whole entry, header included."""
    cache.put("segments", "ab12", ENTRY)
    path = cache.path("segments", "ab12")
    data = path.read_bytes()
    for index in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            path.write_bytes(damaged)
            said.clear()
            assert Cache(cache.root, report=said.append).get("segments", "ab12") is None, (
                index,
                bit,
            )
            assert said == [f"cache entry is corrupt, removed and recomputed: {path}"]
            assert not path.exists()


@pytest.mark.parametrize("n_bytes", [0, 1, 7, 8, 9, 100, -1])
def test_an_entry_cut_short_is_corrupt(cache, said, n_bytes):
    cache.put("segments", "ab12", ENTRY)
    path = cache.path("segments", "ab12")
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert cache.get("segments", "ab12") is None
    assert re.search(rf"corrupt.*{re.escape(str(path))}$", said[0])


def test_a_safetensors_file_without_our_sum_is_corrupt(cache, said):
    from safetensors.numpy import save

    write_bytes(cache.path("flow", "ab12"), save({"flow": np.ones(3)}))
    assert cache.get("flow", "ab12") is None
    assert len(said) == 1


def test_an_entry_can_be_put_again_after_it_was_corrupt(cache):
    cache.put("segments", "ab12", ENTRY)
    cache.path("segments", "ab12").write_bytes(b"rubbish")
    assert cache.get("segments", "ab12") is None
    cache.put("segments", "ab12", ENTRY)
    assert np.array_equal(cache.get("segments", "ab12")["embedding"], ENTRY["embedding"])


def test_the_sum_is_checked_once_per_process_and_entry(cache, monkeypatch):
    cache.put("segments", "ab12", ENTRY)
    cache.get("segments", "ab12")
    monkeypatch.setattr(
        "tristream.store.entry.checksum", lambda arrays: pytest.fail("checked twice")
    )
    assert cache.get("segments", "ab12") is not None


def test_a_put_that_fails_leaves_nothing_behind(cache, monkeypatch):
    monkeypatch.setattr(
        "os.replace", lambda old, new: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error"))
    )
    with pytest.raises(OSError, match="I/O error"):
        cache.put("segments", "ab12", ENTRY)
    assert files(cache.root) == []


def test_keys_say_what_went_in_and_nothing_else(cache):
    key = cache.key(content_id="a", size=(2, 3))
    assert key == cache.key(size=[2, 3], content_id="a")
    assert len(key) == 64
    others = [
        cache.key(content_id="b", size=(2, 3)),
        cache.key(content_id="a", size=(3, 2)),
        cache.key(content_id="a"),
    ]
    assert len({key, *others}) == 4


WRITER = """
import sys
from pathlib import Path
import numpy as np
from tristream.store.cache import Cache
cache = Cache(Path(sys.argv[1]), report=lambda sentence: sys.exit(sentence))
for round in range(40):
    for number in range(5):
        arrays = {"a": np.full(2000, number)}
        cache.put("motion", f"{number:02d}ff", arrays)
        found = Cache(Path(sys.argv[1]), report=lambda sentence: sys.exit(sentence)).get("motion", f"{number:02d}ff")
        assert (found["a"] == number).all()
"""


def test_two_processes_write_the_same_entries_and_nobody_reads_half_of_one(cache, said):
    command = [sys.executable, "-c", WRITER, str(cache.root)]
    writers = [
        subprocess.Popen(command, cwd=HOME, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert (writer.returncode, errors) == (0, "")
    assert said == []
    assert len(files(cache.root)) == 5


# ---- reading without copying


def test_an_entry_is_a_safetensors_file_that_others_can_read(cache):
    from safetensors.numpy import load_file

    cache.put("segments", "ab12", ENTRY)
    found = load_file(cache.path("segments", "ab12"))
    assert {name: array.tobytes() for name, array in found.items()} == {
        n: a.tobytes() for n, a in ENTRY.items()
    }


def test_a_large_entry_is_mapped_and_outlives_its_file(cache, monkeypatch):
    import mmap

    monkeypatch.setattr("tristream.store.cache.MAP_BYTES", 1)
    cache.put("flow", "ab12", ENTRY)
    found = cache.get("flow", "ab12")
    base = found["embedding"]
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
    cache.path("flow", "ab12").unlink()
    for name, array in ENTRY.items():
        assert np.array_equal(found[name], array), name
    with pytest.raises(ValueError, match="read-only"):
        found["embedding"][0] = 0


def test_a_large_entry_that_is_corrupt_is_found_too(cache, said, monkeypatch):
    monkeypatch.setattr("tristream.store.cache.MAP_BYTES", 1)
    cache.put("flow", "ab12", ENTRY)
    path = cache.path("flow", "ab12")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert cache.get("flow", "ab12") is None
    assert len(said) == 1
    assert not path.exists()


def test_an_entry_that_another_process_has_put_anew_is_verified_again(cache, said):
    cache.put("flow", "ab12", ENTRY)
    cache.get("flow", "ab12")
    cache.put("flow", "ab12", ENTRY)
    path = cache.path("flow", "ab12")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert cache.get("flow", "ab12") is None
    assert len(said) == 1


LYING = {
    "more bytes than there are": {
        "dtype": "F32",
        "shape": [1 << 20, 1 << 20],
        "data_offsets": [0, 4 << 40],
    },
    "a negative size": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]},
    "bytes left over": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    "a hole before it": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    "an unknown type": {"dtype": "F4", "shape": [2], "data_offsets": [0, 8]},
    "one key too many": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "more": 1},
    "no object": [],
}


@pytest.mark.parametrize("lie", LYING)
def test_a_header_that_lies_is_corrupt(cache, said, lie):
    import json
    import struct

    sha256 = entry.checksum(
        {"w": np.zeros(1, np.float32)}
    )  # the right one, where the lie is about what surrounds it
    header = json.dumps({"__metadata__": {"sha256": sha256}, "w": LYING[lie]}).encode()
    write_bytes(cache.path("flow", "ab12"), struct.pack("<Q", len(header)) + header + bytes(8))
    assert cache.get("flow", "ab12") is None
    assert len(said) == 1


# ---- what a killed process leaves, and what it takes to make the cache smaller

KILLED = """
import os, signal, sys
from pathlib import Path
from tristream.store.atomic import replace_file
with replace_file(Path(sys.argv[1])) as handle:
    handle.write(b"half")
    handle.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
def test_a_process_killed_while_it_writes_leaves_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.bin")], cwd=HOME, check=False)
    assert files(tmp_path) == []


def test_where_every_file_needs_a_name_writing_works_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("tristream.store.atomic._nameless", lambda folder: None)
    write_bytes(tmp_path / "a.bin", b"whole")
    assert (tmp_path / "a.bin").read_bytes() == b"whole"
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644
    with pytest.raises(ValueError, match="no"), replace_file(tmp_path / "a.bin") as handle:  # noqa: PT012
        handle.write(b"new")
        raise ValueError("no")
    assert files(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"whole"


def used(cache: Cache, **seconds_ago: float) -> int:
    """Entries of equal size used so long ago; returns that size."""
    import time

    for key, age in seconds_ago.items():
        cache.put("flow", key, {"a": np.zeros(100)})
        os.utime(cache.path("flow", key), (time.time() - age,) * 2)
    return cache.path("flow", key).stat().st_size


def test_what_was_used_longest_ago_goes_first(cache):
    size = used(cache, new=10, old=9000, older=20_000, oldest=90_000)
    assert cache.info()["flow"].n_bytes == 4 * size
    gone = cache.prune(2 * size)
    assert (gone.n_entries, gone.n_bytes) == (2, 2 * size)
    assert files(cache.root) == ["new", "old"]
    assert cache.prune(2 * size).n_entries == 0
    assert cache.prune(2 * size - 1).n_entries == 1
    assert files(cache.root) == ["new"]
    cache.prune(0)
    assert files(cache.root) == []


def test_reading_an_entry_is_using_it(cache):
    size = used(cache, read=90_000, unread=9000)
    assert cache.get("flow", "read") is not None
    cache.prune(size)
    assert files(cache.root) == ["read"]


def test_half_written_files_of_dead_processes_are_pruned_and_those_of_live_ones_are_not(cache):
    used(cache, ab12=10)
    folder = cache.path("flow", "ab12").parent
    for name in (".tmp-dead", ".tmp-alive"):
        (folder / name).write_bytes(b"half")
    os.utime(folder / ".tmp-dead", (0, 0))
    cache.prune(1 << 30)
    assert files(cache.root) == [".tmp-alive", "ab12"]


def test_pruning_beside_processes_that_read_and_write_disturbs_nobody(cache):
    bears_misses = WRITER.replace("found = ", "found = {'a': np.array(number)}; _ = ")
    command = [sys.executable, "-c", bears_misses, str(cache.root)]
    writer = subprocess.Popen(command, cwd=HOME, stderr=subprocess.PIPE, text=True)
    while writer.poll() is None:
        cache.prune(0)
    assert (writer.returncode, writer.communicate()[1]) == (0, "")


def test_kinds_that_are_not_written_are_still_read(cache):
    cache.put("flow", "ab12", ENTRY)
    without = Cache(cache.root, written=("motion", "segments"))
    without.put("flow", "cd34", ENTRY)
    without.put("motion", "cd34", ENTRY)
    assert files(cache.root) == ["ab12", "cd34"]
    assert without.get("flow", "ab12") is not None
    assert without.get("flow", "cd34") is None


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("10GB", 10**10),
        ("10 gb", 10**10),
        ("2GiB", 2 << 30),
        ("1.5M", 1_500_000),
        ("0", 0),
        ("10B", 10),
        ("3kB", 3000),
    ],
)
def test_sizes_as_people_write_them(text, n_bytes):
    from tristream.commands.cache import bytes_of

    assert bytes_of(text) == n_bytes


@pytest.mark.parametrize("text", ["10", " 10 ", "1.5", "00010"])
def test_a_size_without_a_unit_is_refused(text):
    from tristream.commands.cache import bytes_of
    from tristream.errors import UsageError

    with pytest.raises(UsageError, match=f"--max-size {text} has no unit; .* or 0 to empty"):
        bytes_of(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "ten", "10iB", "10 PB", "1e9", "nan"])
def test_what_is_no_size_is_refused(text):
    from tristream.commands.cache import bytes_of
    from tristream.errors import UsageError

    with pytest.raises(UsageError, match=f"--max-size {text} is no size; it must be like 10GB"):
        bytes_of(text)


def test_the_cache_command_says_what_there_is_and_what_is_gone(cache, capsys):
    import json

    import typer

    from tristream.commands import cache as command

    size = used(cache, new=10, old=9000)
    for part, given in ((command.info, [cache.root]), (command.prune, ["500B", cache.root])):
        with pytest.raises(typer.Exit) as stopped:
            part(*given, as_json=True)
        assert stopped.value.exit_code == 0
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert first["kinds"]["flow"] == {"n_entries": 2, "n_bytes": 2 * size}
    assert (second["removed_entries"], second["n_bytes"]) == (2, 0)
    with pytest.raises(typer.Exit) as stopped:
        command.info(cache.root / "none")
    assert stopped.value.exit_code == 2
