"""Flow stacks: L consecutive flow fields as one image of 2L channels, the segment of the temporal stream.

Source: Simonyan & Zisserman 2014 (arXiv:1406.2199) §3.1.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tristream.errors import TristreamError


def n_stack_starts(n_fields: int, length: int, *, step: int = 1) -> int:
    """Return the number of frames at which a stack can start; 0 if `n_fields` fields are too few for a stack."""
    return max(0, n_fields - (length - 1) * step)


def stack_flow(
    flow: Float[np.ndarray, "fields 2 H W"], start: int, length: int, *, step: int = 1
) -> Float[np.ndarray, "C H W"]:
    """Return the stack of `length` fields from `start`, every `step`-th, in 2·length channels; no mean removed.

        channel   0          1          2             3             ...
        field     start, x   start, y   start+step, x start+step, y ...    oldest first

    The result is a view of `flow` where `step` allows.

    Raises:
        TristreamError: the stack does not lie inside `flow`, or `length` or `step` is below 1.
    """
    for name, value in (("length", length), ("step", step)):
        if value < 1:
            raise TristreamError(f"{name} of a flow stack is {value}; it must be at least 1")
    n_starts = n_stack_starts(len(flow), length, step=step)
    if not 0 <= start < n_starts:
        valid = (
            f"0 to {n_starts - 1}"
            if n_starts
            else "none: repeat the last field (`repeat_last`) or shorten the stack"
        )
        raise TristreamError(
            f"a stack of {length} fields with step {step} cannot start at {start} of {len(flow)} fields; valid: {valid}"
        )
    fields = flow[start : start + (length - 1) * step + 1 : step]  # (L, 2, H, W)
    return fields.reshape(2 * length, *flow.shape[2:])  # (2L, H, W)


def repeat_last(
    flow: Float[np.ndarray, "fields 2 H W"], length: int, *, step: int = 1
) -> Float[np.ndarray, "longer 2 H W"]:
    """Return `flow`, its last field repeated until one stack fits (reason `padded_short_clip`).

    Raises:
        TristreamError: no field at all, as for a video of one frame: such a video has no motion to embed.
    """
    if len(flow) == 0:
        raise TristreamError(
            "flow has 0 fields; a stack needs at least 1, so a video of at least 2 frames"
        )
    n_missing = (length - 1) * step + 1 - len(flow)
    if n_missing <= 0:
        return flow
    return np.concatenate([flow, np.repeat(flow[-1:], n_missing, axis=0)])


def remove_mean(
    stack: Float[np.ndarray, "*B H W"], *, out: Float[np.ndarray, "*B H W"] | None = None
) -> Float[np.ndarray, "*B H W"]:
    """Subtract every field's spatial mean vector, which a moving camera adds.

    The mean is exact for constant fields, so that a still scene is exactly 0 even after 8-bit storage, which has no
    code for 0 (`flow.storage.encode_uint8`). On UCF101 it is worth 1.1 points (paper, Table 1b).

    Args:
        out: where it is written, `stack` itself allowed; None: a new array.
    """
    mean = stack.mean(axis=(-2, -1), keepdims=True, dtype=np.float64)
    return np.subtract(stack, mean.astype(stack.dtype), out=out)


def flip_horizontally(stack: Float[np.ndarray, "*B C H W"]) -> Float[np.ndarray, "*B C H W"]:
    """Return the stack of the mirrored video: mirrored fields, x components (even channels) negated."""
    flipped = stack[..., ::-1].copy()
    flipped[..., 0::2, :, :] *= -1
    return flipped
