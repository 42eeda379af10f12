"""Softmax head on fused embeddings: what the SVM is held against, fitted in the same space with the same masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.action.score_fusion import softmax
from tristream.fusion.action.svm import linear_scores
from tristream.fusion.standardise import LEAST_SHARE, Standardiser, fit_standardiser
from tristream.fusion.threads import one_thread


@dataclass(frozen=True, eq=False)
class SoftmaxHead:
    """A fitted multinomial logistic regression with the standardiser it needs."""

    classes_: Shaped[np.ndarray, "classes"]
    coef_: Float64[np.ndarray, "classes F"]
    intercept_: Float64[np.ndarray, "classes"]
    standardiser: Standardiser

    def decision_function(
        self, X: Float[np.ndarray, "n F"], *, masks: Bool[np.ndarray, "n streams"] | None = None
    ) -> Float64[np.ndarray, "n classes"]:
        """Logits; arguments, errors and the independence of what a masked block holds as in `LinearSVM`."""
        return linear_scores(self.standardiser.transform(X, masks), self.coef_, self.intercept_)

    def probabilities(
        self, X: Float[np.ndarray, "n F"], *, masks: Bool[np.ndarray, "n streams"] | None = None
    ) -> Float64[np.ndarray, "n classes"]:
        """Softmax of the logits."""
        return softmax(self.decision_function(X, masks=masks))

    def predict(
        self, X: Float[np.ndarray, "n F"], *, masks: Bool[np.ndarray, "n streams"] | None = None
    ) -> Shaped[np.ndarray, "n"]:
        """The class of the largest logit."""
        return self.classes_[self.decision_function(X, masks=masks).argmax(axis=1)]


def fit_softmax(
    X: Float[np.ndarray, "n F"],
    y: ArrayLike,
    *,
    l2: float = 1e-2,
    columns: Mapping[str, slice] | None = None,
    masks: Bool[np.ndarray, "n streams"] | None = None,
) -> SoftmaxHead:
    """Softmax head that minimises mean cross-entropy + l2/2 |w|²; the bias is not penalised.

    Arguments as `fit_svm`, and `l2` as its reading 'mean_hinge': with the same number the two differ in the loss alone.

    Raises:
        TristreamError: one class only; l2 not above 0; y of another length; X that is not finite.
    """
    from sklearn.linear_model import LogisticRegression

    y = np.asarray(y)
    if len(y) != len(X):
        raise TristreamError(f"y has {len(y)} labels; X has {len(X)} rows")
    if len(np.unique(y)) < 2:
        raise TristreamError(
            f"the training videos hold {len(np.unique(y))} class; a softmax head needs two or more"
        )
    if not l2 > 0:
        raise TristreamError(f"l2 is {l2}; it must be above 0")
    standardiser = fit_standardiser(X, columns=columns, masks=masks, least_share=LEAST_SHARE)
    Z = standardiser.transform(X, masks)
    with one_thread():
        fitted = LogisticRegression(C=1 / (len(X) * l2), tol=1e-6, max_iter=2000).fit(Z, y)
    coef, intercept = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn keeps the difference of the two logits
        coef, intercept = np.vstack([-coef / 2, coef / 2]), np.r_[-intercept / 2, intercept / 2]
    return SoftmaxHead(fitted.classes_, coef, intercept, standardiser)
