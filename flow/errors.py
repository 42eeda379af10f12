"""Errors of estimated flow: endpoint error, outliers, Fl-all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tristream.errors import TristreamError


@dataclass(frozen=True)
class FlowErrors:
    """Errors over all pixels with known ground truth.

    Attributes:
        n_pixels: how many they are.
        endpoint_px: mean length of the difference (EPE).
        above_1_px, above_3_px, above_5_px: share of pixels that are further off, 0 to 1.
        fl_all: share that is off by more than 3 px and more than 5 % of the true length (KITTI 2015).
    """

    n_pixels: int
    endpoint_px: float
    above_1_px: float
    above_3_px: float
    above_5_px: float
    fl_all: float


def measure(found: Float[np.ndarray, "..."], truth: Float[np.ndarray, "..."]) -> FlowErrors:
    """Return the errors over all fields together, (…, 2, H, W) each; pixels whose ground truth is NaN are left out.

    Raises:
        TristreamError: another shape, no pixel whose truth is known, or flow that is not finite where it is.
    """
    if found.shape != truth.shape:
        raise TristreamError(
            f"flow of shape {found.shape} cannot be compared with a truth of shape {truth.shape}"
        )
    length = np.linalg.norm(truth.astype(np.float64), axis=-3)
    off = np.linalg.norm(found.astype(np.float64) - truth, axis=-3)
    known = np.isfinite(length)
    length, off = length[known], off[known]
    if not len(off):
        raise TristreamError(f"the truth of shape {truth.shape} has no pixel that is known")
    n_wild = np.count_nonzero(~np.isfinite(off))
    if n_wild:
        raise TristreamError(
            f"flow is not finite at {n_wild} of {len(off)} pixels whose truth is known"
        )
    return FlowErrors(
        n_pixels=len(off),
        endpoint_px=float(off.mean()),
        above_1_px=float((off > 1).mean()),
        above_3_px=float((off > 3).mean()),
        above_5_px=float((off > 5).mean()),
        fl_all=float(((off > 3) & (off > 0.05 * length)).mean()),
    )
