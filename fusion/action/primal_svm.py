"""Linear SVM of many rows in the primal: a smoothed hinge, minimised by L-BFGS, and its duality gap."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

SMOOTHINGS = (0.3, 0.03, 0.003, 0.0005)  # widths of the quadratic part, one after the other
MOST_STEPS = 200  # of L-BFGS, for each width
TOLERANCE = 1e-9  # relative decrease of the objective that ends a width


def solve_primal(
    Z: Float64[np.ndarray, "n F"],
    signs: Float64[np.ndarray, "n classes"],
    C: float,
    weights: Float64[np.ndarray, "n"],
) -> tuple[Float64[np.ndarray, "classes F"], Float64[np.ndarray, "classes"], float]:
    """Return weights and biases of one classifier per column of signs, and the largest duality gap.

    Each minimises |w|²/2 + C · Σ weight · max(0, 1 − y (w·z + b)) with the hinge rounded over ever
    smaller widths; the solution of one width starts the next. All classifiers are solved together,
    so that each step is one product with Z. Work and memory grow with n · F; the dual needs n².

    Args:
        Z: standardised embeddings.
        signs: +1 or −1.
        C: weight of the hinge.
        weights: of the rows.

    Returns:
        (W, b, gap): each true objective is at most `gap` times itself above its minimum.

    Source: Chapelle 2007, Training a Support Vector Machine in the Primal; Nesterov 2005.
    """
    from scipy.optimize import minimize

    n_classes, width = signs.shape[1], Z.shape[1]
    scale = (C * weights)[:, None]
    start = np.zeros((n_classes, width + 1))

    def shortfall(x: np.ndarray) -> np.ndarray:
        return 1 - signs * (Z @ x[:, :-1].T + x[:, -1])  # (n, classes)

    for rounding in SMOOTHINGS:

        def cost(flat: np.ndarray, rounding: float = rounding) -> tuple[float, np.ndarray]:
            x = flat.reshape(n_classes, width + 1)
            short = shortfall(x)
            slope = np.clip(short / rounding + 0.5, 0, 1)  # of the rounded hinge
            hinge = np.where(slope < 1, rounding / 2 * slope**2, short)
            pull = scale * slope * signs
            gradient = np.hstack([x[:, :-1] - pull.T @ Z, -pull.sum(axis=0)[:, None]])
            return np.square(x[:, :-1]).sum() / 2 + (scale * hinge).sum(), gradient.ravel()

        found = minimize(
            cost, start.ravel(), jac=True, method="L-BFGS-B",
            options={"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "ftol": TOLERANCE, "gtol": 1e-9},
        )  # fmt: skip
        start = found.x.reshape(n_classes, width + 1)
    W, b = start[:, :-1], start[:, -1]
    short = shortfall(start)
    primal = np.square(W).sum(axis=1) / 2 + (scale * np.maximum(short, 0)).sum(axis=0)
    alpha = scale * np.clip(short / SMOOTHINGS[-1] + 0.5, 0, 1)
    dual = [_dual(Z, signs[:, k], alpha[:, k], scale[:, 0]) for k in range(n_classes)]
    gap = np.max((primal - dual) / np.maximum(primal, 1e-300))
    return W, b, float(max(gap, 0.0))


def _dual(Z: np.ndarray, sign: np.ndarray, alpha: np.ndarray, most: np.ndarray) -> float:
    """Return the dual objective at a feasible point near `alpha`: 0 ≤ α ≤ most, Σ α y = 0."""
    surplus = float(alpha @ sign)
    side = sign == np.sign(surplus)
    held = float(alpha[side].sum())
    if surplus and held > abs(surplus):  # the heavier side is scaled down
        alpha = np.where(side, alpha * (1 - abs(surplus) / held), alpha)
    elif surplus:
        return 0.0
    alpha = np.clip(alpha, 0, most)
    w = (alpha * sign) @ Z
    return float(alpha.sum() - w @ w / 2)
