"""PyOD's detectors in the shape of ours; nothing of theirs is stored: the normal rows are, and the fit is repeated."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64

from tristream.errors import TristreamError
from tristream.fusion.anomaly.attribution import error_shares, video_error
from tristream.fusion.anomaly.normal_split import split_normal
from tristream.fusion.anomaly.thresholds import Threshold, choose_threshold
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
        """Learns normal embeddings; arguments and errors as `AutoencoderDetector.fit`."""
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
        self.unit_ = 1.0
        usual = float(np.median(self.anomaly_score(held_out)))
        self.unit_ = usual if usual > 0 else 1.0
        if remark := self.set_threshold(self.anomaly_score(held_out)).remark:
            self.remarks_.append(remark)
        return self

    def anomaly_score(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n"]:
        """PyOD's decision score in units of the median of normal validation videos; higher = more anomalous."""
        masks = self.standardiser_.masks(X)
        video_error(masks.astype(np.float64), masks)  # refuses a row with no stream
        return self._decision(self.standardiser_.transform(X))

    def score_samples(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n"]:
        """Minus `anomaly_score`."""
        return -self.anomaly_score(X)

    def predict(self, X: Float[np.ndarray, "n F"]) -> Int64[np.ndarray, "n"]:
        """−1 for an abnormal video, 1 for a normal one."""
        return np.where(self.anomaly_score(X) >= self.threshold_.value, -1, 1).astype(np.int64)

    def stream_errors(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n streams"]:
        """What each stream adds to the score, by occlusion; never below 0."""
        masks, Z = self.standardiser_.masks(X), self.standardiser_.transform(X)
        score = self._decision(Z)
        drop = np.zeros(masks.shape)
        for s, block in enumerate(self.standardiser_.columns.values()):
            without = Z.copy()
            without[:, block] = 0
            drop[:, s] = np.where(
                masks[:, s], np.maximum(0.0, score - self._decision(without)), 0.0
            )
        shares = error_shares(drop, masks)
        return shares * score[:, None] * masks.sum(axis=1, keepdims=True)

    def attribution(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n streams"]:
        """Share of each stream, each row summing to 1."""
        return error_shares(np.abs(self.stream_errors(X)), self.standardiser_.masks(X))

    def set_threshold(
        self,
        scores: Float[np.ndarray, "n"],
        *,
        rule: str = "quantile",
        level: float = 0.95,
        hop_seconds: float | None = None,
    ) -> Threshold:
        """Sets the threshold from anomaly scores of normal videos; see `choose_threshold`."""
        self.threshold_ = choose_threshold(scores, rule=rule, level=level, hop_seconds=hop_seconds)
        return self.threshold_

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays for safetensors and the rest for JSON."""
        arrays, config = self.standardiser_.to_arrays()
        config |= {
            "name": self.name,
            "random_state": self.random_state,
            "unit": self.unit_,
            "remarks": self.remarks_,
        }
        config |= {"threshold": vars(self.threshold_), "has_columns": self.columns is not None}
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
        detector.threshold_, detector.remarks_ = (
            Threshold(**config["threshold"]),
            list(config["remarks"]),
        )
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
            found = np.array(
                [float(self._model.decision_function(z[None])[0]) for z in Z], np.float64
            )
        return found / getattr(self, "unit_", 1.0)


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
        found = getattr(importlib.import_module(f"pyod.models.{name.lower()}"), name)
    except (ImportError, AttributeError) as error:
        raise TristreamError(
            f"PyOD has no detector '{name}'; some that it has: ECOD, COPOD, IForest, LOF, KNN, HBOS, OCSVM, GMM, MCD"
        ) from error

    def make(seed: int) -> Any:
        import inspect

        takes_seed = "random_state" in inspect.signature(found.__init__).parameters
        return found(random_state=seed) if takes_seed else found()

    return make
