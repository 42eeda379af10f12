"""Large arrays in unnamed temporary files: memory stays flat for videos of any length.

Their pages lie in the page cache, which the system writes out when others need the memory. The file disappears with the
array, or with the process however it ends.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np
from numpy.typing import DTypeLike

PAGED_BYTES = 8 << 20  # smaller arrays stay in memory: a thousand of them fit into any machine


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return an uninitialised array; in a file if it is large and the disk has room for it."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes < PAGED_BYTES or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(
                file.fileno(), 0, n_bytes
            )  # a page without room later would end the process
        except OSError:
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))


def copy(array: np.ndarray) -> np.ndarray:
    """Return a copy; in a file if it is large."""
    duplicate = empty(array.shape, array.dtype)
    duplicate[...] = array
    release(duplicate)
    return duplicate


def release(array: np.ndarray) -> None:
    """Drop the pages of a paged array from this process's memory; pages that are read again return."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
