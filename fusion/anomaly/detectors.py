"""Which anomaly detectors there are, by name: ours, their plain rivals, and PyOD's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from tristream.errors import TristreamError
from tristream.fusion.anomaly.baselines import METHODS, PlainDetector
from tristream.fusion.anomaly.pyod_adapter import PREFIX, OutsideDetector
from tristream.fusion.anomaly.thresholds import Threshold

AUTOENCODER = "autoencoder"
KINDS = (AUTOENCODER, *METHODS, f"{PREFIX}NAME")


@runtime_checkable
class Detector(Protocol):
    """What every detector offers; `fusion.anomaly.autoencoder.AutoencoderDetector` says what each means."""

    threshold_: Threshold
    remarks_: list[str]

    def fit(self, X: np.ndarray, y: object = None, *, X_val: np.ndarray | None = None) -> Any: ...
    def anomaly_score(self, X: np.ndarray) -> Float64[np.ndarray, "n"]: ...
    def stream_errors(self, X: np.ndarray) -> Float64[np.ndarray, "n streams"]: ...
    def attribution(self, X: np.ndarray) -> Float64[np.ndarray, "n streams"]: ...
    def set_threshold(
        self,
        scores: np.ndarray,
        *,
        rule: str = "quantile",
        level: float = 0.95,
        hop_seconds: float | None = None,
    ) -> Threshold: ...
    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]: ...


def check_kind(kind: str) -> None:
    """Raises ValueError where there is no such detector, ImportError where it needs a library that is not there."""
    if kind.startswith(PREFIX):
        OutsideDetector(kind.removeprefix(PREFIX))
    elif kind not in KINDS:
        raise TristreamError(f"unknown detector '{kind}'; available: {', '.join(KINDS)}")


def build(kind: str, *, columns: Mapping[str, slice], seed: int, **autoencoder: Any) -> Any:
    """A `Detector` that is not fitted yet.

    Args:
        kind: one of `KINDS`.
        autoencoder: arguments of `AutoencoderDetector`; the others take none of them.

    Raises:
        ValueError, ImportError: as `check_kind`.
    """
    check_kind(kind)
    if kind == AUTOENCODER:
        from tristream.fusion.anomaly.autoencoder import AutoencoderDetector

        return AutoencoderDetector(columns=columns, random_state=seed, **autoencoder)
    if kind.startswith(PREFIX):
        return OutsideDetector(kind.removeprefix(PREFIX), columns=columns, random_state=seed)
    return PlainDetector(kind, columns=columns)


def load(kind: str, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Any:
    """A `Detector` of that kind from what its `to_arrays` gave."""
    if kind == AUTOENCODER:
        from tristream.fusion.anomaly.autoencoder import AutoencoderDetector

        return AutoencoderDetector.from_arrays(arrays, config)
    if kind.startswith(PREFIX):
        return OutsideDetector.from_arrays(arrays, config)
    return PlainDetector.from_arrays(arrays, config)
