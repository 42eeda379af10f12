from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tristream.fusion.action.softmax_head import fit_softmax

COLUMNS = {"one": slice(0, 4), "two": slice(4, 9)}


def blobs(n: int = 60, *, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return (rng.normal(size=(n_classes, 9))[y] + rng.normal(size=(n, 9))) * rng.uniform(
        0.1, 50, 9
    ), y


def test_it_reaches_the_optimum_of_mean_cross_entropy_plus_half_l2() -> None:
    X, y = blobs()
    Z, onehot = StandardScaler().fit_transform(X), np.eye(3)[y]

    def objective(v: np.ndarray) -> float:
        w, b = v[:27].reshape(3, 9), v[27:]
        logits = Z @ w.T + b
        top = logits.max(axis=1, keepdims=True)
        log_p = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        return float(-(onehot * log_p).sum(axis=1).mean() + 0.5e-1 * (w**2).sum())

    head = fit_softmax(X, y, l2=1e-1)
    best = minimize(objective, np.zeros(30)).fun
    assert objective(np.r_[head.coef_.ravel(), head.intercept_]) <= best + 1e-6


@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_equal_scikit_learn_s(n_classes: int) -> None:
    X, y = blobs(n_classes=n_classes)
    scaler = StandardScaler().fit(X)
    reference = LogisticRegression(C=1 / (60 * 1e-2), tol=1e-8, max_iter=5000).fit(
        scaler.transform(X), y
    )
    found = fit_softmax(X, y).probabilities(X)
    np.testing.assert_allclose(found, reference.predict_proba(scaler.transform(X)), atol=1e-4)
    assert (fit_softmax(X, y).predict(X) == reference.predict(scaler.transform(X))).all()


@pytest.mark.parametrize("content", [np.nan, np.inf, 1e30])
def test_a_masked_stream_changes_nothing_whatever_it_holds(content: float) -> None:
    X, y = blobs()
    head = fit_softmax(X, y, columns=COLUMNS)
    masks = np.random.default_rng(1).random((60, 2)) < 0.5
    other = X.copy()
    for s, block in enumerate(COLUMNS.values()):
        other[~masks[:, s], block] = content
    assert np.array_equal(
        head.decision_function(X, masks=masks), head.decision_function(other, masks=masks)
    )


def test_bad_input_is_named() -> None:
    X, y = blobs()
    with pytest.raises(ValueError, match=r"y has 59 labels; X has 60 rows"):
        fit_softmax(X, y[:59])
    with pytest.raises(ValueError, match=r"training videos hold 1 class; a softmax head needs two"):
        fit_softmax(X, np.zeros(60))
    with pytest.raises(ValueError, match=r"l2 is -1; it must be above 0"):
        fit_softmax(X, y, l2=-1)
