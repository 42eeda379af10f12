"""PyOD detectors with the interface of ours; the normal rows are stored and the fit is repeated on loading."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.anomaly.attribution import error_shares, video_error
from tristream.fusion.anomaly.normal_scores import EventRule, NormalScores
from tristream.fusion.anomaly.normal_split import split_normal
from tristream.fusion.anomaly.pattern_units import limits_of, masked_copies
from tristream.fusion.anomaly.thresholds import Threshold, choose_thresholds, stored_thresholds
from tristream.fusion.patterns import pattern_of
from tristream.fusion.standardise import LEAST_SHARE, Standardiser, check_arrays, fit_standardiser
from tristream.fusion.threads import one_thread

PREFIX = "pyod."
MAX_ROWS = 5000  # of normal rows that are kept and fitted on; more are thinned evenly
_NOT_PURE = (
    "AutoEncoder",
    "VAE",
    "SO_GAAL",
    "MO_GAAL",
    "DeepSVDD",
    "AnoGAN",
    "ALAD",
    "XGBOD",
    "LUNAR",
    "DIF",
)


class OutsideDetector:
    """Anomaly score of a PyOD detector on standardised embeddings, a missing stream taken for its mean.

    `stream_errors` splits the score by what it falls by where a stream is set to its mean (occlusion): PyOD's scores
    are no sums over columns. The parts are scaled so that their mean over the streams is the score.

    Args:
        name: of a class of `pyod.models`, e.g. 'ECOD', 'IForest', 'LOF'.
        columns: {stream: slice}; a missing stream's block is all NaN.

    Raises:
        ImportError: PyOD is not installed; the message says how to.
        TristreamError: it has no such detector, or one that trains a network of its own.
    """

    def __init__(
        self, name: str, *, columns: Mapping[str, slice] | None = None, random_state: int = 0
    ) -> None:
        self.name = name
        self.columns = columns
        self.random_state = random_state
        self._make = _find(name)

    def fit(
        self,
        X: Float[np.ndarray, "n F"],
        y: object = None,
        *,
        X_val: Float[np.ndarray, "v F"] | None = None,
    ) -> OutsideDetector:
        """Learn normal embeddings; arguments and errors as `AutoencoderDetector.fit`."""
        rows, held_out, self.remarks_ = split_normal(
            X.astype(np.float64),
            None if X_val is None else X_val.astype(np.float64),
            np.random.RandomState(self.random_state),
        )
        self.standardiser_ = fit_standardiser(rows, columns=self.columns, least_share=LEAST_SHARE)
        Z = self.standardiser_.transform(rows)
        if not np.ptp(Z, axis=0).any():
            raise TristreamError(
                f"the {len(Z)} normal videos all have the same embedding; nothing can be learned from them"
            )
        self._fit_rows(Z[np.linspace(0, len(Z) - 1, min(len(Z), MAX_ROWS)).astype(int)])
        self.unit_, self.pattern_units_ = 1.0, {}
        copies = masked_copies(held_out, self.standardiser_)
        usual = {pattern: self.anomaly_score(rows) for pattern, rows in copies.items()}
        self.unit_ = _unit(self.anomaly_score(held_out))
        self.pattern_units_ = {pattern: _unit(scores) for pattern, scores in usual.items()}
        threshold = self.set_threshold(
            self.anomaly_score(held_out),
            by_pattern={p: scores / self.pattern_units_[p] for p, scores in usual.items()},
        )
        if threshold.remark:
            self.remarks_.append(threshold.remark)
        return self

    def anomaly_score(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n"]:
        """Return PyOD's decision score in units of the median of normal videos with the same streams.

        Higher = more anomalous.
        """
        masks = self.standardiser_.masks(X)
        video_error(masks.astype(np.float64), masks)  # refuses a row with no stream
        return self._decision(self.standardiser_.transform(X)) / self._units(masks)

    def score_samples(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n"]:
        """Minus `anomaly_score`."""
        return -self.anomaly_score(X)

    def predict(self, X: Float[np.ndarray, "n F"]) -> Int64[np.ndarray, "n"]:
        """Return −1 for an abnormal video, 1 for a normal one."""
        return np.where(self.anomaly_score(X) >= self.limits(X), -1, 1).astype(np.int64)

    def limits(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n"]:
        """Return the score at which each video alarms, by the streams that it has."""
        masks = self.standardiser_.masks(X)
        return limits_of(masks, self.standardiser_, self.threshold_, self.thresholds_)

    def stream_errors(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n streams"]:
        """Return the part of the score that each stream adds, by occlusion; never below 0."""
        masks, Z = self.standardiser_.masks(X), self.standardiser_.transform(X)
        units = self._units(masks)
        score = self._decision(Z) / units
        drop = np.zeros(masks.shape)
        for s, block in enumerate(self.standardiser_.columns.values()):
            without = Z.copy()
            without[:, block] = 0
            drop[:, s] = np.where(
                masks[:, s], np.maximum(0.0, score - self._decision(without) / units), 0.0
            )
        shares = error_shares(drop, masks)
        return shares * score[:, None] * masks.sum(axis=1, keepdims=True)

    def attribution(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n streams"]:
        """Share of each stream, each row summing to 1."""
        return error_shares(np.abs(self.stream_errors(X)), self.standardiser_.masks(X))

    def set_threshold(
        self,
        scores: ArrayLike | NormalScores,
        *,
        rule: str = "quantile",
        level: float = 0.95,
        hop_seconds: float | None = None,
        by_pattern: Mapping[str, ArrayLike | NormalScores] | None = None,
        events: EventRule | None = None,
    ) -> Threshold:
        """Set the threshold, and one per pattern of present streams, without retraining; see `choose_threshold`.

        Args:
            scores: of normal videos as they are.
            by_pattern: {pattern: scores of normal videos masked to it}; the threshold is that of the videos with all
                streams, where there are any.
        """
        self.threshold_, self.thresholds_ = choose_thresholds(
            scores, by_pattern or {}, rule=rule, level=level, hop_seconds=hop_seconds, events=events
        )
        return self.threshold_

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays for safetensors and the rest for JSON."""
        arrays, config = self.standardiser_.to_arrays()
        config |= {
            "name": self.name,
            "random_state": self.random_state,
            "unit": self.unit_,
            "pattern_units": self.pattern_units_,
            "remarks": self.remarks_,
        }
        config |= {"threshold": vars(self.threshold_), "has_columns": self.columns is not None}
        config |= {"thresholds": {name: vars(one) for name, one in self.thresholds_.items()}}
        return {**arrays, "rows": self.rows_}, config

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> OutsideDetector:
        """The inverse of `to_arrays`: fits again, on the same rows with the same seed.

        Raises:
            TristreamError: an array is absent, of another shape, or not finite.
            ImportError: PyOD is not installed.
        """
        standardiser = Standardiser.from_arrays(arrays, config)
        check_arrays(arrays, {"rows": (len(arrays.get("rows", ())), len(standardiser.mean))})
        columns = standardiser.columns if config["has_columns"] else None
        detector = cls(config["name"], columns=columns, random_state=config["random_state"])
        detector.standardiser_, detector.unit_ = standardiser, config["unit"]
        detector.pattern_units_ = dict(config.get("pattern_units", {}))
        detector.threshold_, detector.thresholds_ = stored_thresholds(config)
        detector.remarks_ = list(config["remarks"])
        detector._fit_rows(arrays["rows"])
        return detector

    def _fit_rows(self, Z: Float64[np.ndarray, "n F"]) -> None:
        self.rows_ = Z
        self._model = self._make(self.random_state)
        with one_thread():
            self._model.fit(Z)

    def _decision(self, Z: Float64[np.ndarray, "n F"]) -> Float64[np.ndarray, "n"]:
        with one_thread():
            # One row at a time: some (ECOD, COPOD) rank a row among its mates.
            return np.array(
                [float(self._model.decision_function(z[None])[0]) for z in Z], np.float64
            )

    def _units(self, masks: Bool[np.ndarray, "n streams"]) -> Float64[np.ndarray, "n"]:
        names = list(self.standardiser_.columns)
        return np.array(
            [self.pattern_units_.get(pattern_of(mask, names), self.unit_) for mask in masks],
            np.float64,
        )


def _unit(scores: Float64[np.ndarray, "n"]) -> float:
    usual = float(np.median(scores))
    return usual if usual > 0 else 1.0


def _find(name: str) -> Any:
    try:
        importlib.import_module("pyod")
    except ImportError as error:
        raise ImportError(
            f"the detector 'pyod.{name}' needs PyOD, which is not installed: pip install 'tristream[detectors]'"
        ) from error
    if name in _NOT_PURE:
        raise TristreamError(
            f"'pyod.{name}' trains a network of its own; use kind = \"autoencoder\", or ECOD, IForest, LOF"
        )
    try:
        detector = getattr(importlib.import_module(f"pyod.models.{name.lower()}"), name)
    except (ImportError, AttributeError) as error:
        raise TristreamError(
            f"PyOD has no detector '{name}'; some that it has: ECOD, COPOD, IForest, LOF, KNN, HBOS, OCSVM, GMM, MCD"
        ) from error

    def make(seed: int) -> Any:
        import inspect

        takes_seed = "random_state" in inspect.signature(detector.__init__).parameters
        return detector(random_state=seed) if takes_seed else detector()

    return make
