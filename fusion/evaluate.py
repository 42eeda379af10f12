"""Quality of labels and anomaly scores: accuracy, top-k, confusion, ROC, precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.intervals import LEAST_GROUPS, Estimate, mean_interval


def top_k_hits(
    labels: ArrayLike, scores: Float[np.ndarray, "n classes"], *, k: int, classes: ArrayLike
) -> Bool[np.ndarray, "n"]:
    """True for each video whose label is among its k highest scores.

    Among equal scores the lower class index comes first, so that k = 1 is `argmax`. A label that is not in `classes`
    is a miss.

    Raises:
        TristreamError: k below 1, scores that are NaN, or another number of labels or classes than scores.
    """
    labels, classes = np.asarray(labels), np.asarray(classes)
    if scores.shape != (len(labels), len(classes)):
        raise TristreamError(
            f"scores are {scores.shape}; {len(labels)} labels and {len(classes)} classes do not fit them"
        )
    if k < 1:
        raise TristreamError(f"k is {k}; it must be at least 1")
    if np.isnan(scores).any():
        raise TristreamError(
            f"row {int(np.argmax(np.isnan(scores).any(axis=1)))} has a score that is NaN"
        )
    is_true = labels[:, None] == classes  # (n, classes)
    known = is_true.any(axis=1)
    true = is_true.argmax(axis=1)
    own = scores[np.arange(len(labels)), true][:, None]
    earlier = np.arange(len(classes)) < true[:, None]
    rank = (scores > own).sum(axis=1) + ((scores == own) & earlier).sum(axis=1)
    return known & (rank < k)


def top_k_accuracy(
    labels: ArrayLike, scores: Float[np.ndarray, "n classes"], *, k: int, classes: ArrayLike
) -> float:
    """Share of videos whose label is among their k highest scores; arguments and errors as `top_k_hits`."""
    return float(top_k_hits(labels, scores, k=k, classes=classes).mean())


def per_class_accuracy(labels: ArrayLike, predictions: ArrayLike) -> dict[object, float]:
    """Return {class: accuracy}, for the classes that occur in `labels`, sorted."""
    labels, hits = np.asarray(labels), np.asarray(labels) == np.asarray(predictions)
    return {name: float(hits[labels == name].mean()) for name in np.unique(labels).tolist()}


def mean_class_accuracy(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Mean of `per_class_accuracy`: every class has the same weight."""
    return float(np.mean(list(per_class_accuracy(labels, predictions).values())))


@dataclass(frozen=True)
class ClassFigures:
    """Figures of one class on the test videos.

    Attributes:
        n: its videos.
        accuracy: share of them that was named rightly (recall).
        precision: share of what was named so that is of the class; None where nothing was.
    """

    label: str
    n: int
    accuracy: Estimate
    precision: float | None


def class_figures(
    labels: ArrayLike, predictions: ArrayLike, groups: ArrayLike, *, seed: int = 0
) -> list[ClassFigures]:
    """Accuracy with its interval over groups, and precision, of every class that occurs in `labels`, sorted.

    The interval of a class with fewer than five groups has NaN bounds: it would say nothing.
    """
    labels, predictions, groups = np.asarray(labels), np.asarray(predictions), np.asarray(groups)
    hits = labels == predictions
    figures = []
    for name in np.unique(labels).tolist():
        own, called = labels == name, predictions == name
        accuracy = mean_interval(hits[own], groups[own], seed=seed)
        if accuracy.n_groups < LEAST_GROUPS:
            accuracy = replace(accuracy, low=float("nan"), high=float("nan"))
        precision = float(hits[called].mean()) if called.any() else None
        figures.append(ClassFigures(name, int(own.sum()), accuracy, precision))
    return figures


