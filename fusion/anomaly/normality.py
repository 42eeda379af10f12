"""Normal videos as the plain baselines remember them: scikit-learn's principal axes and nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64
from sklearn.neighbors import NearestNeighbors

from tristream.fusion.anomaly.attribution import stream_errors
from tristream.fusion.threads import one_thread


@dataclass(frozen=True, eq=False)
class Normality:
    """Standardised normal videos, and the axes that hold most of their variance.

    Attributes:
        rows: standardised; 0 in the blocks of missing streams.
        axes: orthonormal, of rows times `weight`.
        weight: 1 / sqrt(width of the stream), so that a wide stream and a narrow one count equally.
    """

    rows: Float64[np.ndarray, "n F"]
    masks: Bool[np.ndarray, "n streams"]
    axes: Float64[np.ndarray, "F axes"]
    weight: Float64[np.ndarray, "F"]
    columns: dict[str, slice]
    _indices: dict[bytes, list[_Index]] = field(default_factory=dict, init=False, repr=False)

    def residual(self, Z: Float64[np.ndarray, "n F"]) -> Float64[np.ndarray, "n F"]:
        """Return what the principal axes do not explain of standardised rows.

        Equal to scikit-learn's transform and inverse_transform (a test), whose checks of a single row take ten times
        as long as its arithmetic.
        """
        residual = np.empty_like(Z)
        with one_thread():
            for row, z in enumerate(Z * self.weight):  # alone: independent of the other rows
                residual[row] = z - self.axes @ (self.axes.T @ z)
        return residual / self.weight

    def neighbours(
        self, Z: Float64[np.ndarray, "n F"], masks: Bool[np.ndarray, "n streams"], n: int
    ) -> Iterator[tuple[int, Int64[np.ndarray, " k"], Float64[np.ndarray, "k streams"]]]:
        """Yield (row, normal videos, differences): the n nearest normal videos of each row, nearest first.

        Distances are over the streams that both have, scaled up for those that only the row has: a normal video is not
        nearer for lacking a stream. Normal videos without a stream in common are never neighbours, so there may be
        fewer than n. The differences are mean squares per stream, scaled likewise. Rows come grouped by their streams.
        """
        with one_thread():
            for row in np.lexsort(masks.T).tolist():
                z, mask = Z[row], masks[row]
                index = np.sort(
                    np.concatenate([one.nearest(z, n) for one in self._indices_for(mask)])
                )
                common = self.masks[index] & mask
                errors = stream_errors(self.rows[index] - z, common, self.columns)
                errors *= mask.sum() / common.sum(axis=1, keepdims=True)
                order = np.argsort(errors.sum(axis=1), kind="stable")[:n]
                yield row, index[order], errors[order]

    def _indices_for(self, mask: Bool[np.ndarray, " streams"]) -> list[_Index]:
        """One index for each set of streams that normal videos have in common with `mask`."""
        key = mask.tobytes()
        if key not in self._indices:
            self._indices.clear()  # an index holds a copy of the rows
            self._indices[key] = []
            shared, group = np.unique(self.masks & mask, axis=0, return_inverse=True)
            for g, common in enumerate(shared):
                if common.any():
                    blocks = zip(self.columns.values(), common.tolist(), strict=True)
                    used = np.concatenate(
                        [np.arange(b.start, b.stop) for b, both in blocks if both]
                    )
                    self._indices[key].append(
                        _Index.of(self, np.flatnonzero(group.ravel() == g), used)
                    )
        return self._indices[key]


@dataclass(frozen=True, eq=False)
class _Index:
    """Neighbours among the normal videos that share the same streams with a new video."""

    rows: Int64[np.ndarray, " k"]
    used: Int64[np.ndarray, " columns"]
    weight: Float64[np.ndarray, " columns"]
    found: NearestNeighbors

    @classmethod
    def of(cls, normal: Normality, rows: np.ndarray, used: np.ndarray) -> _Index:
        weight = normal.weight[used]
        found = NearestNeighbors(algorithm="brute").fit(normal.rows[np.ix_(rows, used)] * weight)
        return cls(rows, used, weight, found)

    def nearest(self, z: np.ndarray, n: int) -> np.ndarray:
        n_found = min(n, len(self.rows))
        query = (z[self.used] * self.weight)[None]
        return self.rows[self.found.kneighbors(query, n_found, return_distance=False)[0]]
