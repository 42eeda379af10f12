"""Squared error of standardised embeddings, split exactly by stream."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float64

from tristream.errors import TristreamError

COMBINATIONS = ("mean_max", "mean")


def stream_errors(
    residual: Float64[np.ndarray, "n F"],
    masks: Bool[np.ndarray, "n streams"],
    columns: Mapping[str, slice],
) -> Float64[np.ndarray, "n streams"]:
    """Mean squared residual of every stream's block; 0 where a video lacks the stream.

    A mean, not a sum: a stream of 1024 columns and one of 128 count the same.
    """
    errors = np.zeros(masks.shape)
    for s, block in enumerate(columns.values()):
        if block.stop > block.start:
            errors[:, s] = np.where(masks[:, s], np.square(residual[:, block]).mean(axis=1), 0.0)
    return errors


def usual_errors(
    errors: Float64[np.ndarray, "n streams"], masks: Bool[np.ndarray, "n streams"]
) -> Float64[np.ndarray, "streams"]:
    """Median error of every stream over the videos that have it; 1 where none has, or where it is 0."""
    medians = np.array(
        [
            np.median(errors[masks[:, s], s]) if masks[:, s].any() else 1.0
            for s in range(masks.shape[1])
        ]
    )
    return np.where(medians > 0, medians, 1.0)


def video_error(
    errors: Float64[np.ndarray, "n streams"],
    masks: Bool[np.ndarray, "n streams"],
    combine: str = "mean",
) -> Float64[np.ndarray, "n"]:
    """Return one error per video from the errors of the streams that it has.

    Args:
        combine: 'mean': the paper's, in which an anomaly of one stream is diluted by the others. 'mean_max': half the
            sum of mean and maximum, so that a video whose streams all have error 1 still has 1.

    Raises:
        TristreamError: a video without streams; an unknown way to combine.
    """
    if combine not in COMBINATIONS:
        raise TristreamError(
            f"unknown combination '{combine}' of streams; available: {', '.join(COMBINATIONS)}"
        )
    n_streams = masks.sum(axis=1)
    if not n_streams.all():
        raise TristreamError(
            f"row {int(np.argmin(n_streams))} has none of the streams that the detector was fitted on; "
            "there is nothing to score"
        )
    mean = errors.sum(axis=1) / n_streams
    return mean if combine == "mean" else (mean + errors.max(axis=1)) / 2


def error_shares(
    errors: Float64[np.ndarray, "n streams"], masks: Bool[np.ndarray, "n streams"]
) -> Float64[np.ndarray, "n streams"]:
    """Share of each stream in a video's error, each row summing to 1; equal shares where there is no error at all."""
    shares = np.where(errors.any(axis=1, keepdims=True), errors, masks)
    return shares / shares.sum(axis=1, keepdims=True)
