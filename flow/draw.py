"""Optical flow as a colour image, for display only."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from tristream.errors import TristreamError

# Colours from red over yellow, green, cyan, blue and magenta back to red, and how many steps each span takes: more
# where the eye tells more colours apart. Source: Baker et al. 2011, "A database and evaluation methodology for optical
# flow", and its colour code on the Middlebury site.
_CORNERS = (
    (255, 0, 0),
    (255, 255, 0),
    (0, 255, 0),
    (0, 255, 255),
    (0, 0, 255),
    (255, 0, 255),
    (255, 0, 0),
)
_SPAN_STEPS = (15, 6, 4, 11, 13, 6)
_N_COLOURS = sum(_SPAN_STEPS)


def flow_to_color(
    flow: Float[np.ndarray, "2 H W"], max_radius: float | int | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Return an RGB image of a flow field on Middlebury's wheel: the hue is the direction, the saturation the length.

    No motion is white. To the right is red, down is yellow, left is cyan-blue, up is violet. What is longer than
    `max_radius` is darkened; what is not finite is black.

    Args:
        max_radius: px, the length of full saturation; None is the longest of this field.

    Raises:
        TristreamError: a `max_radius` that is not positive.
    """
    known = np.isfinite(flow).all(axis=0)
    x, y = np.where(known, flow, 0).astype(np.float64)
    radius = np.hypot(x, y)
    if max_radius is None:
        max_radius = radius.max(initial=0) or 1.0
    elif not max_radius > 0:
        raise TristreamError(f"max_radius is {max_radius} px; it must be positive")
    radius = radius / max_radius
    position = (
        (np.arctan2(-y, -x) / np.pi + 1) / 2 * (_N_COLOURS - 1)
    )  # half a turn, where -x is positive, is red
    below = np.floor(position).astype(int)
    share = (position - below)[..., None]
    wheel = _wheel()
    hue = (1 - share) * wheel[below] + share * wheel[(below + 1) % _N_COLOURS]  # (H, W, 3), 0 to 1
    inside = (radius <= 1)[..., None]
    colour = np.where(inside, 1 - np.minimum(radius, 1)[..., None] * (1 - hue), 0.75 * hue)
    return (np.floor(255 * colour) * known[..., None]).astype(np.uint8)


def _wheel() -> Float[np.ndarray, "colours 3"]:
    spans = []
    for start, stop, n_steps in zip(_CORNERS, _CORNERS[1:], _SPAN_STEPS):
        steps = np.floor(255 * np.arange(n_steps) / n_steps)[:, None]
        spans.append(np.array(start) + np.sign(np.subtract(stop, start)) * steps)
    return np.concatenate(spans) / 255
