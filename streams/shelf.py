"""Sequences of segment embeddings, kept on disk while an aggregator learns from them: memory stays flat."""

from __future__ import annotations

import tempfile

import numpy as np
from jaxtyping import Float32


class Shelf:
    """Arrays (S, D) of one width and any lengths, in one temporary file without a name, read by memory map.

    They are gone with the process, whatever ends it.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the shelf)
        self._spans: list[tuple[int, int, tuple[int, ...]]] = []
        self._n_values = 0
        self._mapped: np.memmap | None = None

    def __len__(self) -> int:
        return len(self._spans)

    def put(self, rows: Float32[np.ndarray, "S D"]) -> int:
        """Keeps an array; returns its place."""
        self._file.write(np.ascontiguousarray(rows).data)
        self._spans.append((self._n_values, self._n_values + rows.size, rows.shape))
        self._n_values += rows.size
        self._mapped = None
        return len(self._spans) - 1

    def __getitem__(self, place: int) -> Float32[np.ndarray, "S D"]:
        """A copy of the array at a place."""
        first, last, shape = self._spans[place]
        if self._mapped is None:
            self._file.flush()
            self._mapped = np.memmap(self._file, np.float32, mode="r")
        return np.array(self._mapped[first:last].reshape(shape))

    def n_rows(self, place: int) -> int:
        """How long an array is; it is not read for that."""
        return self._spans[place][2][0]
