"""Split of normal videos into those to learn from and those to set the threshold on."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from tristream.errors import TristreamError

MIN_ROWS_TO_HOLD_OUT = 10


def split_normal(
    X: Float64[np.ndarray, "n F"],
    X_val: Float64[np.ndarray, "v F"] | None,
    rng: np.random.RandomState,
) -> tuple[Float64[np.ndarray, "train F"], Float64[np.ndarray, "held_out F"], list[str]]:
    """Return the rows to learn from, the rows to validate on, and remarks.

    Rows that are NaN throughout have no stream at all and are skipped. Without X_val every fifth row of X, drawn at
    random, is held out; below 10 rows none is, and the rows learned from serve twice.

    Raises:
        TristreamError: fewer than 2 rows to learn from, or none to validate on.
    """
    remarks: list[str] = []
    rows = _with_streams(X, "normal", remarks)
    if len(rows) < 2:
        raise TristreamError(
            f"there is {len(rows)} normal video (n_samples = {len(rows)}); a detector needs 2 or more"
        )
    if X_val is not None:
        held_out = _with_streams(X_val, "validation", remarks)
        if not len(held_out):
            raise TristreamError(
                f"none of the {len(X_val)} normal validation videos has a stream; a threshold needs some"
            )
    elif len(rows) >= MIN_ROWS_TO_HOLD_OUT:
        order = rng.permutation(len(rows))
        held_out, rows = rows[order[: len(rows) // 5]], rows[order[len(rows) // 5 :]]
    else:
        held_out = rows
        remarks.append(
            f"only {len(rows)} normal videos: the threshold comes from the videos trained on, and is too low"
        )
    return rows, held_out, remarks


def _with_streams(
    X: Float64[np.ndarray, "n F"], kind: str, remarks: list[str]
) -> Float64[np.ndarray, "kept F"]:
    empty = np.isnan(X).all(axis=1)
    if empty.any():
        remarks.append(
            f"{int(empty.sum())} of {len(X)} {kind} videos have no stream at all and are skipped"
        )
    return X[~empty]
