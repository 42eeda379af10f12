"""Ways in which a test score is too good: shared sources, near copies, streams whose presence names the class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy.typing import ArrayLike

from fusion.intervals import Estimate, mean_interval, paired_difference


@dataclass(frozen=True)
class PresenceGauge:
    """How well the class is named by nothing but which streams a video has.

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
    masks: Bool[np.ndarray, "n streams"], *, labels: ArrayLike, splits: ArrayLike, groups: ArrayLike, seed: int = 0
) -> PresenceGauge:
    """The leak gauge: a classifier that sees the masks only, trained on `train` and measured on `test`.

    Raises:
        ValueError: no labelled video in train or in test.
    """
    labels, splits, groups = np.asarray(labels), np.asarray(splits), np.asarray(groups)
    train, test = (np.flatnonzero((splits == split) & (labels != "")) for split in ("train", "test"))
    if not len(train) or not len(test):
        raise ValueError(f"there are {len(train)} labelled training and {len(test)} test videos; both are needed")
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
    figures = f"{100 * accuracy.value:.1f} % against {100 * plain.mean():.1f} % for always '{commonest}'"
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
    min_cosine: float = 0.99,
) -> list[Leak]:
    """Overlaps between train, val and test; empty where all is well.

    Args:
        embeddings: of one stream, NaN where absent; standardised here, so that the cosine is not that of the mean.
        min_cosine: pairs from different splits at least this alike count as near duplicates.
    """
    rows = [row for row, split in enumerate(splits) if split in ("train", "val", "test")]
    leaks = []
    for kind, name, values in (("shared_group", "group", groups), ("identical_content", "content", content_ids)):
        where: dict[str, list[int]] = {}
        for row in rows:
            where.setdefault(values[row], []).append(row)
        across = [members for members in where.values() if len({splits[row] for row in members}) > 1]
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
        leaks += _near_duplicates(embeddings, rows, video_ids, splits, min_cosine)
    trained = {labels[row] for row in rows if splits[row] == "train" and labels[row]}
    tested = {labels[row] for row in rows if splits[row] == "test" and labels[row]}
    for missing, words in (
        (sorted(tested - trained), "in test but not in train: always missed"),
        (sorted(trained - tested), "in train but not in test: never measured"),
    ):
        if missing and trained and tested:
            leaks.append(
                Leak("class_in_one_split", len(missing), f"{len(missing)} class(es) are {words}: {missing[0]}")
            )
    return leaks


def _near_duplicates(
    embeddings: Float[np.ndarray, "n D"],
    rows: Sequence[int],
    video_ids: Sequence[str],
    splits: Sequence[str],
    min_cosine: float,
) -> list[Leak]:
    usable = np.array([row for row in rows if np.isfinite(embeddings[row]).all()], dtype=np.int64)
    if len(usable) < 3:
        return []
    Z = embeddings[usable].astype(np.float64)
    Z = (Z - Z.mean(axis=0)) / np.where(Z.std(axis=0) > 0, Z.std(axis=0), 1)
    Z /= np.maximum(np.linalg.norm(Z, axis=1, keepdims=True), 1e-12)
    split = np.asarray(splits)[usable]
    n_pairs, closest = 0, (-1.0, 0, 0)
    for start in range(0, len(Z), 1000):  # a block of the matrix at a time
        cosine = Z[start : start + 1000] @ Z.T
        cosine[split[start : start + 1000, None] == split] = -1
        n_pairs += int((cosine >= min_cosine).sum())
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
            "give them one group",
        )
    ]


def _two_splits(members: Sequence[int], splits: Sequence[str]) -> tuple[int, int]:
    return members[0], next(row for row in members if splits[row] != splits[members[0]])


def _commonest(labels: Shaped[np.ndarray, "n"]) -> str:
    """The most frequent label; of equals the first in the alphabet."""
    counts = Counter(labels.tolist())
    return min(counts, key=lambda label: (-counts[label], label))
