"""Late fusion: scores of streams that have each decided alone, brought together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike

from tristream.errors import TristreamError


def softmax(logits: Float[np.ndarray, "n classes"]) -> Float64[np.ndarray, "n classes"]:
    """Probabilities of the classes; any finite logits, however large."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=1, keepdims=True)


def mean_scores(
    scores: Sequence[Float[np.ndarray, "n classes"]],
) -> Float64[np.ndarray, "n classes"]:
    """Mean of the streams' class probabilities; an ensemble of models is the same thing.

    Args:
        scores: one array per stream. A video that lacks a stream has NaN there, and the mean is over the others.

    Raises:
        TristreamError: no stream, arrays of different shapes, or a video without any scores.
    """
    return weighted_scores(scores, [1.0] * len(scores))


def weighted_scores(
    scores: Sequence[Float[np.ndarray, "n classes"]], weights: ArrayLike
) -> Float64[np.ndarray, "n classes"]:
    """Weighted mean of the streams' class probabilities; weights count relative to one another.

    Args:
        scores: one array per stream. A video that lacks a stream has NaN there, and the other weights share its part.
        weights: one per stream, none negative.

    Raises:
        TristreamError: as `mean_scores`; another number of weights; weights that are negative or sum to 0 for a video.
    """
    stacked = _stack(scores)  # (streams, n, classes)
    weight = np.asarray(weights, dtype=np.float64)
    if weight.shape != (len(stacked),):
        raise TristreamError(
            f"there are {weight.size} weights for {len(stacked)} streams; each needs one"
        )
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise TristreamError(
            f"weights are {', '.join(f'{w:g}' for w in weight)}; none may be negative"
        )
    present = ~np.isnan(stacked).any(axis=2)  # (streams, n)
    total = weight @ present
    if not total.all():
        raise TristreamError(
            f"row {int(np.argmin(total))} has no stream with scores and a weight above 0"
        )
    return (
        np.tensordot(weight, np.where(present[:, :, None], stacked, 0.0), axes=1) / total[:, None]
    )


def simonyan_features(
    scores: Sequence[Float[np.ndarray, "n classes"]],
) -> Float64[np.ndarray, "n features"]:
    """Each stream's class probabilities scaled to L2 norm 1, side by side: what their fusion SVM is trained on.

    Args:
        scores: one array per stream. A video that lacks a stream has NaN there and keeps it; `fit_svm` with columns
            masks it.

    Raises:
        TristreamError: no stream, arrays of different numbers of videos, or scores that are all 0.

    Source: Simonyan & Zisserman 2014 (arXiv:1406.2199), §2.
    """
    stacked = _stack(scores)
    norms = np.linalg.norm(stacked, axis=2, keepdims=True)
    if (norms == 0).any():
        raise TristreamError(
            f"row {int(np.argmax((norms == 0).any(axis=(0, 2))))} has scores of 0 only; probabilities sum to 1"
        )
    return np.concatenate(list(stacked / norms), axis=1)


def _stack(
    scores: Sequence[Float[np.ndarray, "n classes"]],
) -> Float64[np.ndarray, "streams n classes"]:
    arrays = [np.asarray(array, dtype=np.float64) for array in scores]
    if not arrays:
        raise TristreamError("there are scores of 0 streams; fusion needs one or more")
    for i, array in enumerate(arrays):
        if array.shape != arrays[0].shape or array.ndim != 2:
            raise TristreamError(
                f"scores of stream {i} are {array.shape}, of stream 0 {arrays[0].shape}; they must agree"
            )
    return np.stack(arrays)
