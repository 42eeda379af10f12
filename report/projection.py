"""Fused embeddings on a plane: principal components, or UMAP where it is installed."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int

from tristream.errors import TristreamError
from tristream.fusion.standardise import fit_standardiser
from tristream.report.charts import Map
from tristream.report.collect import Fused

MOST_POINTS = 2500  # beyond, a page gets slow and points hide one another
PROJECTIONS = ("pca", "umap")


def project(fused: Fused, *, how: str = "pca", seed: int = 0) -> Map:
    """A map of the fused embeddings and one of each stream alone.

    Blocks are standardised on the training videos that have the stream, as the SVM does; a missing block is 0. A view
    of one stream shows a video that lacks it nowhere (NaN).

    Args:
        fused: the embeddings.
        how: "pca" (axes fitted on the training videos) or "umap" (on all of them).
        seed: of UMAP, and of which points are left out where there are too many.

    Raises:
        TristreamError: another projection.
        ModuleNotFoundError: "umap" without umap-learn.
    """
    if how not in PROJECTIONS:
        raise TristreamError(f"unknown projection '{how}'; available: {', '.join(PROJECTIONS)}")
    rows = _thinned(len(fused.rows), seed)
    train = np.array([fused.rows[row].split == "train" for row in rows])
    if not train.any():
        train[:] = True
    standardiser = fit_standardiser(
        fused.X[rows][train], columns=fused.columns, masks=fused.masks[rows][train]
    )
    masks = fused.masks[rows]
    Z = standardiser.transform(fused.X[rows], masks)
    views = {"all streams": (Z, masks.any(axis=1))} if len(fused.columns) > 1 else {}
    views |= {
        name: (Z[:, block], masks[:, s]) for s, (name, block) in enumerate(fused.columns.items())
    }
    places, axes = {}, {}
    for name, (values, present) in views.items():
        if not present.any():
            continue
        place = np.full((len(rows), 2), np.nan)
        place[present], axes[name] = _plane(values[present], train[present], how, seed)
        places[name] = place
    videos = [fused.rows[row] for row in rows]
    return Map(
        name="map",
        title="Every video, by its embedding",
        places=places,
        axes=axes,
        rows=rows,
        video_ids=[video.video_id for video in videos],
        labels=[video.label for video in videos],
        splits=[video.split for video in videos],
        abnormal=[video.anomaly == 1 for video in videos],
        n_left_out=len(fused.rows) - len(rows),
    )


def _thinned(n: int, seed: int) -> Int[np.ndarray, " kept"]:
    if n <= MOST_POINTS:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, MOST_POINTS, replace=False))


def _plane(
    Z: Float64[np.ndarray, "n F"], train: np.ndarray, how: str, seed: int
) -> tuple[Float64[np.ndarray, "n 2"], str]:
    """Two coordinates of each row, and words for the axes."""
    if how == "umap" and len(Z) > 3:
        from umap import UMAP

        place = UMAP(
            n_components=2, n_neighbors=min(15, len(Z) - 1), random_state=seed, n_jobs=1
        ).fit_transform(Z)
        return np.asarray(place, dtype=np.float64), "UMAP: only nearness means something"
    fitted = Z[train] if train.any() else Z
    mean = fitted.mean(axis=0)
    _, strength, axes = np.linalg.svd(fitted - mean, full_matrices=False)
    place = np.zeros((len(Z), 2))
    n_axes = min(2, len(axes))
    axes = axes[:n_axes]
    largest = axes[np.arange(n_axes), np.abs(axes).argmax(axis=1)]
    place[:, :n_axes] = (Z - mean) @ (
        axes * np.sign(largest)[:, None]
    ).T  # a sign that no library decides
    total = float((strength**2).sum())
    share = [100 * float(value) ** 2 / total if total else 0.0 for value in strength[:2]]
    return place, "PCA: " + " and ".join(f"{value:.0f} %" for value in share) + " of the variance"
