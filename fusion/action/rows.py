"""Fused embeddings row by row with what is known of their videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped


@dataclass(frozen=True, eq=False)
class FusedRows:
    """Fused embeddings of videos with label, split and group.

    Attributes:
        X: (n, F) from `fuse_tables`; the block of a missing stream is NaN.
        masks: (n, n_streams), True where the video has the stream.
        columns: {stream: slice}.
        labels: class of each video; "" for none.
        splits: train, val, test or unlabelled.
        groups: source of each video; intervals are over groups.
    """

    X: Float[np.ndarray, "n F"]
    masks: Bool[np.ndarray, "n streams"]
    columns: Mapping[str, slice]
    labels: Shaped[np.ndarray, "n"]
    splits: Shaped[np.ndarray, "n"]
    groups: Shaped[np.ndarray, "n"]

    def labelled(self, split: str) -> np.ndarray:
        """Return the row numbers of the labelled videos of a split."""
        return np.flatnonzero((self.splits == split) & (self.labels != ""))
