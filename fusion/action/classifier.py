"""The decision as it is kept: the SVM, what makes its margins probabilities, and when it says "not sure"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from tristream.fusion.standardise import check_arrays

METHODS = ("temperature", "platt")


@dataclass(frozen=True, eq=False)
class CalibratedSVM:
    """A linear SVM that also knows how sure it is.

    The class it names is that of the largest margin, calibrated or not.

    Attributes:
        calibration: fitted on validation videos; None where there were none.
        confidence, hits: probability of the class named for each validation video, and whether that was right.
    """

    svm: LinearSVM
    calibration: Temperature | Platt | None
    confidence: Float64[np.ndarray, "val"]
    hits: Bool[np.ndarray, "val"]

    def probabilities(
        self, scores: Float[np.ndarray, "n classes"]
    ) -> Float64[np.ndarray, "n classes"]:
        """Calibrated probabilities of the classes, from margins of `svm`.

        Raises:
            TristreamError: it was never calibrated.
        """
        if self.calibration is None:
            raise TristreamError(
                "there were 0 labelled validation videos to calibrate on; margins are no probabilities"
            )
        return self.calibration.probabilities(scores)

    def rejection(self, max_error: float) -> Rejection:
        """The probability below which nothing is named, so that of the named validation videos few are wrong.

        Raises:
            TristreamError: it was never calibrated; as `choose_rejection`.
        """
        if self.calibration is None:
            raise TristreamError(
                "there were 0 labelled validation videos; an error cannot be promised without them"
            )
        return choose_rejection(self.confidence, self.hits, max_error=max_error)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays for safetensors and the rest for JSON; `LinearSVM.from_arrays` reads them too."""
        arrays, config = self.svm.to_arrays()
        if isinstance(self.calibration, Temperature):
            config["calibration"] = {
                "method": "temperature",
                "temperature": self.calibration.temperature,
            }
        elif isinstance(self.calibration, Platt):
            found, rest = self.calibration.to_arrays()
            arrays |= {f"platt.{name}": array for name, array in found.items()}
            config["calibration"] = {"method": "platt", **rest}
        if self.calibration is not None:
            arrays |= {"val.confidence": self.confidence, "val.hits": self.hits.astype(np.uint8)}
        return arrays, config

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> CalibratedSVM:
        """The inverse of `to_arrays`.

        Raises:
            TristreamError: an array is absent, of another shape, or not finite; an unknown calibration.
        """
        svm, stored = LinearSVM.from_arrays(arrays, config), config.get("calibration")
        if stored is None:
            return cls(svm, None, np.zeros(0), np.zeros(0, dtype=bool))
        n = len(arrays.get("val.hits", ()))
        check_arrays(arrays, {"val.confidence": (n,), "val.hits": (n,)})
        calibration: Temperature | Platt
        if stored["method"] == "temperature":
            calibration = Temperature(stored["temperature"])
        elif stored["method"] == "platt":
            parts = {
                name.removeprefix("platt."): array
                for name, array in arrays.items()
                if name.startswith("platt.")
            }
            calibration = Platt.from_arrays(parts, stored)
        else:
            raise TristreamError(
                f"unknown calibration '{stored['method']}'; available: {', '.join(METHODS)}"
            )
        return cls(svm, calibration, arrays["val.confidence"], arrays["val.hits"].astype(bool))


def calibrate(
    svm: LinearSVM,
    X: Float[np.ndarray, "n F"],
    labels: ArrayLike,
    *,
    masks: Bool[np.ndarray, "n streams"] | None = None,
    method: str = "temperature",
) -> CalibratedSVM:
    """The machine with its margins calibrated on validation videos, whose groups training has not seen.

    Args:
        labels: of the videos of X; those of a class that the machine does not know are left out of the fit.
        method: 'temperature': one number, which cannot change the class; 'platt': a curve for each class.

    Raises:
        TristreamError: an unknown method. No video of a known class is no error: the machine stays uncalibrated.
    """
    if method not in METHODS:
        raise TristreamError(f"unknown calibration '{method}'; available: {', '.join(METHODS)}")
    index = class_index(labels, svm.classes_)
    if not (index >= 0).any():
        return CalibratedSVM(svm, None, np.zeros(0), np.zeros(0, dtype=bool))
    scores = svm.decision_function(X, masks=masks)
    calibration = (
        fit_temperature(scores, index) if method == "temperature" else fit_platt(scores, index)
    )
    named = scores.argmax(axis=1)
    confidence = calibration.probabilities(scores)[np.arange(len(named)), named]
    return CalibratedSVM(svm, calibration, confidence, named == index)


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
    calibration: Temperature | Platt,
) -> CalibrationFigures | None:
    """Negative log-likelihood and calibration error before and after; None where no label is known.

    Args:
        labels: index of the true class, −1 where it is unknown.
    """
    known = labels >= 0
    if not known.any():
        return None
    before, after, true = (
        softmax(scores[known]),
        calibration.probabilities(scores[known]),
        labels[known],
    )
    return CalibrationFigures(
        nll_before=negative_log_likelihood(before, true),
        nll_after=negative_log_likelihood(after, true),
        ece_before=calibration_error(before, true),
        ece_after=calibration_error(after, true),
        n=int(known.sum()),
    )
