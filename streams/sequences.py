"""Padded batches of sequences: masks, checks, means over the real rows, and clips."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tristream.errors import TristreamError


def inside(segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]) -> Bool[Tensor, "B S"]:
    """True where a row is a segment of its video, False for padding."""
    return (
        torch.arange(segments.shape[1], device=segments.device)
        < lengths.to(segments.device)[:, None]
    )


def mean_of(rows: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]) -> Float[Tensor, "B D"]:
    """Mean over the real rows of each sequence; padding may hold anything."""
    # not a product: padding may be NaN
    total = torch.where(inside(rows, lengths)[:, :, None], rows, 0).sum(dim=1)
    return total / lengths.to(rows.device)[:, None]


def check_lengths(segments: Tensor, lengths: Tensor) -> None:
    """Check that there is one length per video, from 1 to the number of rows.

    Raises:
        TristreamError: another number of lengths, or one out of range.
    """
    if lengths.shape != segments.shape[:1]:
        raise TristreamError(
            f"{len(segments)} videos have lengths of shape {tuple(lengths.shape)}; there must be one length per video"
        )
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1:
        raise TristreamError(
            f"video {int(lengths.argmin())} of the batch has {shortest} segments; it needs at least 1: mask it"
        )
    if longest > segments.shape[1]:
        raise TristreamError(
            f"video {int(lengths.argmax())} of the batch has a length of {longest} segments, "
            f"but the batch holds {segments.shape[1]} per video"
        )


def clip_bounds(n: int, length: int, stride: int) -> list[tuple[int, int]]:
    """Return the clips [first, stop) of a sequence of `n` segments.

    Together they hold every segment if stride <= length. Clips start every `stride` segments; one that would pass the
    end is moved back, so that the last clip ends with the video. A video that is shorter than `length` is one clip.

    Raises:
        TristreamError: n, length or stride below 1.
    """
    if min(n, length, stride) < 1:
        raise TristreamError(
            f"clips of {length} segments every {stride} of a sequence of {n}: each must be at least 1"
        )
    if n <= length:
        return [(0, n)]
    starts = [*range(0, n - length, stride), n - length]
    return [(start, start + length) for start in starts]
