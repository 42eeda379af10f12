"""Where the time of an extraction goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("decode", "flow", "encode", "aggregate", "write")


class Stages:
    """Seconds spent in each part, over all threads; they overlap, so that together they are more than the clock says.

    Attributes:
        seconds: stage → seconds so far.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def spent(self, stage: str) -> Iterator[None]:
        """Adds what the block takes."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - begun

    def shares(self) -> dict[str, float]:
        """Each stage's part of all that was spent, largest first; nothing where nothing was."""
        total = sum(self.seconds.values())
        ranked = sorted(self.seconds.items(), key=lambda item: -item[1])
        return {stage: seconds / total for stage, seconds in ranked if seconds > 0}
