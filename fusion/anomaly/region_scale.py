"""Scale of regions by their row in the frame: far from the camera everything is smaller and slower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64
from numpy.typing import ArrayLike

from tristream.errors import TristreamError

QUANTILE = (
    0.9995  # of normal scores in a band of rows: the extreme there (SCIENCE.md's figure for Ped2)
)
SPREAD = 2  # rows above and below whose regions a row includes


@dataclass(frozen=True, eq=False)
class RowScale:
    """Mean and standard deviation of every column by row of regions, over normal training regions.

    A column that does not vary in a band is divided by 1; a stream that a band never has keeps its values.
    """

    mean: Float64[np.ndarray, "rows F"]
    sd: Float64[np.ndarray, "rows F"]

    def transform(
        self, X: Float[np.ndarray, "n F"], row: Int64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, "n F"]:
        """Standardised copy; NaN stays NaN.

        Raises:
            TristreamError: a row that the fit has not seen.
        """
        _check(row, len(self.mean))
        return (X - self.mean[row]) / self.sd[row]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays for safetensors."""
        return {"row_mean": self.mean, "row_sd": self.sd}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RowScale:
        """The inverse of `to_arrays`."""
        return cls(arrays["row_mean"], arrays["row_sd"])


def fit_row_scale(
    X: Float[np.ndarray, "n F"],
    row: Int64[np.ndarray, " n"],
    n_rows: int,
    *,
    spread: int = SPREAD,
    columns: Mapping[str, slice] | None = None,
    least_share: float = 0.0,
) -> RowScale:
    """Return the scale of normal regions; each row includes those up to `spread` rows away.

    Args:
        X: normal regions.
        row: of regions that each lies in.
        n_rows: of regions in a frame.
        spread: rows above and below whose regions a row includes.
        columns: columns of each stream.
        least_share: no column of a stream is divided by less than this part of the root mean square of its stream's
            deviations over all rows: a unit that is silent in a band would make anything there enormous.

    Raises:
        TristreamError: a row out of range, or no region in a whole band.
    """
    _check(row, n_rows)
    mean, sd = np.zeros((n_rows, X.shape[1])), np.ones((n_rows, X.shape[1]))
    for r in range(n_rows):
        band = X[np.abs(row - r) <= spread].astype(np.float64)
        if not len(band):
            raise TristreamError(
                f"row {r} of {n_rows} rows of regions has no normal region; train on videos with some"
            )
        known = ~np.isnan(band).all(axis=0)
        mean[r, known], sd[r, known] = (
            np.nanmean(band[:, known], axis=0),
            np.nanstd(band[:, known], axis=0),
        )
    for block in (columns or {}).values():
        whole = X[~np.isnan(X[:, block]).all(axis=1), block].astype(np.float64)
        if len(whole):
            sd[:, block] = np.maximum(
                sd[:, block], least_share * np.sqrt(np.mean(whole.std(axis=0) ** 2))
            )
    sd[sd <= 1e-7 * np.maximum(1e-30, np.abs(mean))] = 1.0
    return RowScale(mean, sd)


def row_extremes(
    scores: ArrayLike,
    row: Int64[np.ndarray, " n"],
    n_rows: int,
    *,
    quantile: float = QUANTILE,
    spread: int = SPREAD,
) -> Float64[np.ndarray, " rows"]:
    """Return the extreme score of each row of regions, from normal ones; scores are divided by it.

    Raises:
        TristreamError: a row out of range, no region in a band, or a negative score.
    """
    scores = np.asarray(scores, np.float64)
    _check(row, n_rows)
    if len(scores) and scores.min() < 0:
        raise TristreamError(
            f"a score is {scores.min():g}; scores that are divided by their extreme must not be negative"
        )
    extremes = np.zeros(n_rows)
    for r in range(n_rows):
        band = scores[np.abs(row - r) <= spread]
        if not len(band):
            raise TristreamError(
                f"row {r} of {n_rows} rows of regions has no normal region; train on videos with some"
            )
        extremes[r] = np.quantile(band, quantile)
    # Without a floor, a band in which nothing ever happens would make every score there infinite.
    return (
        np.maximum(extremes, 0.1 * np.median(extremes[extremes > 0]))
        if (extremes > 0).any()
        else np.ones(n_rows)
    )


def _check(row: Int64[np.ndarray, " n"], n_rows: int) -> None:
    if len(row) and not (row.min() >= 0 and row.max() < n_rows):
        bad = int(row.min() if row.min() < 0 else row.max())
        raise TristreamError(f"row {bad} of regions does not exist; there are {n_rows}")
