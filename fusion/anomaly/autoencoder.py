"""Anomaly detector: an autoencoder of normal embeddings; what it cannot rebuild is abnormal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from tristream.errors import TristreamError
from tristream.fusion.anomaly.attribution import (
    error_shares,
    stream_errors,
    video_error,
)
from tristream.fusion.anomaly.autoencoder_training import Rows, Schedule, train_layers
from tristream.fusion.anomaly.bottleneck import Basis, fit_basis, reconstruct
from tristream.fusion.anomaly.normal_scores import EventRule, NormalScores
from tristream.fusion.anomaly.normal_split import split_normal
from tristream.fusion.anomaly.pattern_units import PatternUnits, limits_of, masked_copies
from tristream.fusion.anomaly.thresholds import Threshold, choose_thresholds, stored_thresholds
from tristream.fusion.standardise import (
    LEAST_SHARE,
    WHOLE,
    Standardiser,
    check_arrays,
    fit_standardiser,
)

KEPT_VARIANCE = 0.98  # share of the normal variance that the default bottleneck can carry
MAX_BOTTLENECK = 64


class AutoencoderDetector(OutlierMixin, BaseEstimator):
    """Anomaly score of a video: mean squared reconstruction error of its standardised embedding.

    With `columns` the error of every stream is its mean over the stream's columns, in units of the median that normal
    validation videos with the same streams have there, and the score is half the mean plus half the maximum over the
    streams that a video has: near 1 for a usual normal video, an anomaly of one stream is not diluted by the others,
    and a stream that is hard to rebuild does not drown them. A missing stream is masked after standardisation: it is
    neither seen nor rebuilt, and its share is 0. Without columns the unit is 1.

    Fused embeddings that fit together vary along few axes; a pairing of parts that are each normal lies off them. So
    the bottleneck is as narrow as the normal videos allow, and training often withholds a stream (`stream_dropout`),
    without which a video that lacks one would look abnormal.

    Args:
        columns: {stream: slice} from `fuse_tables`; a missing stream's block is all NaN. None: one block, no NaN.
        bottleneck: width of the code. None: as many principal axes as hold 98 % of the normal variance, at most 64,
            half the normal videos and a quarter of the columns.
        hidden_dims: widths between input and code, mirrored in the decoder. None: one layer, twice the bottleneck and
            at least 64. (): a linear autoencoder, whose optimum is the PCA residual.
        stream_dropout: share of training rows that lose one stream at each step.
        max_steps: at most this many Adam steps; training ends sooner after `patience` steps without a smaller
            validation error, and always keeps the layers of the smallest.
        quantile: of normal validation scores, for the threshold (`set_threshold` changes it later).
        combine: of the streams' errors: 'mean_max' or 'mean', the paper's; see `video_error`.
        random_state: seed of initial layers, order, dropout and, where no validation rows are given, the hold-out.

    Attributes:
        threshold_: the `Threshold` of videos with all streams; `predict` gives −1 from its value on.
        thresholds_: {pattern of present streams: `Threshold`}, from validation videos masked to it.
        offset_: −threshold, in the sign of `score_samples`.
        pattern_units_: mean squared error of each stream in a usual normal video, per pattern of present streams
            (1 without `columns`).
        bottleneck_, n_steps_: width of the code; step of the layers kept.
        remarks_: remarks on anything that makes the scores less reliable.

    The defaults are ours, measured on synthetic embeddings of three streams (16 to 1024 columns, 40 to 600 videos) and
    on the workshop's kinds of anomalies; Tkachenko 2018, VII, gives the idea only.
    """

    def __init__(
        self,
        *,
        columns: Mapping[str, slice] | None = None,
        bottleneck: int | None = None,
        hidden_dims: tuple[int, ...] | None = None,
        stream_dropout: float = 0.5,
        learning_rate: float = 2e-3,
        batch_size: int = 32,
        max_steps: int = 2000,
        patience: int = 300,
        quantile: float = 0.95,
        combine: str = "mean_max",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.columns = columns
        self.bottleneck = bottleneck
        self.hidden_dims = hidden_dims
        self.stream_dropout = stream_dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.patience = patience
        self.quantile = quantile
        self.combine = combine
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: object = None, *, X_val: ArrayLike | None = None
    ) -> AutoencoderDetector:
        """Learn normal embeddings.

        Args:
            X: embeddings of normal videos.
            y: ignored.
            X_val: embeddings of other normal videos, for early stop and threshold. None: every fifth row of X,
                drawn at random, is held out (below 10 rows none is: then the threshold is too low).

        Raises:
            TristreamError: fewer than 2 videos with any stream; embeddings that are all the same; a bottleneck that is
                not narrower than the embedding; as `Standardiser`.
        """
        rng = check_random_state(self.random_state)
        rows, held_out, self.remarks_ = split_normal(
            self._validated(X, reset=True),
            None if X_val is None else self._validated(X_val, reset=False),
            rng,
        )
        self.standardiser_ = fit_standardiser(rows, columns=self.columns, least_share=LEAST_SHARE)
        Z, Z_val = self.standardiser_.transform(rows), self.standardiser_.transform(held_out)
        masks, masks_val = self.standardiser_.masks(rows), self.standardiser_.masks(held_out)
        self.basis_ = fit_basis(Z, self.standardiser_.columns)
        self.bottleneck_ = self._bottleneck(*rows.shape)
        hidden = (
            (max(64, 2 * self.bottleneck_),)
            if self.hidden_dims is None
            else tuple(self.hidden_dims)
        )
        self.layers_, self.n_steps_ = train_layers(
            Rows(self._contributions(Z), masks),
            Rows(self._contributions(Z_val), masks_val),
            gram=self._gram(),
            widths=(*hidden, self.bottleneck_, *hidden[::-1]),
            stream_dropout=self.stream_dropout,
            schedule=Schedule(
                self.learning_rate,
                self.batch_size,
                self.max_steps,
                self.patience,
                int(rng.randint(2**31)),
            ),
        )
        self.pattern_units_ = PatternUnits(np.ones(masks.shape[1]))
        if self.columns is not None:
            self.pattern_units_ = PatternUnits.fit(held_out, self._errors, self.standardiser_)
        scores = self._score(held_out)
        copies = masked_copies(held_out, self.standardiser_)
        by_pattern = {pattern: self._score(rows) for pattern, rows in copies.items()}
        threshold = self.set_threshold(
            scores, rule="quantile", level=self.quantile, by_pattern=by_pattern
        )
        if threshold.remark:
            self.remarks_.append(threshold.remark)
        of_mean = video_error(
            stream_errors(Z_val, masks_val, self.standardiser_.columns)
            / self.pattern_units_.of(masks_val, self.standardiser_),
            masks_val,
            self.combine,
        )
        self.remarks_ += _collapse(scores, held_out, float(of_mean.mean()))
        return self

    def anomaly_score(self, X: ArrayLike) -> Float64[np.ndarray, "n"]:
        """Return the score of each video; higher = more anomalous.

        Raises:
            TristreamError: X of another width; a video with none of the streams of the fit; as `Standardiser`.
        """
        check_is_fitted(self)
        return self._score(self._validated(X, reset=False))

    def score_samples(self, X: ArrayLike) -> Float64[np.ndarray, "n"]:
        """Minus `anomaly_score`: scikit-learn's sign, higher = more normal."""
        return -self.anomaly_score(X)

    def decision_function(self, X: ArrayLike) -> Float64[np.ndarray, "n"]:
        """`score_samples` minus the offset of the video's streams; negative = abnormal."""
        check_is_fitted(self)
        if not self.thresholds_:
            return self.score_samples(X) - self.offset_
        return self.score_samples(X) - np.nextafter(-self.limits(X), np.inf)

    def predict(self, X: ArrayLike) -> Int64[np.ndarray, "n"]:
        """Return −1 for an abnormal video, 1 for a normal one."""
        return np.where(self.decision_function(X) < 0, -1, 1).astype(np.int64)

    def limits(self, X: ArrayLike) -> Float64[np.ndarray, "n"]:
        """Return the score at which each video alarms, by the streams that it has."""
        masks = self.standardiser_.masks(self._validated(X, reset=False))
        return limits_of(masks, self.standardiser_, self.threshold_, self.thresholds_)

    def stream_errors(self, X: ArrayLike) -> Float64[np.ndarray, "n streams"]:
        """Return the reconstruction error per video and stream, in units of a usual normal video with the same streams.

        0 for a stream that a video lacks.
        """
        check_is_fitted(self)
        return self._errors(self._validated(X, reset=False))

    def attribution(self, X: ArrayLike) -> Float64[np.ndarray, "n streams"]:
        """Share of each stream in a video's error, in `columns` order, each row summing to 1; one column without."""
        check_is_fitted(self)
        rows = self._validated(X, reset=False)
        return error_shares(self._errors(rows), self.standardiser_.masks(rows))

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
        self.offset_ = float(np.nextafter(-self.threshold_.value, np.inf))
        return self.threshold_

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays for safetensors and the rest for JSON."""
        check_is_fitted(self)
        arrays, config = self.standardiser_.to_arrays()
        arrays |= {
            "axes": self.basis_.axes,
            "weight": self.basis_.weight,
            "variance": self.basis_.variance,
        }
        arrays |= self.pattern_units_.to_arrays()
        for i, (weight, bias) in enumerate(self.layers_):
            arrays |= {f"layer{i}.weight": weight, f"layer{i}.bias": bias}
        parameters = {name: value for name, value in self.get_params().items() if name != "columns"}
        parameters["random_state"] = (
            self.random_state if isinstance(self.random_state, int) else None
        )
        config |= {
            "parameters": parameters,
            "scale": self.basis_.scale,
            "threshold": vars(self.threshold_),
            "thresholds": {pattern: vars(one) for pattern, one in self.thresholds_.items()},
        }
        config |= {"remarks": self.remarks_, "n_steps": self.n_steps_}
        return arrays, config

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]
    ) -> AutoencoderDetector:
        """The inverse of `to_arrays`; scores are bit-identical.

        Raises:
            TristreamError: an array is absent, of another shape, or not finite.
        """
        standardiser = Standardiser.from_arrays(arrays, config)
        columns = None if list(standardiser.columns) == [WHOLE] else standardiser.columns
        parameters = {"combine": "mean", **config["parameters"]}  # "mean": of an earlier version
        if parameters["hidden_dims"] is not None:
            parameters["hidden_dims"] = tuple(parameters["hidden_dims"])
        detector = cls(columns=columns, **parameters)
        n_features, n_axes = len(standardiser.mean), len(arrays.get("variance", ()))
        check_arrays(
            arrays, {"axes": (n_features, n_axes), "weight": (n_features,), "variance": (n_axes,)}
        )
        detector.n_features_in_ = n_features
        detector.pattern_units_ = PatternUnits.from_arrays(arrays, len(standardiser.columns))
        detector.standardiser_ = standardiser
        detector.basis_ = Basis(
            arrays["axes"], arrays["weight"], config["scale"], arrays["variance"]
        )
        n_layers = sum(name.endswith(".bias") for name in arrays)
        n_in, detector.layers_ = n_axes, []
        for i in range(n_layers):
            n_out = n_axes if i == n_layers - 1 else len(arrays[f"layer{i}.bias"])
            check_arrays(arrays, {f"layer{i}.weight": (n_out, n_in), f"layer{i}.bias": (n_out,)})
            detector.layers_.append((arrays[f"layer{i}.weight"], arrays[f"layer{i}.bias"]))
            n_in = n_out
        detector.bottleneck_ = len(detector.layers_[n_layers // 2 - 1][1])
        detector.threshold_, detector.thresholds_ = stored_thresholds(config)
        detector.offset_ = float(np.nextafter(-detector.threshold_.value, np.inf))
        detector.remarks_, detector.n_steps_ = list(config["remarks"]), config["n_steps"]
        return detector

    def _validated(self, X: ArrayLike, *, reset: bool) -> Float64[np.ndarray, "n F"]:
        finite = True if self.columns is None else "allow-nan"
        return validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite=finite)

    def _bottleneck(self, n: int, n_features: int) -> int:
        if self.bottleneck is None:
            return max(
                1,
                min(self.basis_.n_axes_for(KEPT_VARIANCE), MAX_BOTTLENECK, n // 2, n_features // 4),
            )
        if not 1 <= self.bottleneck < max(2, n_features):
            raise TristreamError(
                f"bottleneck is {self.bottleneck}; it must be at least 1 and below the {n_features} columns"
            )
        return self.bottleneck

    def _contributions(self, Z: Float64[np.ndarray, "n F"]) -> np.ndarray:
        """Part of a row's coordinates that each stream contributes, float32, (n, streams, axes)."""
        weighted, basis = Z * self.basis_.weight, self.basis_
        parts = [
            weighted[:, block] @ basis.axes[block] for block in self.standardiser_.columns.values()
        ]
        return (np.stack(parts, axis=1) / basis.scale).astype(np.float32)

    def _gram(self) -> np.ndarray:
        blocks = self.standardiser_.columns.values()
        return np.stack([self.basis_.axes[b].T @ self.basis_.axes[b] for b in blocks]).astype(
            np.float32
        )

    def _errors(self, X: Float64[np.ndarray, "n F"]) -> Float64[np.ndarray, "n streams"]:
        Z = self.standardiser_.transform(X)
        residual = Z - reconstruct(Z, self.basis_, self.layers_)
        masks = self.standardiser_.masks(X)
        errors = stream_errors(residual, masks, self.standardiser_.columns)
        return errors / self.pattern_units_.of(masks, self.standardiser_)

    def _score(self, X: Float64[np.ndarray, "n F"]) -> Float64[np.ndarray, "n"]:
        return video_error(self._errors(X), self.standardiser_.masks(X), self.combine)


def _collapse(scores: np.ndarray, X: np.ndarray, error_of_mean: float) -> list[str]:
    """Remarks on a detector that scores all validation videos equally, or rebuilds them no better than their mean."""
    remarks = []
    n_distinct = len(np.unique(X, axis=0))
    if n_distinct > 2 and np.ptp(scores) <= 1e-3 * abs(scores.mean()):
        remarks.append(
            f"the detector has collapsed: {n_distinct} different normal videos all score {scores.mean():.4g}; "
            "train it with other settings before believing any score"
        )
    if scores.mean() >= error_of_mean:
        remarks.append(
            f"the autoencoder rebuilds normal videos no better than their mean does (error {scores.mean():.3g} against "
            f"{error_of_mean:.3g}); give it more normal videos or more steps"
        )
    return remarks
