"""Dense inverse search (Kroeger et al. 2016, arXiv:1603.03590) in OpenCV, in its three presets.

"dis" is "dis_fast". OpenCV shares the work of a pair among `cv2.getNumThreads()` threads, a number of the whole process
that is left to the caller (workers set it to 1); the flow does not depend on it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, UInt8

NAMES = ("dis", "dis_fast", "dis_medium", "dis_ultrafast")

# Below 32 px OpenCV picks the depth of its pyramid by the width alone and reads outside of low pictures: 12 x 100 px is
# a segmentation fault in 4.14.
_SMALLEST_SIDE_PX = 32


def build(name: str) -> Dis:
    return Dis("dis_fast" if name == "dis" else name)


@dataclasses.dataclass(frozen=True)
class Dis:
    """DIS flow with the preset `name`."""

    name: str
    tolerance_px: float = 0.2

    @property
    def identity(self) -> str:
        return self.name

    def __call__(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float32[np.ndarray, "steps 2 H W"]:
        import cv2

        preset = {
            "dis_ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
            "dis_fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
            "dis_medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
        }[self.name]
        search = cv2.DISOpticalFlow.create(
            preset
        )  # holds buffers: one per call, so that threads do not meet in it
        n_frames, height, width = frames.shape[:3]
        below, right = max(0, _SMALLEST_SIDE_PX - height), max(0, _SMALLEST_SIDE_PX - width)
        flow = np.empty((max(0, n_frames - 1), 2, height, width), dtype=np.float32)
        before = None
        for t, frame in enumerate(frames):
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            if below or right:
                grey = cv2.copyMakeBorder(grey, 0, below, 0, right, cv2.BORDER_REPLICATE)
            if before is not None:
                field = search.calc(before, grey, None)  # type: ignore[call-overload]  # (H, W, 2)
                flow[t - 1] = field[:height, :width].transpose(2, 0, 1)
            before = grey
        return flow
