"""Polynomial expansion (Farnebäck 2003) in OpenCV, at the settings of OpenCV's own tutorial.

OpenCV's number of threads is left to the caller, as in `dis`; the flow does not depend on it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, UInt8

NAMES = ("farneback",)

# At the rim of a picture few pixels have a say: still pictures "move" there by up to .23 px; padded, by .0004 at most.
_BORDER_PX = 8
_SETTINGS: dict[str, float] = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def build(name: str) -> Farneback:
    return Farneback(name)


@dataclasses.dataclass(frozen=True)
class Farneback:
    """Farnebäck flow: three pyramid levels, windows of 15 px, three iterations, polynomials over 5 px."""

    name: str
    tolerance_px: float = 0.3

    @property
    def identity(self) -> str:
        return self.name

    def __call__(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float32[np.ndarray, "steps 2 H W"]:
        import cv2

        n_frames, height, width = frames.shape[:3]
        inner = slice(_BORDER_PX, -_BORDER_PX)
        flow = np.empty((max(0, n_frames - 1), 2, height, width), dtype=np.float32)
        before = None
        for t, frame in enumerate(frames):
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            grey = cv2.copyMakeBorder(
                grey, _BORDER_PX, _BORDER_PX, _BORDER_PX, _BORDER_PX, cv2.BORDER_REPLICATE
            )
            if before is not None:
                field = cv2.calcOpticalFlowFarneback(before, grey, None, **_SETTINGS)  # type: ignore[call-overload]
                flow[t - 1] = field[inner, inner].transpose(2, 0, 1)
            before = grey
        return flow
