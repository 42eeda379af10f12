"""Footage of one video, as a stream keeps it, and the segments it is cut into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


class Absent(Exception):
    """The video does not have the stream; `reason` is a stable code for the table."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Footage:
    """Uncut data of one video and stream: frames, flow fields or log-mel rows along the first axis.

    Attributes:
        array: (T, …), one row per time step.
        start_seconds: start of each row, on the video's clock.
        stop_seconds: end of each row.
        plan: index of the first row of each chosen segment; increasing.
        reasons: stable codes of its defects.
        rows_per_segment: rows that one segment is made of.
    """

    array: np.ndarray
    start_seconds: Float64[np.ndarray, " T"]
    stop_seconds: Float64[np.ndarray, " T"]
    plan: Int64[np.ndarray, " S"]
    reasons: tuple[str, ...] = ()
    rows_per_segment: int = 1


@dataclass(frozen=True)
class Segments:
    """Segments of one video in the order of time, made on demand: flow stacks are 20 times as large as their source.

    Attributes:
        start_seconds: start of each segment; half-open with `stop_seconds`.
        stop_seconds: end of each segment.
        read: (first, last) → array (last − first, …), input of the encoder.
    """

    start_seconds: Float64[np.ndarray, " S"]
    stop_seconds: Float64[np.ndarray, " S"]
    read: Callable[[int, int], np.ndarray]

    def __len__(self) -> int:
        return len(self.start_seconds)

    @property
    def array(self) -> np.ndarray:
        """All segments, (S, …)."""
        return self.read(0, len(self))
