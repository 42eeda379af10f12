"""Events as they happen, window by window: the same runs as `fusion.anomaly.events.events` finds afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from tristream.fusion.anomaly.attribution import error_shares
from tristream.fusion.anomaly.events import Event, largest_step


@dataclass(frozen=True)
class Alarm:
    """The first window of an event."""

    at_seconds: float
    score: float
    shares: dict[str, float]
    region: int
    row: int


@dataclass(frozen=True)
class Ended:
    """An event that is over, and what made it; fields as in `fusion.anomaly.window_scores.CausedEvent`."""

    event: Event
    shares: dict[str, float]
    region: int
    row: int


@dataclass
class OnlineEvents:
    """A switch with two levels, fed window by window.

    Args:
        threshold: an event starts at score ≥ threshold …
        hysteresis: … and ends at score < threshold − hysteresis.
        hop_seconds: between the centres of windows: bounds lie half of it outside.
        min_seconds: shorter events are not reported as ended; their alarm was.
        streams: names of the columns of errors.
        window_seconds: length of a window; an event ends where two centres lie more than that apart.
    """

    threshold: float
    hysteresis: float
    hop_seconds: float
    min_seconds: float
    streams: tuple[str, ...]
    window_seconds: float = math.inf
    _open: list[tuple[float, float, Float64[np.ndarray, " streams"], int, int]] = field(
        default_factory=list
    )

    def add(
        self,
        time: float,
        score: float,
        errors: Float64[np.ndarray, " streams"],
        region: int,
        row: int,
    ) -> list[Alarm | Ended]:
        """Add the next window and return the events that it ends and begins.

        Args:
            time: centre of the window, seconds.
            errors: of each stream.
            region: the most abnormal one.
            row: number of the row, to be returned with the event.
        """
        changes: list[Alarm | Ended] = []
        if self._open:
            hole = time - self._open[-1][0] > largest_step(self.window_seconds, self.hop_seconds)
            if hole or score < self.threshold - self.hysteresis:
                changes += self.close()
        if self._open or score >= self.threshold:
            self._open.append((time, score, errors, region, row))
            if len(self._open) == 1:
                start = time - self.hop_seconds / 2
                changes.append(Alarm(start, score, self._shares(errors), region, row))
        return changes

    def close(self) -> list[Alarm | Ended]:
        """End the open event, if any: the source has ended, or what follows does not adjoin."""
        if not self._open:
            return []
        run, self._open = self._open, []
        half = self.hop_seconds / 2
        peak = max(run, key=lambda window: window[1])
        event = Event(run[0][0] - half, run[-1][0] + half, peak[0], peak[1])
        if event.stop_seconds - event.start_seconds < self.min_seconds - 1e-9:
            return []
        total = np.sum([errors for _, _, errors, _, _ in run], axis=0)
        return [Ended(event, self._shares(total), peak[3], peak[4])]

    @property
    def is_open(self) -> bool:
        """True during an event."""
        return bool(self._open)

    def _shares(self, errors: Float64[np.ndarray, " streams"]) -> dict[str, float]:
        shares = error_shares(errors[None], np.ones((1, len(errors)), bool))[0]
        return dict(zip(self.streams, shares.tolist(), strict=True))
