"""Detector units, scores and thresholds per pattern of present streams, from validation rows masked to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Float64

from tristream.fusion.anomaly.attribution import usual_errors
from tristream.fusion.anomaly.thresholds import Threshold
from tristream.fusion.patterns import SEPARATOR, masked_alike, pattern_of
from tristream.fusion.standardise import WHOLE, Standardiser, check_arrays

MAX_STREAMS = (
    4  # with more, only patterns that lack one stream or have one; the others use the default
)
_PREFIX = "units."


def patterns(standardiser: Standardiser) -> list[str]:
    """Return the patterns that a video can have of the streams that training knew; all of them first."""
    names = [
        name
        for name, known in zip(standardiser.columns, standardiser.known.tolist(), strict=True)
        if known and name != WHOLE
    ]
    sizes = list(range(len(names), 0, -1))
    if len(names) > MAX_STREAMS:
        sizes = sorted({len(names), len(names) - 1, 1}, reverse=True)
    return [SEPARATOR.join(chosen) for size in sizes for chosen in combinations(names, size)]


def masked_to(
    X: Float[np.ndarray, "n F"], pattern: str, standardiser: Standardiser
) -> tuple[Float[np.ndarray, "k F"], Bool[np.ndarray, " n"]]:
    """Return the rows that have all streams of the pattern, with all others missing, and which rows they are."""
    names = list(standardiser.columns)
    rows = masked_alike(standardiser.masks(X), pattern, names)
    masked = np.array(X[rows], copy=True)
    for name, block in standardiser.columns.items():
        if name not in pattern.split(SEPARATOR):
            masked[:, block] = np.nan
    return masked, rows


def masked_copies(
    X: Float[np.ndarray, "n F"], standardiser: Standardiser
) -> dict[str, Float[np.ndarray, "k F"]]:
    """Return the rows of X masked to each pattern; patterns that no row can be masked to are absent."""
    copies = {pattern: masked_to(X, pattern, standardiser)[0] for pattern in patterns(standardiser)}
    return {pattern: rows for pattern, rows in copies.items() if len(rows)}


@dataclass(frozen=True, eq=False)
class PatternUnits:
    """Usual error of each stream in a normal video that has the streams of a pattern.

    Attributes:
        default: units where a pattern has none of its own: over validation rows as they are.
        units: {pattern: (streams,)}.
    """

    default: Float64[np.ndarray, " streams"]
    units: dict[str, Float64[np.ndarray, " streams"]] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        X: Float[np.ndarray, "n F"],
        errors: Callable[[np.ndarray], np.ndarray],
        standardiser: Standardiser,
    ) -> PatternUnits:
        """Units from normal validation rows.

        Args:
            errors: of rows, per stream, without units.
        """
        default = usual_errors(errors(X), standardiser.masks(X))
        units = {
            pattern: usual_errors(errors(rows), standardiser.masks(rows))
            for pattern, rows in masked_copies(X, standardiser).items()
        }
        return cls(default, units)

    def of(
        self, masks: Bool[np.ndarray, "n streams"], standardiser: Standardiser
    ) -> Float64[np.ndarray, "n streams"]:
        """Units of rows by the streams that they have."""
        names = list(standardiser.columns)
        rows = [self.units.get(pattern_of(mask, names), self.default) for mask in masks]
        return np.array(rows, np.float64).reshape(masks.shape)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays for safetensors."""
        return {"units": self.default, **{_PREFIX + p: unit for p, unit in self.units.items()}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], n_streams: int) -> PatternUnits:
        """The inverse of `to_arrays`; an artifact of an earlier version has the default alone.

        Raises:
            TristreamError: an array is absent, of another shape, or not finite.
        """
        names = [name for name in arrays if name == "units" or name.startswith(_PREFIX)]
        check_arrays(arrays, dict.fromkeys(["units", *names], (n_streams,)))
        units = {
            name.removeprefix(_PREFIX): arrays[name] for name in names if name.startswith(_PREFIX)
        }
        return cls(arrays["units"], units)


def limits_of(
    masks: Bool[np.ndarray, "n streams"],
    standardiser: Standardiser,
    threshold: Threshold,
    by_pattern: Mapping[str, Threshold],
) -> Float64[np.ndarray, " n"]:
    """Return the score at which each row alarms, by the streams that it has."""
    names = list(standardiser.columns)
    return np.array(
        [by_pattern.get(pattern_of(mask, names), threshold).value for mask in masks], np.float64
    )


def on_one_scale(
    scores: Float64[np.ndarray, " n"], limits: Float64[np.ndarray, " n"], threshold: float
) -> Float64[np.ndarray, " n"]:
    """Return scores that one threshold suits: times threshold / limit, or plus their difference unless both are > 0."""
    positive = (limits > 0) & (threshold > 0)
    return np.where(
        positive,
        scores * (threshold / np.where(positive, limits, 1.0)),
        scores + threshold - limits,
    )
