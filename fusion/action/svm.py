"""Linear SVM on fused embeddings: hinge loss, L2, one class against the rest, any subset of streams per video."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.standardise import LEAST_SHARE, Standardiser, check_arrays, fit_standardiser
from tristream.fusion.threads import one_thread

READINGS = ("mean_hinge", "keras", "libsvm")
GRAM_ROWS = 16_000  # up to here the Gram matrix is held whole (2 GB); beyond, its columns come and go, slower


@dataclass(frozen=True, eq=False)
class LinearSVM:
    """A fitted linear SVM with the standardiser it needs.

    The margin of class k is `coef_[k] · z + intercept_[k]`, z the standardised embedding with missing streams at 0.
    Margins are not probabilities (see `fusion.action.calibration`).

    Attributes:
        C_: what `l2` means as libsvm's C under `reading`.
    """

    classes_: Shaped[np.ndarray, "classes"]
    coef_: Float64[np.ndarray, "classes F"]
    intercept_: Float64[np.ndarray, "classes"]
    standardiser: Standardiser
    C_: float
    l2: float
    reading: str

    def decision_function(
        self, X: Float[np.ndarray, "n F"], *, masks: Bool[np.ndarray, "n streams"] | None = None
    ) -> Float64[np.ndarray, "n classes"]:
        """Margin of every class, two classes included; the largest names the class.

        Args:
            masks: which streams of which video to use; None: those whose block is not NaN. Where the mask is False
                the result is bit-identical whatever the block holds.

        Raises:
            TristreamError: X or masks of another shape than the fit has seen; a used block that is not finite.
        """
        return linear_scores(self.standardiser.transform(X, masks), self.coef_, self.intercept_)

    def predict(
        self, X: Float[np.ndarray, "n F"], *, masks: Bool[np.ndarray, "n streams"] | None = None
    ) -> Shaped[np.ndarray, "n"]:
        """The class of the largest margin; arguments as `decision_function`."""
        return self.classes_[self.decision_function(X, masks=masks).argmax(axis=1)]

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays for safetensors and the rest for JSON."""
        arrays, config = self.standardiser.to_arrays()
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
        """The inverse of `to_arrays`; predictions are bit-identical.

        Raises:
            TristreamError: an array is absent, of another shape, or not finite.
        """
        standardiser, classes = (
            Standardiser.from_arrays(arrays, config),
            np.asarray(config["classes"]),
        )
        shape = (len(classes), len(standardiser.mean))
        check_arrays(arrays, {"coef": shape, "intercept": shape[:1]})
        return cls(
            classes_=classes,
            coef_=arrays["coef"],
            intercept_=arrays["intercept"],
            standardiser=standardiser,
            C_=config["C"],
            l2=config["l2"],
            reading=config["reading"],
        )


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
    """Linear SVM that minimises |w|²/2 + C · Σ max(0, 1 − y (w·z + b)) for each class against the rest.

    The bias is not penalised. Each stream is standardised on the training videos that have it, columns that hardly vary
    beside the others of their stream excepted (`LEAST_SHARE`); a missing stream is 0 afterwards, neither zeros nor
    noise in the raw space.

    Args:
        X: training embeddings; with `columns`, a missing stream's block is all NaN.
        y: class of each row, of any one type; `classes_` is its sorted set.
        l2: regularisation strength, the paper's 1e-2.
        columns: which columns are whose, from `fuse_tables`. None: one block, in which NaN is an error.
        masks: which streams of which video to use; None: those whose block is not NaN.
        reading: what `l2` multiplies. 'mean_hinge': mean hinge + l2/2 |w|², C = 1/(n l2); 'keras': mean hinge +
            l2 |w|², C = 1/(2 n l2); 'libsvm': C = l2.
        stream_dropout: how often a training video that has two streams or more is seen without one of them, each as
            often as the others. No dice are thrown: the mean of the hinge loss over them is minimised exactly.
        standardise: False leaves the columns as they are, for scores that are on one scale already.

    Raises:
        TristreamError: one class only; l2 not above 0; an unknown reading; a stream_dropout outside [0, 1);
            y of another length; X that is not finite.

    Source: Tkachenko 2018, III-D, IV-G, V-D, where the reading is open; standardisation is our choice.
    """
    classes, index = np.unique(np.asarray(y), return_inverse=True)
    if len(index) != len(X):
        raise TristreamError(f"y has {len(index)} labels; X has {len(X)} rows")
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if len(classes) else "no video at all"
        raise TristreamError(f"the training videos hold {found}; an SVM needs two classes or more")
    if not 0 <= stream_dropout < 1:
        raise TristreamError(
            f"stream_dropout is {stream_dropout}; it must be at least 0 and below 1"
        )
    C = hinge_weight(l2, len(X), reading)
    standardiser = fit_standardiser(X, columns=columns, masks=masks, least_share=LEAST_SHARE)
    if not standardise:
        zero, one = np.zeros(X.shape[1]), np.ones(X.shape[1])
        standardiser = dataclasses.replace(standardiser, mean=zero, sd=one)
    Z, weights = standardiser.transform(X, masks), np.ones(len(X))
    if stream_dropout:
        rows, Z, weights = _without_a_stream(
            Z, standardiser.masks(X, masks), standardiser.columns, stream_dropout
        )
        index = index[rows]
    coef, intercept = _solve(
        Z, [np.where(index == k, 1.0, -1.0) for k in range(len(classes))], C, weights
    )
    return LinearSVM(classes, coef, intercept, standardiser, C, l2, reading)


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
    """Z coefᵀ + intercept, one product a row: what a video gets does not depend on its mates, bit for bit."""
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
) -> tuple[Float64[np.ndarray, "classes F"], Float64[np.ndarray, "classes"]]:
    """Weights and biases of one machine per sign vector, by libsvm's dual on one Gram matrix that all of them share.

    Why not `LinearSVC`: with a hinge its coordinate descent is still far from the optimum after 3,000 passes (up to
    twice the optimum, in 40 times the time, on 320 x 384 and 2,000 x 3,072 with 16 classes), and penalises the bias.
    """
    from sklearn.svm import SVC

    shared = len(Z) <= GRAM_ROWS
    with one_thread():
        kernel, matrix = ("precomputed", Z @ Z.T) if shared else ("linear", Z)
    coef, intercept = np.zeros((len(signs), Z.shape[1])), np.zeros(len(signs))
    for k, sign in enumerate(signs):
        machine = SVC(kernel=kernel, C=C, tol=1e-4).fit(matrix, sign, sample_weight=weights)
        coef[k] = machine.dual_coef_[0] @ Z[machine.support_]
        intercept[k] = machine.intercept_[0]
    return coef, intercept
