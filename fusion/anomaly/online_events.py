"""Events while they happen: the same runs as `fusion.anomaly.events.events` finds afterwards, window by window."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from tristream.fusion.anomaly.attribution import error_shares
from tristream.fusion.anomaly.events import Event


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
    """

    threshold: float
    hysteresis: float
    hop_seconds: float
    min_seconds: float
    streams: tuple[str, ...]
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
        """Takes the next window: its centre, its score, what each stream adds, its strongest region, its row."""
        found: list[Alarm | Ended] = []
        if self._open and score < self.threshold - self.hysteresis:
            found += self.close()
        elif self._open or score >= self.threshold:
            self._open.append((time, score, errors, region, row))
            if len(self._open) == 1:
                found.append(
                    Alarm(time - self.hop_seconds / 2, score, self._shares(errors), region, row)
                )
        return found

    def close(self) -> list[Alarm | Ended]:
        """Ends the event that is open, where one is: the source has ended, or what follows does not join."""
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
        """Whether an event is going on."""
        return bool(self._open)

    def _shares(self, errors: Float64[np.ndarray, " streams"]) -> dict[str, float]:
        shares = error_shares(errors[None], np.ones((1, len(errors)), bool))[0]
        return dict(zip(self.streams, shares.tolist(), strict=True))
