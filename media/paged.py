"""Large arrays in temporary files without a name: memory stays flat however long a video is.

The pages lie in the system's cache of files, which it writes out and takes back when others need the room. The file is
gone with the array, or with the process, whatever ends it.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np
from numpy.typing import DTypeLike

PAGED_BYTES = 8 << 20  # smaller arrays stay in memory: a thousand of them fit into any machine's


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array to be filled; in a file where it is large and there is room for it on the disk."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes < PAGED_BYTES or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(
                file.fileno(), 0, n_bytes
            )  # a page that finds no room later would end the process
        except OSError:
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(file, dtype, "r+", shape=shape))


def copy(array: np.ndarray) -> np.ndarray:
    """The same values; in a file where they are many."""
    kept = empty(array.shape, array.dtype)
    kept[...] = array
    release(kept)
    return kept


def release(array: np.ndarray) -> None:
    """Takes the pages of a paged array out of this process's memory; what is read again comes back."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
