"""Similarity of videos: cosine of standardised embeddings, over the streams that both videos have."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from tristream.fusion.standardise import Standardiser


def cosines(
    standardiser: Standardiser,
    query: Float[np.ndarray, "q F"],
    X: Float[np.ndarray, "n F"],
    *,
    query_masks: Bool[np.ndarray, "q streams"] | None = None,
    masks: Bool[np.ndarray, "n streams"] | None = None,
) -> Float64[np.ndarray, "q n"]:
    """Cosine of every query and every video; NaN where they have no stream in common.

    A stream that one of the two lacks counts for neither: two silent videos are not alike because they are silent.

    Args:
        standardiser: that makes the columns comparable; a cosine of raw embeddings is mostly that of their mean.
        query_masks, masks: which streams count; None: those that are not NaN throughout.

    Raises:
        TristreamError: as `Standardiser.masks`.
    """
    has_q, has_x = standardiser.masks(query, query_masks), standardiser.masks(X, masks)
    Zq, Zx = standardiser.transform(query, query_masks), standardiser.transform(X, masks)
    dot, norm_q, norm_x = (np.zeros((len(query), len(X))) for _ in range(3))
    for s, block in enumerate(standardiser.columns.values()):
        both = has_q[:, [s]] & has_x[:, s]
        dot += Zq[:, block] @ Zx[:, block].T
        norm_q += both * np.square(Zq[:, block]).sum(axis=1)[:, None]
        norm_x += both * np.square(Zx[:, block]).sum(axis=1)
    shared = (has_q[:, None] & has_x).any(axis=2)
    similarity = dot / np.maximum(np.sqrt(norm_q * norm_x), 1e-12)
    return np.where(shared, np.clip(similarity, -1, 1), np.nan)


def most_alike(cosine: Float64[np.ndarray, "n"], n_videos: int) -> Int[np.ndarray, "k"]:
    """Rows of the highest cosines, highest first; of equals the earlier row; NaN never."""
    order = np.argsort(np.where(np.isnan(cosine), np.inf, -cosine), kind="stable")
    return order[: min(n_videos, int((~np.isnan(cosine)).sum()))]
