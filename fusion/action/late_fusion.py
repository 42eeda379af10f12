"""Late fusion measured: each stream decides alone, the decisions are brought together in three ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped
from numpy.typing import ArrayLike

from tristream.fusion.action.calibration import fit_temperature
from tristream.fusion.action.classifier import class_index
from tristream.fusion.action.score_fusion import (
    mean_scores,
    simonyan_features,
    softmax,
    weighted_scores,
)
from tristream.fusion.action.svm import fit_svm

METHODS = ("mean", "weighted", "simonyan")
MOST_WEIGHTS = 300  # sets of weights that are tried
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, eq=False)
class LateFusion:
    """Predictions of late fusion.

    Attributes:
        named: {method: class of each video}, in the order of the logits' rows.
        heads: {stream: class that its own logits name}; "" where the video lacks it.
        weights: {stream: share} of 'weighted', summing to 1.
        temperatures: {stream: its temperature}.
    """

    named: Mapping[str, Shaped[np.ndarray, "n"]]
    heads: Mapping[str, Shaped[np.ndarray, "n"]]
    weights: Mapping[str, float]
    temperatures: Mapping[str, float]


def late_fusion(
    logits: Mapping[str, Float[np.ndarray, "n classes"]],
    *,
    classes: ArrayLike,
    labels: ArrayLike,
    splits: ArrayLike,
    l2: float = 1e-2,
) -> LateFusion:
    """Fuse the scores of single streams; nothing is learned on test.

    Each stream's logits become probabilities by its own temperature, found on val (one that has fitted its training
    videos is far too sure, and would drown the others); a video that lacks a stream is judged by the others, one
    that has none by how common the classes are in train. 'mean': their mean. 'weighted': by the weights that
    name most of val rightly. 'simonyan': a linear SVM, trained on train, on the probabilities scaled to L2 norm 1.

    Args:
        logits: {stream: logits}, NaN throughout where a video lacks it.
        classes: of the logits' columns.
        labels, splits: of the videos.

    Raises:
        TristreamError: no stream; fewer than two training classes.
    """
    labels, splits, classes = np.asarray(labels), np.asarray(splits), np.asarray(classes)
    index = class_index(labels, classes)
    train, val = (np.flatnonzero((splits == split) & (index >= 0)) for split in ("train", "val"))
    temperatures = {
        name: _temperature(scores_of[val], index[val]) for name, scores_of in logits.items()
    }
    scores = [softmax(scores_of / temperatures[name]) for name, scores_of in logits.items()]
    prior = np.bincount(index[train], minlength=len(classes)) / max(1, len(train))
    lacks_all = np.all([np.isnan(scores_of).any(axis=1) for scores_of in scores], axis=0)
    seen = [np.where(lacks_all[:, None], prior, scores_of) for scores_of in scores]
    weights = accuracy_weights([scores_of[val] for scores_of in seen], index[val])
    width = len(classes)
    columns = {name: slice(s * width, (s + 1) * width) for s, name in enumerate(logits)}
    features = simonyan_features(scores)
    svm = fit_svm(features[train], labels[train], l2=l2, columns=columns, standardise=False)
    return LateFusion(
        named={
            "mean": classes[mean_scores(seen).argmax(axis=1)],
            "weighted": classes[weighted_scores(seen, weights).argmax(axis=1)],
            "simonyan": svm.predict(features),
        },
        heads={
            name: np.where(
                np.isnan(scores_of).any(axis=1),
                "",
                classes[np.nan_to_num(scores_of).argmax(axis=1)],
            )
            for name, scores_of in logits.items()
        },
        weights=dict(zip(logits, weights.tolist(), strict=True)),
        temperatures=temperatures,
    )


def accuracy_weights(
    scores: list[Float64[np.ndarray, "n classes"]], labels: Int[np.ndarray, "n"]
) -> Float64[np.ndarray, "streams"]:
    """Return the weights on a grid with the most correct videos; of equals, those nearest to equal weights.

    Not those of highest likelihood: a mixture of streams that each tell something else is most likely with all the
    weight on one of them. No weight is below a thousandth, so that a video which has only a stream of no use is named
    all the same. Equal weights where there is no video.

    Args:
        scores: probabilities of each stream; NaN where a video lacks it, and the others share its part.
        labels: index of the true class.
    """
    n_streams = len(scores)
    grid = weight_grid(n_streams)
    if not len(labels):
        return np.full(n_streams, 1 / n_streams)
    n_hits = [
        int((weighted_scores(scores, weights).argmax(axis=1) == labels).sum()) for weights in grid
    ]
    uneven = np.square(grid - 1 / n_streams).sum(axis=1)
    return grid[min(range(len(grid)), key=lambda i: (-n_hits[i], round(uneven[i], 9)))]


def weight_grid(n_streams: int) -> Float64[np.ndarray, "points streams"]:
    """Weights that sum to 1, none below a thousandth: equal ones, and multiples of a tenth (coarser from 5 streams)."""
    steps = next(
        (n for n in (10, 5, 4, 3) if comb(n + n_streams - 1, n_streams - 1) <= MOST_WEIGHTS), 2
    )
    bars = np.array([*combinations(range(steps + n_streams - 1), n_streams - 1)], dtype=np.int64)
    edges = np.hstack(
        [np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), steps + n_streams - 1)]
    )
    grid = np.vstack([np.full(n_streams, 1 / n_streams), (np.diff(edges, axis=1) - 1) / steps])
    grid = np.maximum(grid, LEAST_WEIGHT)
    return grid / grid.sum(axis=1, keepdims=True)


def _temperature(logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]) -> float:
    there = ~np.isnan(logits).any(axis=1)
    return fit_temperature(logits[there], labels[there]).temperature if there.any() else 1.0
