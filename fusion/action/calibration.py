"""Calibration: probabilities from margins or logits, and rejection where they are low."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.action.score_fusion import softmax
from tristream.fusion.intervals import design_effect
from tristream.fusion.standardise import check_arrays

N_BINS = 15  # of the calibration error, Guo et al. 2017
PSEUDO_MISTAKES = 0.1  # in n + 2 videos
SURE = 0.95  # of the bound on the error among named videos


@dataclass(frozen=True)
class Temperature:
    """Softmax of scores / temperature, mixed with equal probabilities; the best class is unchanged.

    Attributes:
        temperature: above 0.
        floor: weight of the equal probabilities: 0.1 / (n + 2) for n validation videos. Without it
            a fresh mistake is infinitely surprising.
    """

    temperature: float
    floor: float = 0.0

    def probabilities(
        self, scores: Float[np.ndarray, "n classes"]
    ) -> Float64[np.ndarray, "n classes"]:
        """Return calibrated class probabilities of logits or margins."""
        return _tempered(scores, self.temperature, self.floor)


def fit_temperature(
    scores: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]
) -> Temperature:
    """Return the most probable temperature given videos outside the training.

    The prior of its logarithm is Cauchy's, around 0 with scale 1: few videos hardly change the
    scores, many or clear ones decide alone. By likelihood alone a set on which every video is correct
    sends the temperature to its bound. The probabilities are mixed with 0.1 / (n + 2) of equal ones,
    a tenth of a mistake in n videos. Chosen by simulation (tests/test_pattern_promises.py): on logits
    that are calibrated already, 8 videos cost .008 nats on fresh ones; by likelihood and a whole
    mistake, .085.

    Args:
        scores: logits or margins.
        labels: index of the true class. Videos of a class without a column (−1) are skipped.

    Raises:
        TristreamError: no video left; a label without a column.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    scores, labels = _known(scores, labels)
    n = len(labels)
    floor = PSEUDO_MISTAKES / (n + 2)

    def cost(log_t: float) -> float:
        likelihood = negative_log_likelihood(_tempered(scores, np.exp(log_t), floor), labels)
        return n * likelihood + np.log1p(log_t**2)

    best = minimize_scalar(cost, bounds=(-6, 6), method="bounded")
    return Temperature(float(np.exp(best.x)), floor)


def _tempered(
    scores: Float[np.ndarray, "n classes"], temperature: float, floor: float
) -> Float64[np.ndarray, "n classes"]:
    p = softmax(scores / temperature)
    return (1 - floor) * p + floor / scores.shape[1] if floor else p


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
    """Limit of the probability below which no class is named.

    Attributes:
        confidence: limit; 0 where every video may be named.
        error, kept: on the validation videos: share wrong among the named, share named.
        upper: one-sided 95 % upper bound of the share wrong among the named.
    """

    confidence: float
    error: float
    kept: float
    upper: float = float("nan")


def choose_rejection(
    confidence: ArrayLike,
    hits: Bool[np.ndarray, "n"],
    *,
    max_error: float,
    groups: ArrayLike | None = None,
) -> Rejection:
    """Return the lowest limit at which the share wrong among the named is at most `max_error`, 95 % sure.

    The bound is that of Clopper and Pearson for the number of videos that the groups are worth
    (`design_effect`), so that the promise holds for other videos, not only for these.

    Args:
        confidence: probability of the best class of each validation video.
        hits: True where that class is correct.
        max_error: share, 0 to 1.
        groups: source of each video; None: each is its own.

    Raises:
        TristreamError: max_error outside 0 … 1; no limit keeps it; the sentence says how many
            validation videos it would take.
    """
    confidence, hits = np.asarray(confidence, dtype=np.float64), np.asarray(hits, dtype=bool)
    if not 0 <= max_error <= 1:
        raise TristreamError(f"error {max_error:g} is not between 0 and 1")
    order = np.argsort(-confidence, kind="stable")
    n_named = np.arange(1, len(order) + 1)
    n_wrong = np.cumsum(~hits[order])
    effect = 1.0 if groups is None else design_effect(hits, groups)
    upper = error_bound(n_wrong / effect, n_named / effect)
    # equal confidences are named or refused together
    last_of_tie = np.r_[np.diff(confidence[order]) != 0, True]
    allowed = np.flatnonzero((upper <= max_error) & last_of_tie)
    if max_error == 1:
        allowed = np.array([len(order) - 1])
    if not len(allowed):
        least = upper[last_of_tie].min() if len(order) else 1.0
        raise TristreamError(
            f"no confidence brings the error to {max_error:g}: on {len(order)} validation videos "
            f"it is only known to be below {least:.3f} (95 % sure); {_needed(max_error)}"
        )
    last = int(allowed[-1])
    everything = last == len(order) - 1
    return Rejection(
        confidence=0.0 if everything else float(confidence[order[last]]),
        error=float(n_wrong[last] / n_named[last]),
        kept=float(n_named[last] / len(order)),
        upper=float(upper[last]),
    )


def error_bound(n_wrong: ArrayLike, n: ArrayLike) -> Float64[np.ndarray, "*shape"]:
    """Return the one-sided 95 % upper bound of a share (Clopper and Pearson 1934); counts may be fractions."""
    from scipy.stats import beta

    n_wrong, n = np.asarray(n_wrong, np.float64), np.asarray(n, np.float64)
    n_right = np.maximum(n - n_wrong, 0.0)
    bound = beta.ppf(SURE, n_wrong + 1, np.maximum(n_right, 1e-12))
    return np.where(n_right > 0, bound, 1.0)


def _needed(max_error: float) -> str:
    if max_error <= 0:
        return "no number of videos can promise an error of 0"
    n = int(np.ceil(np.log(1 - SURE) / np.log(1 - max_error)))
    return f"it takes {n} of them without a mistake, of independent sources"


def _known(
    scores: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "kept classes"], Int[np.ndarray, "kept"]]:
    if len(labels) and labels.max() >= scores.shape[1]:
        raise TristreamError(
            f"label {labels.max()} has no column; scores have {scores.shape[1]} classes"
        )
    known = labels >= 0
    if not known.any():
        raise TristreamError("there are 0 labelled videos to calibrate on; give a validation split")
    return scores[known], labels[known]
