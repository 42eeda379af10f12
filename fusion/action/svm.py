"""Linear SVM on fused embeddings: hinge loss, L2, one class against the rest, any subset of streams."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from tristream.errors import TristreamError
from tristream.fusion.action.primal_svm import solve_primal
from tristream.fusion.standardise import LEAST_SHARE, Standardiser, check_arrays, fit_standardiser
from tristream.fusion.threads import one_thread

READINGS = ("mean_hinge", "keras", "libsvm")
GRAM_ROWS = 16_000  # up to here the Gram matrix is held (2 GB); beyond, the primal is solved


class LinearSVM(ClassifierMixin, BaseEstimator):
    """Linear SVM on embeddings of several streams, standardised stream by stream.

    It minimises |w|²/2 + C · Σ max(0, 1 − y (w·z + b)) for each class against the rest; the bias is
    not penalised. The margin of class k is `coef_[k] · z + intercept_[k]`, z the standardised
    embedding with missing streams at 0. Margins are not probabilities
    (see `fusion.action.calibration`).

    Args:
        l2: regularisation strength, the paper's 1e-2.
        columns: {stream: slice}, from `fuse_tables`; a missing stream's block is all NaN. None: one
            block without NaN.
        reading: meaning of `l2`. "mean_hinge": mean hinge + l2/2 |w|², C = 1/(n l2); "keras": mean
            hinge + l2 |w|², C = 1/(2 n l2); "libsvm": C = l2.
        stream_dropout: share of the weight of a training video with two streams or more that is on
            the video without one of them, in equal parts; no random numbers are drawn.
        standardise: False keeps the columns, for scores that are on one scale already.
        both_margins: for two classes, `decision_function` returns a margin of each class instead of
            one number that is positive for the second.

    Attributes:
        classes_: sorted classes.
        coef_: (n_classes, F).
        intercept_: (n_classes,).
        standardiser_: of the columns.
        C_: libsvm's C that `l2` means.
        duality_gap_: largest relative gap to the optimum, of fits above 16,000 rows; None below and
            for a stored classifier.

    Source: Tkachenko 2018, III-D, IV-G, V-D, where the reading is open; standardisation is ours.
    """

    classes_: Shaped[np.ndarray, "classes"]
    coef_: Float64[np.ndarray, "classes F"]
    intercept_: Float64[np.ndarray, "classes"]
    standardiser_: Standardiser
    C_: float
    duality_gap_: float | None = None

    def __init__(
        self,
        *,
        l2: float = 1e-2,
        columns: Mapping[str, slice] | None = None,
        reading: str = "mean_hinge",
        stream_dropout: float = 0.0,
        standardise: bool = True,
        both_margins: bool = False,
    ) -> None:
        self.l2 = l2
        self.columns = columns
        self.reading = reading
        self.stream_dropout = stream_dropout
        self.standardise = standardise
        self.both_margins = both_margins

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        masks: Bool[np.ndarray, "n streams"] | None = None,
    ) -> LinearSVM:
        """Fit on training embeddings.

        Args:
            X: (n, F).
            y: class of each row, of any one type.
            masks: (n, n_streams), streams to use of each row; None: those whose block is not NaN.

        Raises:
            TristreamError: one class only; l2 not above 0; an unknown reading; a stream_dropout
                outside [0, 1); y of another length; X that is not finite.
        """
        if y is None:
            raise TristreamError("LinearSVM requires y to be passed, but the target y is None")
        finite = True if self.columns is None else "allow-nan"
        X = np.asarray(validate_data(self, X, dtype=np.float64, ensure_all_finite=finite))
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        return self._fit(X, y, masks)

    def _fit(
        self, X: np.ndarray, y: ArrayLike, masks: Bool[np.ndarray, "n streams"] | None
    ) -> LinearSVM:
        classes, index = np.unique(np.asarray(y), return_inverse=True)
        if len(index) != len(X):
            raise TristreamError(f"y has {len(index)} labels; X has {len(X)} rows")
        if len(classes) < 2:
            held = f"only '{classes[0]}'" if len(classes) else "no video at all"
            raise TristreamError(
                f"the training videos hold {held}; an SVM needs two classes or more, not one class"
            )
        if not 0 <= self.stream_dropout < 1:
            raise TristreamError(
                f"stream_dropout is {self.stream_dropout}; it must be at least 0 and below 1"
            )
        self.C_ = hinge_weight(self.l2, len(X), self.reading)
        standardiser = fit_standardiser(
            X, columns=self.columns, masks=masks, least_share=LEAST_SHARE
        )
        if not self.standardise:
            zero, one = np.zeros(X.shape[1]), np.ones(X.shape[1])
            standardiser = dataclasses.replace(standardiser, mean=zero, sd=one)
        Z, weights = standardiser.transform(X, masks), np.ones(len(X))
        if self.stream_dropout:
            present = standardiser.masks(X, masks)
            rows, Z, weights = _without_a_stream(
                Z, present, standardiser.columns, self.stream_dropout
            )
            index = index[rows]
        signs = [np.where(index == k, 1.0, -1.0) for k in range(len(classes))]
        self.coef_, self.intercept_, self.duality_gap_ = _solve(Z, signs, self.C_, weights)
        self.classes_, self.standardiser_, self.n_features_in_ = classes, standardiser, X.shape[1]
        return self

    @property
    def standardiser(self) -> Standardiser:
        """Standardiser of the columns."""
        return self.standardiser_

    def decision_function(
        self, X: ArrayLike, *, masks: Bool[np.ndarray, "n streams"] | None = None
    ) -> Float64[np.ndarray, "n *classes"]:
        """Return the margin of every class (n, n_classes); of two, one number each (see both_margins).

        Args:
            X: (n, F).
            masks: streams to use of each row; None: those whose block is not NaN. Where a mask is
                False the result is bit-identical whatever the block holds.

        Raises:
            TristreamError: X or masks of another shape than in the fit; a used block that is not
                finite.
        """
        margins = self.margins(X, masks=masks)
        if len(self.classes_) == 2 and not self.both_margins:
            return margins[:, 1] - margins[:, 0]
        return margins

    def margins(
        self, X: ArrayLike, *, masks: Bool[np.ndarray, "n streams"] | None = None
    ) -> Float64[np.ndarray, "n classes"]:
        """Return the margin of every class, two classes included; the largest is the prediction."""
        check_is_fitted(self)
        if not self.both_margins:
            finite = True if self.columns is None else "allow-nan"
            X = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite=finite)
        Z = self.standardiser_.transform(np.asarray(X), masks)
        return linear_scores(Z, self.coef_, self.intercept_)

    def predict(
        self, X: ArrayLike, *, masks: Bool[np.ndarray, "n streams"] | None = None
    ) -> Shaped[np.ndarray, "n"]:
        """Return the class of the largest margin; arguments as `decision_function`."""
        best = self.margins(X, masks=masks).argmax(axis=1)
        return self.classes_[best]

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays for safetensors and the rest for JSON."""
        arrays, config = self.standardiser_.to_arrays()
        arrays |= {"coef": self.coef_, "intercept": self.intercept_}
        config |= {
            "classes": self.classes_.tolist(),
            "C": self.C_,
            "l2": self.l2,
            "reading": self.reading,
        }
        return arrays, config

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> LinearSVM:
        """Return what `to_arrays` stored; predictions are bit-identical.

        Raises:
            TristreamError: an array is missing, of another shape, or not finite.
        """
        standardiser = Standardiser.from_arrays(arrays, config)
        classes = np.asarray(config["classes"])
        shape = (len(classes), len(standardiser.mean))
        check_arrays(arrays, {"coef": shape, "intercept": shape[:1]})
        svm = cls(
            l2=config["l2"],
            columns=standardiser.columns,
            reading=config["reading"],
            both_margins=True,
        )
        svm.classes_, svm.standardiser_ = classes, standardiser
        svm.coef_, svm.intercept_ = arrays["coef"], arrays["intercept"]
        svm.C_, svm.n_features_in_ = config["C"], shape[1]
        return svm


