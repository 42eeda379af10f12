"""How fast it goes, where the time goes, and when it will end: what stands beside the progress bar of `embed`."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from tristream.commands.forecast import duration

if TYPE_CHECKING:
    from tristream.streams.timings import Stages

RECENT_SECONDS = 60.0  # the pace is that of the last minute: what lies longer back was another load, or the start


class Pace:
    """Watches results come.

    Args:
        total: how many there will be.
        stages: where the time goes.
    """

    def __init__(self, total: int, stages: Stages) -> None:
        self._total = total
        self._stages = stages
        self._n_done = 0
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def note(self) -> str:
        """After one more video: pace, expected end, shares of the stages."""
        self._n_done += 1
        now = time.monotonic()
        self._recent.append((now, self._n_done))
        while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        since, n_before = self._recent[0]
        per_second = (self._n_done - n_before) / max(now - since, 1e-9)
        left = (self._total - self._n_done) / per_second
        shares = self._stages.shares()
        where = ", ".join(
            f"{stage} {share:.0%}" for stage, share in shares.items() if share >= 0.005
        )
        pace = f"{per_second:.2g} videos/s" if per_second < 100 else f"{per_second:.0f} videos/s"
        ends = f", {duration(left)} to go" if self._n_done < self._total else ""
        return f"{pace}{ends}" + (f"  [{where}]" if where else "")
