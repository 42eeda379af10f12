"""Anomaly detectors by name: the autoencoder, its plain baselines, and PyOD's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from tristream.errors import TristreamError
from tristream.fusion.anomaly.baselines import METHODS, PlainDetector
from tristream.fusion.anomaly.normal_scores import EventRule, NormalScores
from tristream.fusion.anomaly.pyod_adapter import PREFIX, OutsideDetector
from tristream.fusion.anomaly.thresholds import Threshold

AUTOENCODER = "autoencoder"
KINDS = (AUTOENCODER, *METHODS, f"{PREFIX}NAME")


@runtime_checkable
class Detector(Protocol):
    """Interface of every detector; `fusion.anomaly.autoencoder.AutoencoderDetector` documents it."""

    threshold_: Threshold
    thresholds_: dict[str, Threshold]
    remarks_: list[str]

    def fit(self, X: np.ndarray, y: object = None, *, X_val: np.ndarray | None = None) -> Any: ...
    def anomaly_score(self, X: np.ndarray) -> Float64[np.ndarray, "n"]: ...
    def limits(self, X: np.ndarray) -> Float64[np.ndarray, "n"]: ...
    def stream_errors(self, X: np.ndarray) -> Float64[np.ndarray, "n streams"]: ...
    def attribution(self, X: np.ndarray) -> Float64[np.ndarray, "n streams"]: ...
    def set_threshold(
        self,
        scores: np.ndarray | NormalScores,
        *,
        rule: str = "quantile",
        level: float = 0.95,
        hop_seconds: float | None = None,
        by_pattern: Mapping[str, Any] | None = None,
        events: EventRule | None = None,
    ) -> Threshold: ...
    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]: ...


def check_kind(kind: str) -> None:
    """Raise TristreamError for an unknown detector, ImportError for one that needs a missing library."""
    if kind.startswith(PREFIX):
        OutsideDetector(kind.removeprefix(PREFIX))
    elif kind not in KINDS:
        raise TristreamError(f"unknown detector '{kind}'; available: {', '.join(KINDS)}")


def build(
    kind: str,
    *,
    columns: Mapping[str, slice],
    seed: int,
    combine: str = "mean_max",
    **autoencoder: Any,
) -> Any:
    """Return a `Detector` that is not fitted yet.

    Args:
        kind: one of `KINDS`.
        combine: of the streams' errors, see `video_error`; PyOD's scores are not made of streams.
        autoencoder: other arguments of `AutoencoderDetector`; the other kinds take none of them.

    Raises:
        TristreamError, ImportError: as `check_kind`.
    """
    check_kind(kind)
    if kind == AUTOENCODER:
        from tristream.fusion.anomaly.autoencoder import AutoencoderDetector

        return AutoencoderDetector(
            columns=columns, random_state=seed, combine=combine, **autoencoder
        )
    if kind.startswith(PREFIX):
        return OutsideDetector(kind.removeprefix(PREFIX), columns=columns, random_state=seed)
    return PlainDetector(kind, columns=columns, combine=combine)


def load(kind: str, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Any:
    """Return a `Detector` of that kind from the output of its `to_arrays`."""
    if kind == AUTOENCODER:
        from tristream.fusion.anomaly.autoencoder import AutoencoderDetector

        return AutoencoderDetector.from_arrays(arrays, config)
    if kind.startswith(PREFIX):
        return OutsideDetector.from_arrays(arrays, config)
    return PlainDetector.from_arrays(arrays, config)
