"""Whether a camera shows anything: black and frozen pictures, by their own times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

BLACK_LEVEL = 20  # of 255: video black is 16, and a lens cap is no darker than its noise
FROZEN_LEVEL = 0.25  # mean difference of grey levels between frames; a camera's noise is above, a repeated frame is 0
HOLD_SECONDS = 5.0


@dataclass
class PictureState:
    """Watches frames for pictures that stay black, or stay the same, for `hold_seconds`.

    Says 'black' or 'frozen' once when that is so, and 'picture' once when it is over. Black comes before frozen.
    """

    hold_seconds: float = HOLD_SECONDS
    _before: np.ndarray | None = None
    _since: dict[str, float] | None = None
    _said: str = ""

    def add(
        self, frames: UInt8[np.ndarray, "T H W 3"], start_seconds: Float64[np.ndarray, " T"]
    ) -> Iterator[tuple[str, float]]:
        """Takes the next frames; yields (what, since when in seconds)."""
        since = self._since = self._since if self._since is not None else {}
        for frame, time in zip(frames, start_seconds.tolist(), strict=True):
            grey = frame[::4, ::4].mean(axis=2)
            is_so = {
                "black": float(grey.max()) <= 2 * BLACK_LEVEL and float(grey.mean()) <= BLACK_LEVEL,
                "frozen": self._before is not None
                and self._before.shape == grey.shape
                and float(np.abs(grey - self._before).mean()) < FROZEN_LEVEL,
            }
            self._before = grey
            for what, holds in is_so.items():
                if holds:
                    since.setdefault(what, time)
                else:
                    since.pop(what, None)
            state = next(
                (w for w in is_so if w in since and time - since[w] >= self.hold_seconds), ""
            )
            if state == self._said or (self._said and not state and self._said in since):
                continue
            self._said = state
            yield (state, since[state]) if state else ("picture", time)

    def restart(self) -> None:
        """Forgets the frames before: another connection."""
        self._before, self._since = None, {}
