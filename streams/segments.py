"""What a stream keeps of one video, and the segments it is cut into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


class Absent(Exception):
    """This video does not have this stream; `reason` is the stable code that goes into the table."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Footage:
    """What one stream keeps of one video, uncut: frames, flow fields or log-mel rows along the first axis.

    Attributes:
        array: (T, …), one row per time step.
        start_seconds: when each row begins, on the video's own clock.
        stop_seconds: when it ends.
        plan: index of the first row of each segment that is looked at; increasing.
        reasons: stable codes of what is degraded about it.
    """

    array: np.ndarray
    start_seconds: Float64[np.ndarray, " T"]
    stop_seconds: Float64[np.ndarray, " T"]
    plan: Int64[np.ndarray, " S"]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segments:
    """The segments of one video in the order of time, made only when asked for: a stack of flow is 20 times its source.

    Attributes:
        start_seconds: when each begins; half-open with `stop_seconds`.
        stop_seconds: when each ends.
        read: (first, last) → array (last − first, …), what the encoder takes.
    """

    start_seconds: Float64[np.ndarray, " S"]
    stop_seconds: Float64[np.ndarray, " S"]
    read: Callable[[int, int], np.ndarray]

    def __len__(self) -> int:
        return len(self.start_seconds)

    @property
    def array(self) -> np.ndarray:
        """All of them at once, (S, …)."""
        return self.read(0, len(self))
