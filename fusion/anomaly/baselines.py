"""Plain baselines of the autoencoder, always reported beside it: PCA residual and distance to normal videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.anomaly.attribution import (
    error_shares,
    stream_errors,
    video_error,
)
from tristream.fusion.anomaly.bottleneck import fit_basis
from tristream.fusion.anomaly.normal_scores import EventRule, NormalScores
from tristream.fusion.anomaly.normal_split import split_normal
from tristream.fusion.anomaly.normality import Normality
from tristream.fusion.anomaly.pattern_units import PatternUnits, limits_of, masked_copies
from tristream.fusion.anomaly.thresholds import Threshold, choose_thresholds, stored_thresholds
from tristream.fusion.standardise import LEAST_SHARE, Standardiser, check_arrays, fit_standardiser

KEPT_VARIANCE = 0.95
N_NEIGHBOURS = 5


class PlainDetector:
    """Anomaly score by one of `METHODS`, in the shape and units of `AutoencoderDetector`; nothing is trained.

    Args:
        method: 'pca': mean squared distance to the plane through the axes that hold 95 % of the normal variance, a
            missing stream taken for its mean. 'knn': mean squared distance to the 5 nearest normal videos, over the
            streams that both have.
        columns: {stream: slice} from `fuse_tables`; a missing stream's block is all NaN. None: one block, no NaN.
        combine: as in `AutoencoderDetector`.

    Raises:
        TristreamError: an unknown method.
    """

    def __init__(
        self,
        method: str,
        *,
        columns: Mapping[str, slice] | None = None,
        combine: str = "mean_max",
    ) -> None:
        if method not in METHODS:
            raise TristreamError(f"unknown detector '{method}'; available: {', '.join(METHODS)}")
        self.method = method
        self.columns = columns
        self.combine = combine

    def fit(
        self,
        X: Float[np.ndarray, "n F"],
        y: object = None,
        *,
        X_val: Float[np.ndarray, "v F"] | None = None,
    ) -> PlainDetector:
        """Remember normal embeddings; arguments as `AutoencoderDetector.fit`, seed 0.

        Raises:
            TristreamError: fewer than 2 videos with any stream; embeddings that are all the same; as `Standardiser`.
        """
        rows, held_out, self.remarks_ = split_normal(
            X.astype(np.float64),
            None if X_val is None else X_val.astype(np.float64),
            np.random.RandomState(0),
        )
        self.standardiser_ = fit_standardiser(rows, columns=self.columns, least_share=LEAST_SHARE)
        Z = self.standardiser_.transform(rows)
        basis = fit_basis(Z, self.standardiser_.columns)
        self.normality_ = Normality(
            rows=Z,
            masks=self.standardiser_.masks(rows),
            axes=np.ascontiguousarray(basis.axes[:, : basis.n_axes_for(KEPT_VARIANCE)]),
            weight=basis.weight,
            columns=self.standardiser_.columns,
        )
        self.pattern_units_ = PatternUnits(np.ones(len(self.standardiser_.columns)))
        if self.columns is not None:
            self.pattern_units_ = PatternUnits.fit(held_out, self.stream_errors, self.standardiser_)
        copies = masked_copies(held_out, self.standardiser_)
        threshold = self.set_threshold(
            self.anomaly_score(held_out),
            by_pattern={pattern: self.anomaly_score(rows) for pattern, rows in copies.items()},
        )
        if threshold.remark:
            self.remarks_.append(threshold.remark)
        return self

    def anomaly_score(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n"]:
        """Return `stream_errors` combined over a video's streams; higher = more anomalous."""
        return video_error(self.stream_errors(X), self.standardiser_.masks(X), self.combine)

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
        """Return the error per video and stream, in units of a usual normal video with the same streams.

        0 for a stream that a video lacks.

        Raises:
            TristreamError: X of another width; a video with none of the streams of the fit; as `Standardiser`.
        """
        masks = self.standardiser_.masks(X)
        video_error(masks.astype(np.float64), masks)  # refuses a row with no stream
        errors = METHODS[self.method](self.standardiser_.transform(X), masks, self.normality_)
        return errors / self.pattern_units_.of(masks, self.standardiser_)

    def attribution(self, X: Float[np.ndarray, "n F"]) -> Float64[np.ndarray, "n streams"]:
        """Share of each stream in a video's error, in `columns` order, each row summing to 1."""
        return error_shares(self.stream_errors(X), self.standardiser_.masks(X))

    def nearest_normal(
        self, X: Float[np.ndarray, "n F"], *, n_videos: int = 3
    ) -> tuple[Int64[np.ndarray, "n near"], Float64[np.ndarray, "n near"]]:
        """Return the most similar normal videos of each video, nearest first, and their mean squared distances.

        The numbers count the videos remembered: the rows given to `fit` where it was given X_val too, less those
        without any stream. The distance is inf to a video without a stream in common.
        """
        Z, masks = self.standardiser_.transform(X), self.standardiser_.masks(X)
        n_rows = len(self.normality_.rows)
        n_near = min(n_videos, n_rows)
        index, distance = np.zeros((len(Z), n_near), dtype=np.int64), np.zeros((len(Z), n_near))
        for row, near, errors in self.normality_.neighbours(Z, masks, n_near):
            others = np.setdiff1d(np.arange(n_rows), near)[: n_near - len(near)]
            far = np.full(len(others), np.inf)
            index[row] = np.concatenate([near, others])
            distance[row] = np.concatenate([errors.sum(axis=1) / max(1, masks[row].sum()), far])
        return index, distance

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
        normal = self.normality_
        arrays |= {"rows": normal.rows, "row_masks": normal.masks.astype(np.uint8)}
        arrays |= {"axes": normal.axes, "weight": normal.weight}
        arrays |= self.pattern_units_.to_arrays()
        config |= {
            "method": self.method,
            "threshold": vars(self.threshold_),
            "thresholds": {pattern: vars(one) for pattern, one in self.thresholds_.items()},
            "remarks": self.remarks_,
        }
        config |= {"has_columns": self.columns is not None, "combine": self.combine}
        return arrays, config

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> PlainDetector:
        """The inverse of `to_arrays`; scores are bit-identical.

        Raises:
            TristreamError: an array is absent, of another shape, or not finite.
        """
        standardiser = Standardiser.from_arrays(arrays, config)
        n, width = len(arrays.get("rows", ())), len(standardiser.mean)
        n_axes = arrays["axes"].shape[-1] if "axes" in arrays else 0
        shapes = {
            "rows": (n, width),
            "row_masks": (n, len(standardiser.columns)),
            "weight": (width,),
        }
        check_arrays(arrays, {**shapes, "axes": (width, n_axes)})
        detector = cls(
            config["method"],
            columns=standardiser.columns if config["has_columns"] else None,
            combine=config.get("combine", "mean"),  # of an earlier version
        )
        detector.standardiser_ = standardiser
        detector.pattern_units_ = PatternUnits.from_arrays(arrays, len(standardiser.columns))
        detector.normality_ = Normality(
            rows=arrays["rows"],
            masks=arrays["row_masks"].astype(bool),
            axes=arrays["axes"],
            weight=arrays["weight"],
            columns=standardiser.columns,
        )
        detector.threshold_, detector.thresholds_ = stored_thresholds(config)
        detector.remarks_ = list(config["remarks"])
        return detector


def _pca_errors(
    Z: Float64[np.ndarray, "n F"], masks: Bool[np.ndarray, "n streams"], normal: Normality
) -> Float64[np.ndarray, "n streams"]:
    return stream_errors(normal.residual(Z), masks, normal.columns)


def _knn_errors(
    Z: Float64[np.ndarray, "n F"], masks: Bool[np.ndarray, "n streams"], normal: Normality
) -> Float64[np.ndarray, "n streams"]:
    errors = np.zeros(masks.shape)
    for row, _, differences in normal.neighbours(Z, masks, N_NEIGHBOURS):
        errors[row] = differences.mean(axis=0)
    return errors


METHODS = {"pca": _pca_errors, "knn": _knn_errors}
