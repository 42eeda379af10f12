"""The primal solver for many rows against libsvm's dual on fewer, and its duality gap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC

from tristream.fusion.action import svm
from tristream.fusion.action.primal_svm import solve_primal


def clusters(n: int, *, seed: int = 0, n_classes: int = 6, width: int = 40):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(n_classes, width)) * 0.45
    y = rng.integers(n_classes, size=n)
    return centres[y] + rng.normal(size=(n, width)), y


def objective(Z, sign, C, weights, w, b) -> float:
    return float(w @ w / 2 + C * weights @ np.maximum(0, 1 - sign * (Z @ w + b)))


@pytest.mark.parametrize("C", [0.003, 0.1, 3.0])
def test_the_objective_is_that_of_libsvm_and_the_gap_bounds_the_difference(C: float) -> None:
    Z, y = clusters(1500)
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.5, 2, len(y))
    sign = np.where(y == 2, 1.0, -1.0)
    [w], [b], gap = solve_primal(Z, sign[:, None], C, weights)
    exact = SVC(kernel="linear", C=C, tol=1e-8).fit(Z, sign, sample_weight=weights)
    least = objective(Z, sign, C, weights, exact.coef_[0], exact.intercept_[0])
    reached = objective(Z, sign, C, weights, w, b)
    assert gap < 3e-3
    assert (1 - 1e-9) * least <= reached <= (1 + gap) * least + 1e-9
    assert reached <= 1.002 * least


@pytest.mark.slow
def test_many_rows_are_classified_as_the_exact_solver_classifies_them(monkeypatch) -> None:
    X, y = clusters(4000)
    fresh, truth = clusters(10_000, seed=5)
    exact = svm.fit_svm(X, y)
    monkeypatch.setattr(svm, "GRAM_ROWS", 1000)
    primal = svm.fit_svm(X, y)
    right, wanted = (np.mean(each.predict(fresh) == truth) for each in (primal, exact))
    assert abs(right - wanted) <= 0.002
    assert exact.duality_gap_ is None
    assert primal.duality_gap_ < 3e-3


def test_rows_that_can_be_separated_and_rows_that_cannot_end_with_a_gap() -> None:
    """Two points, whose widest margin is known: w = (1, 0), b = 0."""
    Z, sign = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([1.0, -1.0])
    [w], [b], gap = solve_primal(Z, sign[:, None], 10.0, np.ones(2))
    np.testing.assert_allclose(w, [1, 0], atol=5e-3)
    assert abs(b) < 1e-6
    assert gap < 1e-2
    three = np.array([[1.0], [1], [1], [-1]])
    [w], [b], gap = solve_primal(np.zeros((4, 2)), three, 1.0, np.ones(4))
    np.testing.assert_allclose(w, 0, atol=1e-9)
    assert b == pytest.approx(1, abs=5e-3)
