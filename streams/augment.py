"""Random views of frames and of flow: flips, crops, shifts, rolls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from tristream.streams.config import AugmentConfig


@dataclass(frozen=True)
class Views:
    """Drawn parameters, one for each frame of a batch."""

    flipped: Bool[np.ndarray, " B"]
    scale: Float[np.ndarray, "B 2"]  # x, y
    shift: Float[np.ndarray, "B 2"]  # x, y
    roll: Float[np.ndarray, "B 2"]

    def repeat(self, n: int) -> Views:
        """Return the first view `n` times: all segments of a video get the same one."""
        return Views(
            *(
                np.repeat(values[:1], n, axis=0)
                for values in (self.flipped, self.scale, self.shift, self.roll)
            )
        )


def draw_views(n: int, config: AugmentConfig, generator: np.random.Generator) -> Views:
    """Draw `n` random views.

    With `corner_crops` they are TSN's (Wang et al. 2016, arXiv:1608.00859, §3.2): width and height each one of the
    given sides, at most one apart in the list, in one of the four corners or the centre.
    """
    flipped = (generator.random(n) < 0.5) & config.flip
    if config.corner_crops:
        scale, shift = _corner_crops(n, np.array(config.corner_crops), generator)
    else:
        scale = np.repeat(generator.uniform(*config.crop_scale, n)[:, None], 2, axis=1)
        shift = generator.uniform(-config.shift, config.shift, (n, 2))
    return Views(
        flipped=flipped, scale=scale, shift=shift, roll=generator.random((n, 2)) * config.roll
    )


def _corner_crops(
    n: int, sides: Float[np.ndarray, " sides"], generator: np.random.Generator
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Scales and shifts, x then y."""
    pairs = np.array(
        [(i, j) for i in range(len(sides)) for j in range(len(sides)) if abs(i - j) <= 1]
    )
    scale = sides[pairs[generator.integers(len(pairs), size=n)]]
    corners = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0)])
    shift = corners[generator.integers(len(corners), size=n)] * (1 - scale) / 2
    return scale, shift


def apply_views(
    frames: Float[torch.Tensor, "B C H W"], views: Views, *, padding: str = "zeros"
) -> Float[torch.Tensor, "B C H W"]:
    """Apply its view to each frame; the size stays.

    Flow keeps its unit: a crop is a camera that stands closer, and the network must bear that. Who flips flow must
    negate its x components as well (`views.flipped` says where).
    """
    height, width = frames.shape[2:]
    if views.roll.any():
        steps = np.floor(views.roll * (height, width)).astype(int)
        frames = torch.stack(
            [p.roll((int(y), int(x)), (1, 2)) for p, (y, x) in zip(frames, steps, strict=True)]
        )
    if not views.flipped.any() and (views.scale == 1).all() and not views.shift.any():
        return frames
    theta = np.zeros((len(frames), 2, 3), np.float32)
    theta[:, 0, 0] = np.where(views.flipped, -views.scale[:, 0], views.scale[:, 0])
    theta[:, 1, 1] = views.scale[:, 1]
    theta[:, :, 2] = 2 * views.shift
    grid = torch.nn.functional.affine_grid(
        torch.from_numpy(theta).to(frames.device), list(frames.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(
        frames, grid.to(frames), mode="bilinear", padding_mode=padding, align_corners=False
    )
