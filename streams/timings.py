"""Time spent in the stages of an extraction."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("decode", "flow", "encode", "aggregate", "write")


class Stages:
    """Seconds spent in each stage, over all threads; stages overlap, so the sum exceeds the elapsed time.

    Attributes:
        seconds: stage → seconds so far.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def spent(self, stage: str) -> Iterator[None]:
        """Add the duration of the block."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - begun

    def shares(self) -> dict[str, float]:
        """Return {stage: share of the total time}, largest first, without unused stages."""
        total = sum(self.seconds.values())
        ranked = sorted(self.seconds.items(), key=lambda item: -item[1])
        return {stage: seconds / total for stage, seconds in ranked if seconds > 0}
