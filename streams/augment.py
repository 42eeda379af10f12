"""Random views of frames and of flow: flips, crops, shifts, turns, rolls."""

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
    angle: Float[np.ndarray, " B"] | None = None  # radians, from the x axis to the y axis; None: 0

    def repeat(self, n: int) -> Views:
        """Return the first view `n` times: all segments of a video get the same one."""
        parts = (self.flipped, self.scale, self.shift, self.roll, self.angle)
        return Views(*(None if part is None else np.repeat(part[:1], n, axis=0) for part in parts))  # type: ignore[arg-type]


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
    roll, angle = generator.random((n, 2)) * config.roll, None
    # drawn last, and only if they are used: without them the numbers are those of versions that had none
    if config.zoom:
        scale = scale * generator.uniform(1 - config.zoom, 1 + config.zoom, (n, 2))
    if config.rotation:
        angle = np.radians(generator.uniform(-config.rotation, config.rotation, n))
    return Views(flipped=flipped, scale=scale, shift=shift, roll=roll, angle=angle)


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

    Flow keeps its unit: a crop is a camera that stands closer, and the network must bear that. Its vectors must be
    changed as well: `apply_views_to_flow`. A turn is one of the pixels, whatever the frame's shape.
    """
    height, width = frames.shape[2:]
    if views.roll.any():
        steps = np.floor(views.roll * (height, width)).astype(int)
        frames = torch.stack(
            [p.roll((int(y), int(x)), (1, 2)) for p, (y, x) in zip(frames, steps, strict=True)]
        )
    is_turned = views.angle is not None and views.angle.any()
    is_cropped = (views.scale != 1).any() or views.shift.any()
    if not (views.flipped.any() or is_cropped or is_turned):
        return frames
    theta = np.zeros((len(frames), 2, 3), np.float32)
    theta[:, 0, 0] = np.where(views.flipped, -views.scale[:, 0], views.scale[:, 0])
    theta[:, 1, 1] = views.scale[:, 1]
    if views.angle is not None:
        cos, sin = np.cos(views.angle), np.sin(views.angle)
        turn = np.array([[cos, -sin * height / width], [sin * width / height, cos]])
        theta[:, :, :2] = turn.transpose(2, 0, 1) @ theta[:, :, :2]
    theta[:, :, 2] = 2 * views.shift
    grid = torch.nn.functional.affine_grid(
        torch.from_numpy(theta).to(frames.device), list(frames.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(
        frames, grid.to(frames), mode="bilinear", padding_mode=padding, align_corners=False
    )


def apply_views_to_flow(
    stacks: Float[torch.Tensor, "B C H W"], views: Views
) -> Float[torch.Tensor, "B C H W"]:
    """Apply its view to each stack of flow fields, x and y in turn; the vectors are turned and mirrored too."""
    batch = apply_views(stacks, views)
    if views.angle is not None:
        cos, sin = (
            torch.from_numpy(values).to(batch)[:, None, None, None]
            for values in (np.cos(views.angle), np.sin(views.angle))
        )
        x, y = batch[:, 0::2], batch[:, 1::2]
        batch = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=2).flatten(1, 2)
    batch[torch.from_numpy(views.flipped).to(batch.device), 0::2] *= -1
    return batch