def fit_svm(
    X: Float[np.ndarray, "n F"],
    y: ArrayLike,
    *,
    l2: float = 1e-2,
    columns: Mapping[str, slice] | None = None,
    masks: Bool[np.ndarray, "n streams"] | None = None,
    reading: str = "mean_hinge",
    stream_dropout: float = 0.0,
    standardise: bool = True,
) -> LinearSVM:
    """Return a fitted `LinearSVM` with a margin of each class, of two classes too.

    Args:
        X: training embeddings; with `columns`, a missing stream's block is all NaN.
        y: class of each row, of any one type; `classes_` is its sorted set.
        masks: streams to use of each row; None: those whose block is not NaN.
        l2, columns, reading, stream_dropout, standardise: as `LinearSVM`.

    Raises:
        TristreamError: as `LinearSVM.fit`.
    """
    svm = LinearSVM(
        l2=l2,
        columns=columns,
        reading=reading,
        stream_dropout=stream_dropout,
        standardise=standardise,
        both_margins=True,
    )
    return svm._fit(X, y, masks)


def hinge_weight(l2: float, n: int, reading: str) -> float:
    """libsvm's C for `l2` under one of the three readings of the paper's "regularisation parameter".

    Raises:
        TristreamError: l2 not above 0; an unknown reading.
    """
    if not l2 > 0:
        raise TristreamError(f"l2 is {l2}; it must be above 0")
    if reading not in READINGS:
        raise TristreamError(f"unknown reading '{reading}'; available: {', '.join(READINGS)}")
    return {"mean_hinge": 1 / (n * l2), "keras": 1 / (2 * n * l2), "libsvm": l2}[reading]


