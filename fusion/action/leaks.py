"""Leaks between splits: shared sources, near duplicates, classes told by the presence of streams."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.action.near_pairs import expected_recall, near_pairs
from tristream.fusion.intervals import Estimate, mean_interval, paired_difference
from tristream.fusion.nearest import cosines
from tristream.fusion.standardise import (
    Standardiser,
    check_columns,
    fit_standardiser,
    present_blocks,
)

MOST_COMPARED = 20_000  # videos of which all pairs are compared; above, pairs are hashed
MIN_CLASS = 5  # videos: a mean of fewer is too much their own
ALONE_IS_STRICTER = (
    50  # one stream's embeddings of 128 columns are often alike to .99, copies or not
)


@dataclass(frozen=True)
class PresenceGauge:
    """Accuracy of predicting the class from nothing but the presence of streams.

    Attributes:
        accuracy: on test videos, of the commonest training class of each pattern of present streams.
        majority: on test videos, of the commonest training class alone.
        gain: accuracy − majority, paired.
        words: sentence that follows the interval of the gain.
        train_gain: the same gain by cross-validation over groups of train; None where the training
            videos all have the same streams, or there are fewer than two groups.
    """

    accuracy: Estimate
    majority: float
    gain: Estimate
    words: str
    train_gain: Estimate | None = None


def presence_gauge(
    masks: Bool[np.ndarray, "n streams"],
    *,
    labels: ArrayLike,
    splits: ArrayLike,
    groups: ArrayLike,
    seed: int = 0,
) -> PresenceGauge:
    """The leak gauge: a classifier that sees the masks only, trained on `train` and measured on `test`.

    Raises:
        TristreamError: no labelled video in train or in test.
    """
    labels, splits, groups = np.asarray(labels), np.asarray(splits), np.asarray(groups)
    train, test = (
        np.flatnonzero((splits == split) & (labels != "")) for split in ("train", "test")
    )
    if not len(train) or not len(test):
        raise TristreamError(
            f"there are {len(train)} labelled training and {len(test)} test videos; both are needed"
        )
    patterns = np.array([row.tobytes().hex() for row in np.asarray(masks)])
    hits, plain = _by_presence(patterns, labels, train, test)
    accuracy = mean_interval(hits, groups[test], seed=seed)
    gain = paired_difference(hits, plain, groups[test], seed=seed)
    train_gain = _train_gain(patterns, labels, groups, train, seed)
    commonest = _commonest(labels[train])
    figures = (
        f"{100 * accuracy.value:.1f} % against {100 * plain.mean():.1f} % for always '{commonest}'"
    )
    measured = len(set(patterns[test])) > 1
    words = _presence_words(gain if measured else None, train_gain, figures)
    return PresenceGauge(accuracy, float(plain.mean()), gain, words, train_gain)


def _by_presence(
    patterns: Shaped[np.ndarray, "n"],
    labels: Shaped[np.ndarray, "n"],
    train: np.ndarray,
    test: np.ndarray,
) -> tuple[Bool[np.ndarray, "test"], Bool[np.ndarray, "test"]]:
    """Return the hits of the commonest class of each pattern, and of the commonest class alone."""
    commonest = _commonest(labels[train])
    classes = {
        pattern: _commonest(labels[train[patterns[train] == pattern]])
        for pattern in set(patterns[train].tolist())
    }
    predicted = np.array([classes.get(pattern, commonest) for pattern in patterns[test].tolist()])
    return predicted == labels[test], labels[test] == commonest


def _train_gain(
    patterns: Shaped[np.ndarray, "n"],
    labels: Shaped[np.ndarray, "n"],
    groups: Shaped[np.ndarray, "n"],
    train: np.ndarray,
    seed: int,
) -> Estimate | None:
    """Return the gain by cross-validation over groups of train; None where it cannot be measured."""
    from sklearn.model_selection import GroupKFold

    n_groups = len(np.unique(groups[train]))
    if len(set(patterns[train].tolist())) < 2 or n_groups < 2:
        return None
    hits, plain = np.zeros(len(train), bool), np.zeros(len(train), bool)
    folds = GroupKFold(min(5, n_groups)).split(train, groups=groups[train])
    for fit, held_out in folds:
        hits[held_out], plain[held_out] = _by_presence(
            patterns, labels, train[fit], train[held_out]
        )
    return paired_difference(hits, plain, groups[train], seed=seed)


def _presence_words(gain: Estimate | None, train_gain: Estimate | None, figures: str) -> str:
    """Return the sentence that the intervals allow.

    Args:
        gain: on test; None where all test videos have the same streams.
        train_gain: by cross-validation on train; None where those have.
    """
    in_train = train_gain is not None and train_gain.value > 0 and train_gain.low > 0
    also = ""
    if train_gain is not None:
        also = f"; in training videos, cross-validated, {_gain_words(train_gain)}"
    if gain is None:
        if train_gain is None:
            return "every video has the same streams: their presence cannot tell the class"
        head = "tells its class" if in_train else "is not shown to tell its class"
        return (
            "presence of streams cannot be measured on this test split, where every video has the "
            f"same streams; in training videos it {head}: cross-validated, {_gain_words(train_gain)}"
        )
    if gain.value > 0 and gain.low > 0:
        return (
            f"which streams a video has already tells its class: {figures}{also}; an accuracy near "
            "that is no merit"
        )
    if in_train:
        return (
            f"which streams a video has tells its class in training videos{also}; on test {figures}"
        )
    if gain.value > 0:
        return (
            f"which streams a video has may tell its class: {figures}, but the interval of the "
            f"difference includes 0{also}"
        )
    return f"which streams a video has does not tell its class: {figures}{also}"


def _gain_words(gain: Estimate) -> str:
    value, low, high = (100 * part for part in (gain.value, gain.low, gain.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}] over the commonest class"


@dataclass(frozen=True)
class Leak:
    """One kind of overlap between splits.

    Attributes:
        kind: shared_group, identical_content, near_duplicate or class_in_one_split.
        n: how many groups, videos, pairs or classes.
        words: the sentence to print, with the first of them.
    """

    kind: str
    n: int
    words: str


def check_splits(
    *,
    video_ids: Sequence[str],
    splits: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    content_ids: Sequence[str],
    embeddings: Float[np.ndarray, "n D"] | None = None,
    columns: Mapping[str, slice] | None = None,
    min_cosine: float = 0.97,
) -> list[Leak]:
    """Return the overlaps between train, val and test; empty if there are none.

    Args:
        embeddings: NaN where a stream is absent. The mean of each class is taken off and the rest standardised here,
            so that the cosine is not that of the class. None: near duplicates are not looked for.
        columns: which of the embeddings' columns are whose; None: one stream.
        min_cosine: pairs from different splits at least this similar count as near duplicates; a pair
            that has only one stream in common needs a fiftieth of the distance: one stream alone
            makes many unrelated videos similar to .99. On the built-in data set (608 videos, three
            streams) .97 found 12 of 16 copies that were encoded again, and one pair that was none.
    """
    rows = [row for row, split in enumerate(splits) if split in ("train", "val", "test")]
    leaks = []
    for kind, name, values in (
        ("shared_group", "group", groups),
        ("identical_content", "content", content_ids),
    ):
        where: dict[str, list[int]] = {}
        for row in rows:
            where.setdefault(values[row], []).append(row)
        across = [
            members for members in where.values() if len({splits[row] for row in members}) > 1
        ]
        if across:
            a, b = _two_splits(across[0], splits)
            leaks.append(
                Leak(
                    kind,
                    len(across),
                    f"{len(across)} {name}(s) lie in more than one split (first: {video_ids[a]} in {splits[a]}, "
                    f"{video_ids[b]} in {splits[b]}); the test score is too good",
                )
            )
    if embeddings is not None:
        leaks += _near_duplicates(embeddings, columns, rows, labels, video_ids, splits, min_cosine)
    trained = {labels[row] for row in rows if splits[row] == "train" and labels[row]}
    tested = {labels[row] for row in rows if splits[row] == "test" and labels[row]}
    for missing, words in (
        (sorted(tested - trained), "in test but not in train: always missed"),
        (sorted(trained - tested), "in train but not in test: never measured"),
    ):
        if missing and trained and tested:
            leaks.append(
                Leak(
                    "class_in_one_split",
                    len(missing),
                    f"{len(missing)} class(es) are {words}: {missing[0]}",
                )
            )
    return leaks


def _near_duplicates(
    embeddings: Float[np.ndarray, "n D"],
    columns: Mapping[str, slice] | None,
    rows: Sequence[int],
    labels: Sequence[str],
    video_ids: Sequence[str],
    splits: Sequence[str],
    min_cosine: float,
) -> list[Leak]:
    blocks = check_columns(columns, embeddings.shape[1])
    there = present_blocks(embeddings, blocks)
    usable = np.array([row for row in rows if there[row].any()], dtype=np.int64)
    if len(usable) < 3:
        return []
    Z, has, split = (
        _without_class_means(embeddings, usable, labels),
        there[usable],
        np.asarray(splits)[usable],
    )
    standardiser = fit_standardiser(Z, columns=blocks, masks=has)
    alone = 1 - (1 - min_cosine) / ALONE_IS_STRICTER
    also = ""
    if len(Z) > MOST_COMPARED:
        n_pairs, closest = _hashed_pairs(standardiser, Z, has, split, min_cosine, alone)
        recall = expected_recall(len(Z), min_cosine)
        also = f" (found by hashing, {100 * recall:.1f} % of such pairs)"
    else:
        n_pairs, closest = _compared_pairs(standardiser, Z, has, split, min_cosine, alone)
    if not n_pairs:
        return []
    value, first, second = closest[0], int(usable[closest[1]]), int(usable[closest[2]])
    return [
        Leak(
            "near_duplicate",
            n_pairs,
            f"{n_pairs} pair(s) of videos in different splits are similar to a cosine of "
            f"{min_cosine if len(blocks) > 1 else alone:.4g} or more{also} "
            f"(closest: {video_ids[first]} in {splits[first]}, {video_ids[second]} in {splits[second]}, {value:.4f}); "
            "look at them: copies of one recording belong in one group",
        )
    ]


Closest = tuple[float, int, int]  # cosine and rows of a pair


def _compared_pairs(
    standardiser: Standardiser,
    Z: Float64[np.ndarray, "n F"],
    has: Bool[np.ndarray, "n streams"],
    split: Shaped[np.ndarray, "n"],
    min_cosine: float,
    alone: float,
) -> tuple[int, Closest]:
    """Return the number of near pairs across splits and the closest, by comparing all pairs."""
    n_pairs, closest = 0, (-1.0, 0, 0)
    for start in range(0, len(Z), 1000):  # a block of the matrix at a time
        part = slice(start, start + 1000)
        cosine = cosines(standardiser, Z[part], Z, query_masks=has[part], masks=has)
        n_shared = has[part].astype(np.int64) @ has.T
        counts = (split[part, None] != split) & (
            cosine >= np.where(n_shared > 1, min_cosine, alone)
        )
        n_pairs += int(counts.sum())
        cosine = np.where(counts, cosine, -1)
        a, b = np.unravel_index(int(cosine.argmax()), cosine.shape)
        closest = max(closest, (float(cosine[a, b]), start + int(a), int(b)))
    return n_pairs // 2, closest


def _hashed_pairs(
    standardiser: Standardiser,
    Z: Float64[np.ndarray, "n F"],
    has: Bool[np.ndarray, "n streams"],
    split: Shaped[np.ndarray, "n"],
    min_cosine: float,
    alone: float,
) -> tuple[int, Closest]:
    """Return the same for many rows, by hashing."""
    n_pairs, closest = 0, (-1.0, 0, 0)
    blocks = list(standardiser.columns.values())
    found = near_pairs(
        standardiser.transform(Z, has),
        standardiser.masks(Z, has),
        blocks,
        lambda common: min_cosine if common.sum() > 1 else alone,
    )
    for a, b, cosine in found:
        across = split[a] != split[b]
        n_pairs += int(across.sum())
        if across.any():
            best = int(np.where(across, cosine, -1).argmax())
            closest = max(closest, (float(cosine[best]), int(a[best]), int(b[best])))
    return n_pairs, closest


def _without_class_means(
    embeddings: Float[np.ndarray, "n D"], rows: Int[np.ndarray, "k"], labels: Sequence[str]
) -> Float64[np.ndarray, "k D"]:
    """Return the embeddings minus the mean of their class: a trained stream pulls a class together.

    A class of few videos has no mean of its own; the mean of all is taken from it.
    """
    Z, label = embeddings[rows].astype(np.float64), np.asarray(labels)[rows]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        means = np.broadcast_to(np.nanmean(Z, axis=0), Z.shape).copy()
        for name in np.unique(label):
            if (label == name).sum() >= MIN_CLASS:
                means[label == name] = np.nanmean(Z[label == name], axis=0)
    return Z - means


def _two_splits(members: Sequence[int], splits: Sequence[str]) -> tuple[int, int]:
    return members[0], next(row for row in members if splits[row] != splits[members[0]])


def _commonest(labels: Shaped[np.ndarray, "n"]) -> str:
    """Return the most frequent label; of equals the first in the alphabet."""
    counts = Counter(labels.tolist())
    return min(counts, key=lambda label: (-counts[label], label))
