"""Detection of black and frozen frames of a camera, by their own times."""

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
    """Detect frames that stay black, or stay the same, for `hold_seconds`.

    Yields 'black' or 'frozen' once when that begins, and 'picture' once when it ends. Black takes precedence.
    """

    hold_seconds: float = HOLD_SECONDS
    _before: np.ndarray | None = None
    _since: dict[str, float] | None = None
    _state: str = ""

    def add(
        self, frames: UInt8[np.ndarray, "T H W 3"], start_seconds: Float64[np.ndarray, " T"]
    ) -> Iterator[tuple[str, float]]:
        """Take the next frames; yield (state, since which second)."""
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
            if state == self._state or (self._state and not state and self._state in since):
                continue
            self._state = state
            yield (state, since[state]) if state else ("picture", time)

    def restart(self) -> None:
        """Forget earlier frames, after a new connection."""
        self._before, self._since = None, {}
