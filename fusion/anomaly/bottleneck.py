"""Inference of the small autoencoder inside the anomaly detector: principal axes and layers, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from tristream.errors import TristreamError
from tristream.fusion.threads import one_thread


@dataclass(frozen=True, eq=False)
class Basis:
    """Principal axes of standardised, block-weighted training rows.

    Each block is divided by the square root of its width, so that streams of 1024 and of 128 columns weigh the same.
    Between the rows' own axes and their columns the squared error is the same number: the network loses nothing by
    working with at most as many coordinates as there are training rows, and it cannot learn what no row varied in.
    """

    axes: Float64[np.ndarray, "F axes"]
    weight: Float64[np.ndarray, "F"]
    scale: float
    variance: Float64[np.ndarray, "axes"]

    def coordinates(self, z: Float64[np.ndarray, "F"]) -> Float64[np.ndarray, "axes"]:
        """Coordinates of a standardised row along the axes; the leading axis has unit variance in training."""
        return (z * self.weight) @ self.axes / self.scale

    def row(self, coordinates: Float64[np.ndarray, "axes"]) -> Float64[np.ndarray, "F"]:
        """The standardised row at these coordinates."""
        return self.axes @ coordinates * self.scale / self.weight

    def n_axes_for(self, share: float) -> int:
        """Number of leading axes that hold this share of the variance."""
        held = np.cumsum(self.variance) / self.variance.sum()
        return min(int(np.searchsorted(held, share)) + 1, len(held))


def fit_basis(
    Z: Float64[np.ndarray, "n F"], columns: Mapping[str, slice], *, max_axes: int = 256
) -> Basis:
    """Principal axes of the rows of Z, whose columns have mean 0.

    Raises:
        TristreamError: rows that are all the same.
    """
    from sklearn.decomposition import PCA

    weight = np.ones(Z.shape[1])
    for block in columns.values():
        weight[block] = 1 / np.sqrt(max(1, block.stop - block.start))
    if not np.ptp(Z, axis=0).any():
        raise TristreamError(
            f"the {len(Z)} normal videos all have the same embedding; nothing can be learned from them "
            "(was the encoder trained?)"
        )
    with one_thread():
        pca = PCA(min(max_axes, *Z.shape), random_state=0).fit(Z * weight)
    large = pca.explained_variance_ratio_ > 1e-10
    return Basis(
        axes=np.ascontiguousarray(
            pca.components_[large].T
        ),  # as it is read back: another layout sums in another order
        weight=weight,
        scale=float(np.sqrt(pca.explained_variance_[0])),
        variance=pca.explained_variance_[large],
    )


Layers = list[
    tuple[np.ndarray, np.ndarray]
]  # weight (out, in) and bias of each layer, encoder first


def reconstruct(
    Z: Float64[np.ndarray, "n F"], basis: Basis, layers: Layers
) -> Float64[np.ndarray, "n F"]:
    """Return the reconstruction of standardised rows in float64, one at a time: none depends on the others."""
    rebuilt = np.empty_like(Z)
    bottleneck = len(layers) // 2 - 1  # the code itself and the output are linear
    with one_thread():
        for row, z in enumerate(Z):
            x = basis.coordinates(z)
            for i, (weight, bias) in enumerate(layers):
                x = weight @ x + bias
                if i not in (bottleneck, len(layers) - 1):
                    x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))  # ELU
            rebuilt[row] = basis.row(x)
    return rebuilt
