from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tristream.streams.spool import Spool


def test_arrays_of_any_kind_come_back_and_need_one_open_file():
    spool = Spool()
    generator = np.random.default_rng(0)
    kinds = (np.float32, np.uint8, np.float16, np.int64)
    arrays = [(generator.normal(size=(n, 3)) * 50).astype(kinds[n % 4]) for n in range(1, 120)]
    turned = np.arange(12.0).reshape(3, 4).T
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir())) if opened.is_dir() else 0
    kept = [spool.keep(array) for array in [*arrays, turned]]
    after = len(list(opened.iterdir())) if before else 0
    assert after - before <= 2, "thousands of videos are more than a process may have open files"
    for array, found in zip([*arrays, turned], kept, strict=True):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)


def test_a_full_file_is_followed_by_another_and_larger_arrays_get_their_own():
    spool = Spool(file_bytes=3 * 4096)
    arrays = [np.full(5000, n, np.uint8) for n in range(5)] + [np.arange(9000.0)]
    kept = [spool.keep(array) for array in arrays]
    assert all(np.array_equal(found, array) for found, array in zip(kept, arrays, strict=True))


def test_kept_arrays_are_read_only_and_small_ones_stay_in_memory():
    spool = Spool(min_bytes=100)
    small, large = np.zeros(3), np.zeros(1000)
    assert spool.keep(small) is small
    with pytest.raises(ValueError, match="read-only"):
        spool.keep(large)[0] = 1
    assert spool.keep(np.zeros((0, 4))).shape == (0, 4)


def test_a_full_disk_is_an_error_that_names_it(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        Spool().keep(np.zeros(10))
