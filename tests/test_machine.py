from __future__ import annotations

import os

import pytest

from tristream.media import machine
from tristream.media.machine import memory_bytes, n_cores

ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, ALL),
        ({"cpu.max": "max 100000\n"}, ALL),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 1),  # two threads would wait for each other
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, min(ALL, 64)),
        ({"cpu.max": "nonsense\n"}, ALL),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, ALL),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_cores_are_those_that_the_container_has(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert n_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("0::/system.slice/job", {"system.slice/job/cpu.max": "100000 100000"}),
        ("0::/system.slice/job", {"system.slice/cpu.max": "100000 100000", "system.slice/job/cpu.max": "max 100000"}),
        ("3:cpuset:/x\n5:cpu,cpuacct:/job",
         {"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "100000"}),
    ],
)  # fmt: skip
def test_the_group_of_this_process_counts_and_those_around_it(tmp_path, monkeypatch, line, files):
    (tmp_path / "own").write_text(f"{line}\n")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert n_cores(tmp_path) == 8
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert n_cores(tmp_path) == 1


def test_cores_are_those_that_this_process_may_run_on(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert n_cores(tmp_path) == 1


def test_memory_is_what_the_container_has(tmp_path):
    everything = memory_bytes(tmp_path)
    assert everything == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path) == everything
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory_bytes(tmp_path) == 1_000_000
