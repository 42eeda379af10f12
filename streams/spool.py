"""Arrays of a training, kept on disk until it ends: thousands of videos exceed any machine's memory."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import IO

import numpy as np

FILE_BYTES = 1 << 36  # of address space; on disk a file is as large as its content


class Spool:
    """Arrays in unnamed temporary files: few files for many arrays, deleted with the process.

    They lie in Python's folder of temporary files (TMPDIR).

    Args:
        min_bytes: smaller arrays stay in memory.
        file_bytes: length of one file.
    """

    def __init__(self, *, min_bytes: int = 0, file_bytes: int = FILE_BYTES) -> None:
        self._min_bytes, self._file_bytes = min_bytes, file_bytes
        self._file: IO[bytes] | None = None
        self._mapped: mmap.mmap | None = None
        self._n_bytes = 0  # of the present file

    def keep(self, array: np.ndarray) -> np.ndarray:
        """Return the same array, read from disk when it is used; it must not be written to.

        Raises:
            OSError: the disk is full.
        """
        if array.nbytes < max(1, self._min_bytes):
            return array
        if self._file is None or self._n_bytes + array.nbytes > self._file_bytes:
            self._open(max(self._file_bytes, array.nbytes))
        assert self._file is not None
        assert self._mapped is not None
        data, start, n_written = np.ascontiguousarray(array).data.cast("B"), self._n_bytes, 0
        # Written, not copied into the map: a full disk then raises an error and does not kill the process.
        while n_written < array.nbytes:
            n_written += os.pwrite(self._file.fileno(), data[n_written:], start + n_written)
        self._n_bytes = -(-(start + array.nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        return np.frombuffer(self._mapped, array.dtype, array.size, start).reshape(array.shape)

    def _open(self, n_bytes: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the arrays in it)
        self._file.truncate(n_bytes)
        self._mapped = mmap.mmap(self._file.fileno(), n_bytes, access=mmap.ACCESS_READ)
        self._n_bytes = 0
