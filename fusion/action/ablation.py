"""Effect of each stream: the SVM on every subset of streams, with intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped

from tristream.errors import TristreamError
from tristream.fusion.action.leaks import PresenceGauge, presence_gauge
from tristream.fusion.action.rows import FusedRows
from tristream.fusion.action.svm import LinearSVM, choose_l2, fit_svm
from tristream.fusion.evaluate import mean_class_accuracy, top_k_hits
from tristream.fusion.intervals import Estimate, mean_interval, paired_difference

SELECTIONS = ("fixed", "grouped_cv")
MOST_STREAMS_IN_FULL = 4  # beyond, only one, two, all but one, and all streams


@dataclass(frozen=True)
class SubsetResult:
    """The SVM that sees these streams only.

    Attributes:
        test_top5: None where there are five classes or fewer.
        mean_class: test accuracy of each class, averaged over classes.
        l2: of its SVM.
    """

    streams: tuple[str, ...]
    n_train: int
    l2: float
    train_top1: float
    test_top1: Estimate
    test_top5: Estimate | None
    mean_class: float


@dataclass(frozen=True)
class Difference:
    """Accuracy of the SVM on `more` streams minus that on `less`, over the same test videos; `more` has one more."""

    more: tuple[str, ...]
    less: tuple[str, ...]
    gain: Estimate


@dataclass(frozen=True)
class StreamGain:
    """Effect of one stream.

    Attributes:
        retrained: accuracy of all streams minus that of an SVM trained without this one; paired over test videos.
        withheld: accuracy of all streams minus that of the same SVM with this stream masked in the test videos.
    """

    stream: str
    retrained: Estimate
    withheld: Estimate


@dataclass(frozen=True, eq=False)
class Ablation:
    """All that `ablate` found.

    Attributes:
        subsets: single streams first, all streams last.
        gains: one per stream, where there are two or more.
        differences: of every two subsets that one stream parts.
        complete: accuracy of all streams on the test videos that have every one of them; None where there is none.
        presence: the leak gauge.
        words: sentences about streams that are absent or make it worse.
        svm: the machine on all streams.
        test_rows, scores: rows of the test videos, and that machine's margins on them.
        named: what the machine of each subset calls them.
    """

    subsets: tuple[SubsetResult, ...]
    gains: tuple[StreamGain, ...]
    differences: tuple[Difference, ...]
    complete: Estimate | None
    presence: PresenceGauge
    words: tuple[str, ...]
    svm: LinearSVM
    test_rows: Int[np.ndarray, "test"]
    scores: Float64[np.ndarray, "test classes"]
    named: Mapping[tuple[str, ...], Shaped[np.ndarray, "test"]]


@dataclass(frozen=True)
class SVMOptions:
    """Choices of the SVMs of an ablation.

    Attributes:
        l2, reading, stream_dropout: as `LinearSVM`.
        select: "fixed": `l2` as given; "grouped_cv": by cross-validation over the groups of train,
            for each subset of streams.
    """

    l2: float = 1e-2
    reading: str = "mean_hinge"
    select: str = "fixed"
    stream_dropout: float = 0.0


def ablate(rows: FusedRows, options: SVMOptions = SVMOptions(), *, seed: int = 0) -> Ablation:
    """Fit on train and measure on test, for every subset of the streams that training videos have.

    Args:
        rows: videos; those without a label are skipped.
        options: of the SVMs.
        seed: of the intervals.

    Raises:
        TristreamError: no labelled video in train or in test; one training class only; as `fit_svm` and `choose_l2`; an
            unknown way to select; 'grouped_cv' with another reading than 'mean_hinge'.
    """
    _check_select(options.select, options.reading)
    X, masks, columns, labels, groups = rows.X, rows.masks, rows.columns, rows.labels, rows.groups
    presence = presence_gauge(masks, labels=labels, splits=rows.splits, groups=groups, seed=seed)
    train, test = rows.labelled("train"), rows.labelled("test")
    trainable = [name for s, name in enumerate(columns) if masks[train, s].any()]
    words = [
        f"no training video has the stream '{name}'; it is left out"
        for name in columns
        if name not in trainable
    ]
    machines: dict[tuple[str, ...], LinearSVM] = {}
    hits: dict[tuple[str, ...], np.ndarray] = {}
    names: dict[tuple[str, ...], np.ndarray] = {}
    results = []
    for streams in _subsets(trainable):
        used = masks & [name in streams for name in columns]
        fit = train[used[train].any(axis=1)]
        if len(np.unique(labels[fit])) < 2 and len(streams) < len(trainable):
            words.append(
                f"training videos with {_join(streams)} hold one class only; the subset is left out"
            )
            continue
        strength = options.l2
        if options.select == "grouped_cv":
            strength, _ = choose_l2(
                X[fit],
                labels[fit],
                groups[fit],
                columns=columns,
                masks=used[fit],
                stream_dropout=options.stream_dropout,
            )
        svm = fit_svm(
            X[fit],
            labels[fit],
            l2=strength,
            columns=columns,
            masks=used[fit],
            reading=options.reading,
            stream_dropout=options.stream_dropout,
        )
        scores = svm.decision_function(X[test], masks=used[test])
        named = svm.classes_[scores.argmax(axis=1)]
        machines[streams], names[streams], hits[streams] = svm, named, named == labels[test]
        top5 = None
        if len(svm.classes_) > 5:
            top5 = mean_interval(
                top_k_hits(labels[test], scores, k=5, classes=svm.classes_), groups[test], seed=seed
            )
        results.append(
            SubsetResult(
                streams=streams,
                n_train=len(fit),
                l2=strength,
                train_top1=float((svm.predict(X[fit], masks=used[fit]) == labels[fit]).mean()),
                test_top1=mean_interval(hits[streams], groups[test], seed=seed),
                test_top5=top5,
                mean_class=mean_class_accuracy(labels[test], named),
            )
        )
    whole = tuple(trainable)
    svm = machines[whole]
    gains = []
    for s, name in enumerate(columns):
        without = tuple(other for other in whole if other != name)
        if name not in whole or without not in hits:
            continue
        less = masks[test].copy()
        less[:, s] = False
        withheld = svm.predict(X[test], masks=less) == labels[test]
        gain = StreamGain(
            name,
            retrained=paired_difference(hits[whole], hits[without], groups[test], seed=seed),
            withheld=paired_difference(hits[whole], withheld, groups[test], seed=seed),
        )
        gains.append(gain)
        words += _harm(gain)
    has_all = masks[test][:, [name in whole for name in columns]].all(axis=1)
    return Ablation(
        subsets=tuple(results),
        gains=tuple(gains),
        differences=_differences(hits, groups[test], seed),
        complete=mean_interval(hits[whole][has_all], groups[test][has_all], seed=seed)
        if has_all.any()
        else None,
        presence=presence,
        words=tuple(words),
        svm=svm,
        test_rows=test,
        scores=svm.decision_function(X[test], masks=masks[test]),
        named=names,
    )


def _differences(
    hits: Mapping[tuple[str, ...], Bool[np.ndarray, "test"]],
    groups: Shaped[np.ndarray, "test"],
    seed: int,
) -> tuple[Difference, ...]:
    return tuple(
        Difference(more, less, paired_difference(hits[more], hits[less], groups, seed=seed))
        for more in hits
        for less in hits
        if len(more) == len(less) + 1 and set(less) < set(more)
    )


def _check_select(select: str, reading: str) -> None:
    if select not in SELECTIONS:
        raise TristreamError(
            f"unknown way to select l2 '{select}'; available: {', '.join(SELECTIONS)}"
        )
    if select == "grouped_cv" and reading != "mean_hinge":
        raise TristreamError(
            f"select = grouped_cv chooses l2 in the reading mean_hinge; reading is {reading}"
        )


def _subsets(streams: list[str]) -> list[tuple[str, ...]]:
    n = len(streams)
    sizes = range(1, n + 1) if n <= MOST_STREAMS_IN_FULL else sorted({1, 2, n - 1, n})
    return [subset for size in sizes for subset in combinations(streams, size)]


def _harm(gain: StreamGain) -> list[str]:
    """Return a sentence if the stream makes the classifier worse."""
    loss = gain.retrained
    if effect(loss) != "worse":
        return []
    return [
        f"the stream '{gain.stream}' makes it worse: an SVM without it names "
        f"{-100 * loss.value:.1f} points more of the test videos "
        f"[{-100 * loss.high:.1f}, {-100 * loss.low:.1f}]"
    ]


def effect(gain: Estimate) -> Literal["helps", "worse", "unclear"]:
    """Return the effect of a stream that the interval of its gain allows to state.

    `fuse` and the report use this function, so that they agree.
    """
    if gain.low > 0:
        return "helps"
    return "worse" if gain.high < 0 else "unclear"


def _join(streams: tuple[str, ...]) -> str:
    return " or ".join(f"'{name}'" for name in streams)
