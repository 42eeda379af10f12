"""From margins and logits to probabilities that mean what they say, and to refusing where they are low."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.action.score_fusion import softmax
from tristream.fusion.standardise import check_arrays

N_BINS = 15  # of the calibration error, Guo et al. 2017


@dataclass(frozen=True)
class Temperature:
    """Softmax of scores / `temperature`: more or less sure, never of another class."""

    temperature: float

    def probabilities(
        self, scores: Float[np.ndarray, "n classes"]
    ) -> Float64[np.ndarray, "n classes"]:
        """Calibrated class probabilities of logits or margins."""
        return softmax(scores / self.temperature)


def fit_temperature(
    scores: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]
) -> Temperature:
    """Temperature of least negative log-likelihood on videos that the classifier was not trained on.

    Args:
        scores: logits or margins.
        labels: index of the true class. Videos of a class without a column (−1) are left out.

    Raises:
        TristreamError: no video left; a label without a column.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    scores, labels = _known(scores, labels)
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(softmax(scores / np.exp(log_t)), labels),
        bounds=(-6, 6),
        method="bounded",
    )
    return Temperature(float(np.exp(found.x)))


@dataclass(frozen=True, eq=False)
class Platt:
    """A logistic curve per class on its margin, made to sum to 1."""

    slope: Float64[np.ndarray, "classes"]
    offset: Float64[np.ndarray, "classes"]

    def probabilities(
        self, scores: Float[np.ndarray, "n classes"]
    ) -> Float64[np.ndarray, "n classes"]:
        """Calibrated class probabilities of margins. The order of classes can change; report which label is meant."""
        logits = scores * self.slope + self.offset
        each = 0.5 * (1 + np.tanh(logits / 2))  # logistic without overflow
        each = np.maximum(each, np.finfo(np.float64).tiny)
        return each / each.sum(axis=1, keepdims=True)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays for safetensors and the rest for JSON."""
        return {"slope": self.slope, "offset": self.offset}, {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Platt:
        """The inverse of `to_arrays`."""
        check_arrays(
            arrays,
            {
                "slope": np.shape(arrays.get("offset", ())),
                "offset": np.shape(arrays.get("slope", ())),
            },
        )
        return cls(arrays["slope"], arrays["offset"])


def fit_platt(scores: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]) -> Platt:
    """Platt's curves, one class against the rest, on videos that the classifier was not trained on.

    Targets are smoothed as Platt does, so that a class which is told apart without error gets a finite slope; a class
    with no such video keeps its margin.

    Raises:
        TristreamError: as `fit_temperature`.

    Source: Platt 1999; equal to scikit-learn's `CalibratedClassifierCV(FrozenEstimator(svm), method="sigmoid")`.
    """
    from sklearn.linear_model import LogisticRegression

    scores, labels = _known(scores, labels)
    n, n_classes = scores.shape
    slope, offset = np.ones(n_classes), np.zeros(n_classes)
    for k in range(n_classes):
        is_class = labels == k
        n_in = int(is_class.sum())
        if n_in in (0, n):
            continue
        target = np.where(is_class, (n_in + 1) / (n_in + 2), 1 / (n - n_in + 2))
        scale = float(np.abs(scores[:, k]).max()) or 1.0
        curve = LogisticRegression(
            C=np.inf, tol=1e-8, max_iter=1000
        )  # a soft target is a row of each kind, weighted
        curve.fit(
            np.tile(scores[:, k : k + 1] / scale, (2, 1)),
            np.repeat([1, 0], n),
            sample_weight=np.r_[target, 1 - target],
        )
        slope[k], offset[k] = curve.coef_[0, 0] / scale, curve.intercept_[0]
    return Platt(slope, offset)


def negative_log_likelihood(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]
) -> float:
    """Mean −log probability of the true class, in nats."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


def calibration_error(
    probabilities: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]
) -> float:
    """Expected calibration error of the named class: |accuracy − confidence| over 15 equal bins, by their share."""
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    gaps = np.bincount(
        bins, weights=hit - confidence, minlength=N_BINS
    )  # sum of (hit − confidence) per bin
    return float(np.abs(gaps).sum() / len(labels))


@dataclass(frozen=True)
class Rejection:
    """Name a class only where its probability is at least `confidence`.

    Attributes:
        error, kept: what that meant on the validation videos: share wrong among the named, share named.
    """

    confidence: float
    error: float
    kept: float


def choose_rejection(
    confidence: ArrayLike, hits: Bool[np.ndarray, "n"], *, max_error: float
) -> Rejection:
    """The lowest confidence at which the named videos are wrong at most `max_error` of the time, on validation videos.

    Raises:
        TristreamError: max_error outside 0 … 1; no confidence reaches it.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    if not 0 <= max_error <= 1:
        raise TristreamError(f"error {max_error:g} is not between 0 and 1")
    order = np.argsort(-confidence, kind="stable")
    errors = np.cumsum(~hits[order]) / np.arange(1, len(order) + 1)
    last_of_tie = np.r_[
        np.diff(confidence[order]) != 0, True
    ]  # equal confidences are named or refused together
    allowed = np.flatnonzero((errors <= max_error) & last_of_tie)
    if not len(allowed):
        raise TristreamError(
            f"no confidence brings the error to {max_error:g} on {len(order)} validation videos; "
            f"the least is {errors[last_of_tie].min():.3f}"
        )
    n = int(allowed[-1]) + 1
    return Rejection(float(confidence[order[n - 1]]), float(errors[n - 1]), n / len(order))


def _known(
    scores: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "kept classes"], Int[np.ndarray, "kept"]]:
    if len(labels) and labels.max() >= scores.shape[1]:
        raise TristreamError(
            f"label {labels.max()} has no column; scores have {scores.shape[1]} classes"
        )
    kept = labels >= 0
    if not kept.any():
        raise TristreamError("there are 0 labelled videos to calibrate on; give a validation split")
    return scores[kept], labels[kept]
