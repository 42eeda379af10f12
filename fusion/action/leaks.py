"""Ways in which a test score is too good: shared sources, near copies, streams whose presence names the class."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped
from numpy.typing import ArrayLike

from tristream.errors import TristreamError
from tristream.fusion.intervals import Estimate, mean_interval, paired_difference
from tristream.fusion.nearest import cosines
from tristream.fusion.standardise import check_columns, fit_standardiser, present_blocks

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
        words: what that means.
    """

    accuracy: Estimate
    majority: float
    gain: Estimate
    words: str


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
    commonest = _commonest(labels[train])
    patterns = [row.tobytes() for row in masks]
    named = {
        pattern: _commonest(labels[[row for row in train if patterns[row] == pattern]])
        for pattern in {patterns[row] for row in train}
    }
    hits = np.array([named.get(patterns[row], commonest) == labels[row] for row in test])
    plain = labels[test] == commonest
    accuracy = mean_interval(hits, groups[test], seed=seed)
    gain = paired_difference(hits, plain, groups[test], seed=seed)
    figures = (
        f"{100 * accuracy.value:.1f} % against {100 * plain.mean():.1f} % for always '{commonest}'"
    )
    if gain.value > 0 and not gain.low <= 0:
        words = f"which streams a video has already tells its class: {figures}; an accuracy near that is no merit"
    else:
        words = f"which streams a video has does not tell its class: {figures}"
    return PresenceGauge(accuracy, float(plain.mean()), gain, words)


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
    """Overlaps between train, val and test; empty where all is well.

    Args:
        embeddings: NaN where a stream is absent. The mean of each class is taken off and the rest standardised here,
            so that the cosine is not that of the class. None: near duplicates are not looked for.
        columns: which of the embeddings' columns are whose; None: one stream.
        min_cosine: pairs from different splits at least this alike count as near duplicates; of several streams a
            pair that has one of them in common needs a fiftieth of the distance. On the built-in data set (608
            videos, three streams) .97 found 12 of 16 copies that were encoded anew, and one pair that was none.
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
    alone = 1 - (1 - min_cosine) / ALONE_IS_STRICTER if len(blocks) > 1 else min_cosine
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
        closest = max(closest, (float(cosine[a, b]), int(usable[start + a]), int(usable[b])))
    if not n_pairs:
        return []
    value, first, second = closest
    return [
        Leak(
            "near_duplicate",
            n_pairs // 2,
            f"{n_pairs // 2} pair(s) of videos in different splits are alike to a cosine of {min_cosine:g} or more "
            f"(closest: {video_ids[first]} in {splits[first]}, {video_ids[second]} in {splits[second]}, {value:.4f}); "
            "look at them: copies of one recording belong in one group",
        )
    ]


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
    """The most frequent label; of equals the first in the alphabet."""
    counts = Counter(labels.tolist())
    return min(counts, key=lambda label: (-counts[label], label))