def confusion(
    labels: ArrayLike, predictions: ArrayLike, *, classes: ArrayLike
) -> Int[np.ndarray, "classes classes"]:
    """Number of videos of class i (row) that were named j (column), in the order of `classes`."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, predictions, labels=np.asarray(classes))


@dataclass(frozen=True)
class HardVideo:
    """One video and how far its true class was from being named (negative: wrong by that much)."""

    video_id: str
    label: object
    named: object
    margin: float


def hardest_videos(
    video_ids: Sequence[str],
    labels: ArrayLike,
    scores: Float[np.ndarray, "n classes"],
    *,
    classes: ArrayLike,
    n_videos: int = 20,
) -> list[HardVideo]:
    """Videos by score of the true class minus the best other, worst first; a label not in `classes` has −inf."""
    labels, classes = np.asarray(labels), np.asarray(classes)
    is_true = labels[:, None] == classes
    own = np.where(is_true, scores, -np.inf).max(axis=1)
    margin = own - np.where(is_true, -np.inf, scores).max(axis=1)
    predicted = classes[scores.argmax(axis=1)]
    worst = np.argsort(margin, kind="stable")[:n_videos]
    return [
        HardVideo(video_ids[i], labels[i].item(), predicted[i].item(), float(margin[i]))
        for i in worst
    ]


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Chance that an abnormal video scores above a normal one; a tie counts 1/2.

    Args:
        labels: 1 or True for abnormal, 0 or False for normal.
        scores: higher = more anomalous.

    Raises:
        TristreamError: labels of one kind only, labels other than 0 and 1, lengths that differ, scores
            that are not finite.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_labels_and_scores(labels, scores)))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean precision over the recall steps, without interpolation; a random score gives `labels.mean()`.

    Arguments and errors as `auroc`.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_labels_and_scores(labels, scores)))


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> float:
    """Error at which as large a share of normal videos alarms as of abnormal ones does not.

    Convention: linear interpolation of the ROC curve. (torchmetrics takes the nearest threshold and averages its two
    error rates, which gives another number where the two do not meet.) Arguments and errors as `auroc`.
    """
    false_positive, true_positive = _roc(labels, scores)
    gap = false_positive - (1 - true_positive)  # from -1 up to 1
    after = int(np.argmax(gap >= 0))
    before = after - 1
    share = -gap[before] / (gap[after] - gap[before])
    return float(false_positive[before] + share * (false_positive[after] - false_positive[before]))


def false_positive_rate_at_tpr(labels: ArrayLike, scores: ArrayLike, *, tpr: float = 0.95) -> float:
    """Smallest share of normal videos that alarm at a threshold where at least `tpr` of the abnormal ones do.

    Arguments and errors as `auroc`.
    """
    false_positive, true_positive = _roc(labels, scores)
    return float(false_positive[true_positive >= tpr - 1e-12].min())


@dataclass(frozen=True)
class FrameAuroc:
    """AUROC of frame scores, in the two ways papers mean it.

    Attributes:
        micro: over all frames of all videos together.
        macro: mean over the videos where it is defined; NaN where there is none.
        n_undefined: videos whose frames are all normal or all abnormal.
    """

    micro: float
    macro: float
    n_undefined: int


def frame_auroc(labels: Sequence[ArrayLike], scores: Sequence[ArrayLike]) -> FrameAuroc:
    """Micro and macro AUROC; one array of labels and one of scores per video; no per-video rescaling.

    Raises:
        TristreamError: as `auroc`, for all frames together.
    """
    flat_labels, flat_scores = (
        np.concatenate([np.asarray(x) for x in labels]),
        np.concatenate([np.asarray(x) for x in scores]),
    )
    defined = [
        (y, s) for y, s in zip(labels, scores, strict=True) if 0 < np.mean(np.asarray(y)) < 1
    ]
    return FrameAuroc(
        micro=auroc(flat_labels, flat_scores),
        macro=float(np.mean([auroc(y, s) for y, s in defined])) if defined else float("nan"),
        n_undefined=len(labels) - len(defined),
    )


def _roc(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]:
    from sklearn.metrics import roc_curve

    false_positive, true_positive, _ = roc_curve(
        *_labels_and_scores(labels, scores), drop_intermediate=False
    )
    return false_positive, true_positive


def _labels_and_scores(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[Shaped[np.ndarray, "n"], Shaped[np.ndarray, "n"]]:
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise TristreamError(
            f"labels are {labels.shape} and scores {scores.shape}; both must be one value per video"
        )
    if not np.isin(labels, (0, 1)).all():
        raise TristreamError(
            f"labels hold {labels[~np.isin(labels, (0, 1))][0]}; they must be 1 (abnormal) or 0 (normal)"
        )
    if not np.isfinite(scores).all():
        row = int(np.argmax(~np.isfinite(scores)))
        raise TristreamError(f"the score of row {row} is {scores[row]}; scores must be finite")
    labels = labels.astype(np.int64)
    n_abnormal = int(labels.sum())
    if n_abnormal in (0, len(labels)):
        raise TristreamError(
            f"labels hold {n_abnormal} abnormal and {len(labels) - n_abnormal} normal; both are needed"
        )
    return labels, scores