def linear_scores(
    Z: Float64[np.ndarray, "n F"],
    coef: Float64[np.ndarray, "classes F"],
    intercept: Float64[np.ndarray, "classes"],
) -> Float64[np.ndarray, "n classes"]:
    """Z coefᵀ + intercept, one product a row: a video's scores do not depend on the others, bit for bit."""
    scores = np.empty((len(Z), len(coef)))
    with one_thread():
        for row, z in enumerate(Z):
            scores[row] = coef @ z
    return scores + intercept


def choose_l2(
    X: Float[np.ndarray, "n F"],
    y: ArrayLike,
    groups: ArrayLike,
    *,
    candidates: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    columns: Mapping[str, slice] | None = None,
    masks: Bool[np.ndarray, "n streams"] | None = None,
    stream_dropout: float = 0.0,
    n_folds: int = 5,
) -> tuple[float, dict[float, float]]:
    """The l2 of best accuracy in cross-validation that never splits a group, and the accuracy of every candidate.

    Among equals the strongest regularisation wins. Reading 'mean_hinge', whose meaning does not move with the number
    of rows, so that what is chosen on folds holds for the whole.

    Raises:
        TristreamError: fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    y, groups = np.asarray(y), np.asarray(groups)
    if (n_groups := len(np.unique(groups))) < n_folds:
        raise TristreamError(
            f"{n_groups} groups cannot make {n_folds} folds; set fusion.select=fixed and fusion.l2"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="The least populated class"
        )  # a class in few folds still counts
        folds = list(
            StratifiedGroupKFold(n_folds, shuffle=True, random_state=0).split(X, y, groups)
        )
    accuracy = {}
    for l2 in candidates:
        hits = np.zeros(len(y), dtype=bool)
        for fit, held_out in folds:
            kept = None if masks is None else masks[fit]
            svm = fit_svm(
                X[fit], y[fit], l2=l2, columns=columns, masks=kept, stream_dropout=stream_dropout
            )
            hits[held_out] = (
                svm.predict(X[held_out], masks=None if masks is None else masks[held_out])
                == y[held_out]
            )
        accuracy[l2] = float(hits.mean())
    return max(candidates, key=lambda l2: (accuracy[l2], l2)), accuracy


def _without_a_stream(
    Z: Float64[np.ndarray, "n F"],
    masks: Bool[np.ndarray, "n streams"],
    columns: Mapping[str, slice],
    share: float,
) -> tuple[Int[np.ndarray, "m"], Float64[np.ndarray, "m F"], Float64[np.ndarray, "m"]]:
    """Every video as it is and with each of its streams withheld: its row, the embedding, the weight.

    The weights of one video sum to 1.
    """
    n_streams = masks.sum(axis=1)
    rows, blocks, weights = [np.arange(len(Z))], [Z], [np.where(n_streams > 1, 1 - share, 1.0)]
    for s, block in enumerate(columns.values()):
        having = np.flatnonzero(masks[:, s] & (n_streams > 1))
        less = Z[having]
        less[:, block] = 0
        rows.append(having)
        blocks.append(less)
        weights.append(share / n_streams[having])
    return np.concatenate(rows), np.concatenate(blocks), np.concatenate(weights)


def _solve(
    Z: Float64[np.ndarray, "n F"],
    signs: list[Float64[np.ndarray, "n"]],
    C: float,
    weights: Float64[np.ndarray, "n"],
) -> tuple[Float64[np.ndarray, "classes F"], Float64[np.ndarray, "classes"], float | None]:
    """Return weights and bias of one classifier per sign vector, by libsvm's dual on a shared Gram matrix.

    Above 16,000 rows they are found in the primal; the third value is then the largest duality gap.

    Why not `LinearSVC`: with a hinge its coordinate descent is still far from the optimum after 3,000 passes (up to
    twice the optimum, in 40 times the time, on 320 x 384 and 2,000 x 3,072 with 16 classes), and penalises the bias.
    """
    from sklearn.svm import SVC

    coef, intercept = np.zeros((len(signs), Z.shape[1])), np.zeros(len(signs))
    if len(Z) > GRAM_ROWS:
        return solve_primal(Z, np.stack(signs, axis=1), C, weights)
    with one_thread():
        gram = Z @ Z.T
    for k, sign in enumerate(signs):
        machine = SVC(kernel="precomputed", C=C, tol=1e-4).fit(gram, sign, sample_weight=weights)
        coef[k] = machine.dual_coef_[0] @ Z[machine.support_]
        intercept[k] = machine.intercept_[0]
    return coef, intercept, None
