"""The network inside the anomaly detector: a small autoencoder in principal coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

STEPS_BETWEEN_CHECKS = 20  # of the validation error
MIN_PROGRESS = 1e-3  # of the validation energy: less does not prolong the training
BATCH_ROWS = 64  # scoring always multiplies this many rows, so that a row does not depend on its mates


@dataclass(frozen=True, eq=False)
class Basis:
    """Principal axes of standardised, block-weighted training rows.

    Each block is divided by the square root of its width, so that a stream of 1024 columns and one of 128 weigh alike.
    Between the rows' own axes and their columns the squared error is the same number: the network loses nothing by
    working with at most as many coordinates as there are training rows, and it cannot learn what no row varied in.
    """

    axes: Float64[np.ndarray, "F axes"]
    weight: Float64[np.ndarray, "F"]
    scale: float
    variance: Float64[np.ndarray, "axes"]

    def coordinates(self, Z: Float64[np.ndarray, "n F"]) -> Float64[np.ndarray, "n axes"]:
        """Where the rows lie along the axes; the leading axis has unit variance in training."""
        return (Z * self.weight) @ self.axes / self.scale

    def rows(self, coordinates: Float64[np.ndarray, "n axes"]) -> Float64[np.ndarray, "n F"]:
        """Standardised rows at these coordinates."""
        return coordinates @ self.axes.T * self.scale / self.weight

    def n_axes_for(self, share: float) -> int:
        """How many leading axes hold this share of the variance."""
        held = np.cumsum(self.variance) / self.variance.sum()
        return min(int(np.searchsorted(held, share)) + 1, len(held))


def fit_basis(Z: Float64[np.ndarray, "n F"], columns: Mapping[str, slice], *, max_axes: int = 256) -> Basis:
    """Principal axes of the rows of Z, whose columns have mean 0.

    Raises:
        ValueError: rows that are all the same.
    """
    from sklearn.decomposition import PCA

    weight = np.ones(Z.shape[1])
    for block in columns.values():
        weight[block] = 1 / np.sqrt(max(1, block.stop - block.start))
    if not np.ptp(Z, axis=0).any():
        raise ValueError(
            f"the {len(Z)} normal videos all have the same embedding; nothing can be learned from them "
            "(was the encoder trained?)"
        )
    pca = PCA(min(max_axes, *Z.shape), random_state=0).fit(Z * weight)
    kept = pca.explained_variance_ratio_ > 1e-10
    return Basis(
        axes=pca.components_[kept].T,
        weight=weight,
        scale=float(np.sqrt(pca.explained_variance_[0])),
        variance=pca.explained_variance_[kept],
    )


Layers = list[tuple[np.ndarray, np.ndarray]]  # weight (out, in) and bias of each layer, encoder first


def reconstruct(Z: Float64[np.ndarray, "n F"], basis: Basis, layers: Layers) -> Float64[np.ndarray, "n F"]:
    """What the network makes of standardised rows, in float64 and in batches of fixed size."""
    found = np.empty_like(Z)
    bottleneck = len(layers) // 2 - 1  # the code itself and the output are linear
    for start in range(0, len(Z), BATCH_ROWS):
        n = min(BATCH_ROWS, len(Z) - start)
        batch = np.zeros((BATCH_ROWS, Z.shape[1]))
        batch[:n] = Z[start : start + n]
        x = basis.coordinates(batch)
        for i, (weight, bias) in enumerate(layers):
            x = x @ weight.T + bias
            if i not in (bottleneck, len(layers) - 1):
                x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))  # ELU
        found[start : start + n] = basis.rows(x)[:n]
    return found


def train_layers(
    coordinates: Float32[np.ndarray, "n streams axes"],
    masks: Bool[np.ndarray, "n streams"],
    gram: Float32[np.ndarray, "streams axes axes"],
    *,
    val_coordinates: Float32[np.ndarray, "v streams axes"],
    val_masks: Bool[np.ndarray, "v streams"],
    widths: tuple[int, ...],
    stream_dropout: float,
    learning_rate: float,
    batch_size: int,
    max_steps: int,
    patience: int,
    seed: int,
) -> tuple[Layers, int]:
    """Layers of least validation error, and the step they are from.

    With d the output, q_s the coordinates that stream s contributes and G_s its part of the axes' Gram matrix, the
    squared error on the streams that count is Σ_s (d·G_s d − 2 d·q_s) + constant.

    Args:
        coordinates: contribution of each stream, all zero where a video lacks it; they add up to the video's.
        widths: of the layers' outputs from the first hidden one to the last before the output.
        stream_dropout: share of the training rows that lose one stream, from input and error alike.

    Source: Adam, Kingma & Ba 2015; ELU, Clevert et al. 2016 (of ReLU, leaky ReLU, GELU, tanh and ELU the best on
    synthetic swapped pairings at 40–600 videos; see tests/test_autoencoder.py).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    n, n_streams, n_axes = coordinates.shape
    shapes = list(zip((*widths, n_axes), (n_axes, *widths), strict=True))  # (out, in)
    parameters = []
    for n_out, n_in in shapes:
        for shape in ((n_out, n_in), (n_out,)):
            start = torch.rand(shape, generator=generator) * 2 - 1
            parameters.append((start / n_in**0.5).requires_grad_())
    bottleneck = len(shapes) // 2 - 1

    def network(x: torch.Tensor) -> torch.Tensor:
        for i in range(len(shapes)):
            x = torch.nn.functional.linear(x, parameters[2 * i], parameters[2 * i + 1])
            if i not in (bottleneck, len(shapes) - 1):
                x = torch.nn.functional.elu(x)
        return x

    axes_gram = torch.from_numpy(gram)

    def error(q: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        x = (q * keep[:, :, None]).sum(dim=1)  # (B, axes)
        d = network(x)
        if n_streams == 1:
            squared = d.square().sum(dim=1)  # the axes are orthonormal
        else:
            squared = (torch.einsum("bi,sij->bsj", d, axes_gram) * d[:, None]).sum(dim=2).mul(keep).sum(dim=1)
        return (squared - 2 * (d * x).sum(dim=1)).mean()

    q, m = torch.from_numpy(coordinates), torch.from_numpy(masks).float()
    q_val, m_val = torch.from_numpy(val_coordinates), torch.from_numpy(val_masks).float()
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)

    def val_error() -> float:
        total = float(error(q_val, m_val))
        if stream_dropout and n_streams > 1:  # each stream withheld in turn, as often as training does
            for s in range(n_streams):
                less = m_val.clone()
                less[:, s] *= less.sum(dim=1) == 1
                total += stream_dropout * float(error(q_val, less)) / n_streams
        return total

    enough = MIN_PROGRESS * float(q_val.sum(dim=1).square().sum(dim=1).mean())
    best, best_error, best_step = _copy(parameters), float("inf"), 0
    mark, mark_step, step = float("inf"), 0, 0  # the last error that was a progress worth waiting for
    while step < max_steps and step - mark_step <= patience:
        for rows in torch.randperm(n, generator=generator).split(batch_size):
            loss = error(q[rows], _drop_streams(m[rows], stream_dropout, generator))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % STEPS_BETWEEN_CHECKS:
                continue
            with torch.no_grad():
                found = val_error()
            if found < best_error:
                best, best_error, best_step = _copy(parameters), found, step
            if found < mark - enough:
                mark, mark_step = found, step
    return [(best[2 * i], best[2 * i + 1]) for i in range(len(shapes))], best_step


def _drop_streams(masks, share: float, generator):  # type: ignore[no-untyped-def]
    """A copy of `masks` in which this share of the rows has one stream less, though never none."""
    import torch

    if not share or masks.shape[1] == 1:
        return masks
    kept = masks.clone()
    chosen = torch.rand(len(masks), generator=generator) < share
    stream = torch.randint(masks.shape[1], (len(masks),), generator=generator)
    chosen &= masks.sum(dim=1) > 1
    kept[chosen, stream[chosen]] = 0
    return kept


def _copy(parameters) -> list[np.ndarray]:  # type: ignore[no-untyped-def]
    return [parameter.detach().double().numpy().copy() for parameter in parameters]
