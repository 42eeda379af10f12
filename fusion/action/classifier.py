"""Stored decision: the SVM, its calibration per pattern of streams, and its rejection limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.action.calibration import (
    Platt,
    Rejection,
    Temperature,
    calibration_error,
    choose_rejection,
    fit_platt,
    fit_temperature,
    negative_log_likelihood,
)
from tristream.fusion.action.score_fusion import softmax
from tristream.fusion.action.svm import LinearSVM
from tristream.fusion.patterns import SEPARATOR, masked_alike, pattern_of
from tristream.fusion.standardise import check_arrays

METHODS = ("temperature", "platt")
MOST_STREAMS = 4  # of which every pattern is calibrated


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Calibration of margins for videos with one pattern of present streams.

    Attributes:
        curve: margins to probabilities.
        confidence: probability of the best class of each validation video of the pattern.
        hits: True where that class is correct.
        groups: number of the source of each of them.
    """

    curve: Temperature | Platt
    confidence: Float64[np.ndarray, "val"]
    hits: Bool[np.ndarray, "val"]
    groups: Int[np.ndarray, "val"]

    def rejection(self, max_error: float) -> Rejection:
        """Return the rejection limit; raises as `choose_rejection`."""
        return choose_rejection(self.confidence, self.hits, max_error=max_error, groups=self.groups)

    def to_arrays(self, prefix: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays for safetensors and the rest for JSON."""
        arrays = {
            f"{prefix}val.confidence": self.confidence,
            f"{prefix}val.hits": self.hits.astype(np.uint8),
            f"{prefix}val.groups": self.groups,
        }
        if isinstance(self.curve, Temperature):
            temperature, floor = self.curve.temperature, self.curve.floor
            return arrays, {"method": "temperature", "temperature": temperature, "floor": floor}
        own, config = self.curve.to_arrays()
        arrays |= {f"{prefix}platt.{name}": array for name, array in own.items()}
        return arrays, {"method": "platt", **config}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any], prefix: str
    ) -> Calibrated:
        """Return what `to_arrays` stored.

        Raises:
            TristreamError: a missing array, or an unknown calibration.
        """
        n = len(arrays.get(f"{prefix}val.hits", ()))
        groups = arrays.get(f"{prefix}val.groups", np.arange(n))  # an earlier version has none
        shapes = {f"{prefix}val.confidence": (n,), f"{prefix}val.hits": (n,)}
        check_arrays(arrays, shapes)
        curve: Temperature | Platt
        if config["method"] == "temperature":
            curve = Temperature(config["temperature"], config.get("floor", 0.0))
        elif config["method"] == "platt":
            start = f"{prefix}platt."
            parts = {
                name.removeprefix(start): array
                for name, array in arrays.items()
                if name.startswith(start)
            }
            curve = Platt.from_arrays(parts, config)
        else:
            raise TristreamError(
                f"unknown calibration '{config['method']}'; available: {', '.join(METHODS)}"
            )
        confidence, hits = arrays[f"{prefix}val.confidence"], arrays[f"{prefix}val.hits"]
        return cls(curve, confidence, hits.astype(bool), groups)


@dataclass(frozen=True, eq=False)
class CalibratedSVM:
    """Linear SVM with calibrated probabilities for every pattern of present streams.

    The predicted class is that of the largest margin, calibrated or not.

    Attributes:
        svm: gives the margins.
        whole: calibration on the validation videos as they are; None without any.
        patterns: {pattern, as "audio+spatial": calibration on the validation videos that have all
            its streams, masked to them}.
    """

    svm: LinearSVM
    whole: Calibrated | None
    patterns: Mapping[str, Calibrated] = field(default_factory=dict)

    @property
    def calibration(self) -> Temperature | Platt | None:
        """Calibration on the validation videos as they are; None without any."""
        return None if self.whole is None else self.whole.curve

    @property
    def confidence(self) -> Float64[np.ndarray, "val"]:
        """Probability of the best class of each validation video."""
        return np.zeros(0) if self.whole is None else self.whole.confidence

    @property
    def hits(self) -> Bool[np.ndarray, "val"]:
        """True for the validation videos whose best class is correct."""
        return np.zeros(0, bool) if self.whole is None else self.whole.hits

    def pattern(self, mask: Bool[np.ndarray, " streams"]) -> str | None:
        """Return the pattern that a video's probability is calibrated for; None if it is for none."""
        name = pattern_of(mask, list(self.svm.standardiser.columns))
        return name if name in self.patterns else None

    def calibrated(self, mask: Bool[np.ndarray, " streams"] | None = None) -> Calibrated:
        """Return the calibration for a video with these streams, else that of the whole.

        Raises:
            TristreamError: there were no validation videos.
        """
        if self.whole is None:
            raise TristreamError(
                "there were 0 labelled validation videos to calibrate on; margins are no "
                "probabilities, and no error can be promised"
            )
        name = None if mask is None else self.pattern(mask)
        return self.whole if name is None else self.patterns[name]

    def probabilities(
        self,
        scores: Float[np.ndarray, "n classes"],
        masks: Bool[np.ndarray, "n streams"] | None = None,
    ) -> Float64[np.ndarray, "n classes"]:
        """Return calibrated probabilities of margins.

        Args:
            scores: margins of `svm`.
            masks: streams of each video, whose pattern chooses the calibration; None: that of the
                validation videos as they are.

        Raises:
            TristreamError: there were no validation videos.
        """
        if masks is None:
            return self.calibrated().curve.probabilities(scores)
        self.calibrated()
        rows = [
            self.calibrated(mask).curve.probabilities(score[None])[0]
            for score, mask in zip(scores, masks, strict=True)
        ]
        return np.array(rows).reshape(np.shape(scores))

    def rejection(
        self, max_error: float, mask: Bool[np.ndarray, " streams"] | None = None
    ) -> Rejection:
        """Return the limit below which nothing is named, so that few of the named videos are wrong.

        Args:
            max_error: share of the named videos.
            mask: streams of a video, whose pattern chooses the validation videos; None: all.

        Raises:
            TristreamError: there were no validation videos; as `choose_rejection`.
        """
        return self.calibrated(mask).rejection(max_error)

    def limit(self, max_error: float, mask: Bool[np.ndarray, " streams"]) -> float:
        """Return the probability below which a video with these streams is not named.

        Infinity where no validation video had these streams, or too few for the promise.
        """
        if self.pattern(mask) is None and self.patterns:
            return float("inf")
        try:
            return self.rejection(max_error, mask).confidence
        except TristreamError:
            return float("inf")

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays for safetensors and the rest for JSON; `LinearSVM.from_arrays` reads them too."""
        arrays, config = self.svm.to_arrays()
        if self.whole is None:
            return arrays, config
        own, config["calibration"] = self.whole.to_arrays("")
        arrays |= own
        config["patterns"] = {}
        for k, (name, calibrated) in enumerate(self.patterns.items()):
            own, about = calibrated.to_arrays(f"pattern{k}.")
            arrays |= own
            config["patterns"][name] = {**about, "prefix": f"pattern{k}."}
        return arrays, config

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> CalibratedSVM:
        """Return what `to_arrays` stored, of this version or an earlier one.

        Raises:
            TristreamError: a missing array, of another shape, or not finite; an unknown calibration.
        """
        svm, stored = LinearSVM.from_arrays(arrays, config), config.get("calibration")
        if stored is None:
            return cls(svm, None)
        patterns = {
            name: Calibrated.from_arrays(arrays, about, about["prefix"])
            for name, about in config.get("patterns", {}).items()
        }
        return cls(svm, Calibrated.from_arrays(arrays, stored, ""), patterns)


def calibrate(
    svm: LinearSVM,
    X: Float[np.ndarray, "n F"],
    labels: ArrayLike,
    *,
    masks: Bool[np.ndarray, "n streams"] | None = None,
    groups: ArrayLike | None = None,
    method: str = "temperature",
) -> CalibratedSVM:
    """Return the SVM calibrated on validation videos, whose groups training has not seen.

    Each pattern of present streams is calibrated on the videos that have all its streams, masked to
    them: a classifier is less sure with one stream than with three.

    Args:
        svm: fitted on other videos.
        X: embeddings of the validation videos.
        labels: their classes; videos of a class that the SVM does not know are skipped.
        masks: streams to use of each video; None: those whose block is not NaN.
        groups: their sources; None: each is its own.
        method: "temperature": one number, which cannot change the class; "platt": a curve per class.

    Raises:
        TristreamError: an unknown method. Without a video of a known class the SVM stays
            uncalibrated.
    """
    if method not in METHODS:
        raise TristreamError(f"unknown calibration '{method}'; available: {', '.join(METHODS)}")
    index = class_index(labels, svm.classes_)
    if not (index >= 0).any():
        return CalibratedSVM(svm, None)
    sources = np.unique(np.arange(len(index)) if groups is None else np.asarray(groups),
                        return_inverse=True)[1]  # fmt: skip

    def fit(rows: np.ndarray, used: np.ndarray | None) -> Calibrated:
        scores = svm.decision_function(X[rows], masks=used)
        y = index[rows]
        curve = fit_temperature(scores, y) if method == "temperature" else fit_platt(scores, y)
        best = scores.argmax(axis=1)
        confidence = curve.probabilities(scores)[np.arange(len(best)), best]
        return Calibrated(curve, confidence, best == y, sources[rows].astype(np.int64))

    whole = fit(np.arange(len(index)), masks)
    names = list(svm.standardiser.columns)
    present = svm.standardiser.masks(X, masks)
    patterns = {}
    for pattern in _patterns(present, svm.standardiser.known, names):
        wanted = np.isin(np.array(names), pattern.split(SEPARATOR))
        rows = np.flatnonzero(masked_alike(present, pattern, names))
        if len(rows) and (index[rows] >= 0).any():
            patterns[pattern] = fit(rows, np.tile(wanted, (len(rows), 1)))
    return CalibratedSVM(svm, whole, patterns)


def _patterns(
    present: Bool[np.ndarray, "n streams"], known: Bool[np.ndarray, " streams"], names: list[str]
) -> list[str]:
    """Return every pattern of known streams; of more than 4 streams, those that videos have."""
    if known.sum() > MOST_STREAMS:
        return sorted({pattern_of(mask, names) for mask in present if mask.any()})
    usable = [name for name, is_known in zip(names, known, strict=True) if is_known]
    sizes = range(1, len(usable) + 1)
    return [SEPARATOR.join(part) for size in sizes for part in combinations(usable, size)]


def class_index(labels: ArrayLike, classes: ArrayLike) -> Int[np.ndarray, "n"]:
    """Place of each label in `classes`; −1 where it is not among them."""
    place = {name: k for k, name in enumerate(np.asarray(classes).tolist())}
    return np.array([place.get(label, -1) for label in np.asarray(labels).tolist()], dtype=np.int64)


@dataclass(frozen=True)
class CalibrationFigures:
    """Fit of probabilities to the truth on videos that neither classifier nor calibration has seen.

    Before: softmax of the scores as they are. Videos of an unknown class are left out: no probability is right there.
    """

    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    n: int


def calibration_figures(
    scores: Float[np.ndarray, "n classes"],
    labels: Int[np.ndarray, "n"],
    calibration: Temperature | Platt | Float[np.ndarray, "n classes"],
) -> CalibrationFigures | None:
    """Return negative log-likelihood and calibration error before and after; None without a label.

    Args:
        scores: margins.
        labels: index of the true class, −1 where it is unknown.
        calibration: of the margins, or the calibrated probabilities.
    """
    known = labels >= 0
    if not known.any():
        return None
    before, true = softmax(scores[known]), labels[known]
    if isinstance(calibration, np.ndarray):
        after = calibration[known]
    else:
        after = calibration.probabilities(scores[known])
    return CalibrationFigures(
        nll_before=negative_log_likelihood(before, true),
        nll_after=negative_log_likelihood(after, true),
        ece_before=calibration_error(before, true),
        ece_after=calibration_error(after, true),
        n=int(known.sum()),
    )
