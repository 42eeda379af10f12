from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from store.atomic import replace_file, write_bytes
from store.cache import KINDS, Cache

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
    found = sorted(path.relative_to(cache.root).as_posix() for path in cache.root.rglob("*") if path.is_file())
    assert found == sorted(f"{kind}/ab/ab12" for kind in ("plan", "motion", "flow", "segments"))
    assert sorted((kind, path.name) for kind, path in cache.entries()) == sorted((kind, "ab12") for kind in KINDS)


@pytest.mark.parametrize("ask", ["get", "path"])
def test_an_unknown_kind_is_refused_with_those_there_are(cache, ask):
    with pytest.raises(ValueError, match="unknown cache kind 'stacks'; available: plan, motion, flow, segments"):
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
            assert Cache(cache.root, report=said.append).get("segments", "ab12") is None, (index, bit)
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
    monkeypatch.setattr("store.cache._checksum", lambda arrays: pytest.fail("checked twice"))
    assert cache.get("segments", "ab12") is not None


def test_a_put_that_fails_leaves_nothing_behind(cache, monkeypatch):
    monkeypatch.setattr("os.replace", lambda old, new: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(OSError, match="I/O error"):
        cache.put("segments", "ab12", ENTRY)
    assert files(cache.root) == []


def test_keys_say_what_went_in_and_nothing_else(cache):
    key = cache.key(content_id="a", size=(2, 3))
    assert key == cache.key(size=[2, 3], content_id="a")
    assert len(key) == 64
    others = [cache.key(content_id="b", size=(2, 3)), cache.key(content_id="a", size=(3, 2)), cache.key(content_id="a")]
    assert len({key, *others}) == 4


WRITER = """
import sys
from pathlib import Path
import numpy as np
from store.cache import Cache
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
    writers = [subprocess.Popen(command, cwd=HOME, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert (writer.returncode, errors) == (0, "")
    assert said == []
    assert len(files(cache.root)) == 5
