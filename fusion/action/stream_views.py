"""Accuracy with, without and in spite of one stream: all videos, those that have it, all without it, presence alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tristream.errors import TristreamError
from tristream.fusion.action.leaks import PresenceGauge, presence_gauge
from tristream.fusion.action.rows import FusedRows
from tristream.fusion.action.svm import LinearSVM
from tristream.fusion.intervals import Estimate, mean_interval


@dataclass(frozen=True)
class StreamViews:
    """One machine on the test videos in three ways, and what the mere presence of a stream gives away.

    Attributes:
        n_train_without, n_test_without: labelled videos that do not have the stream.
        everything: (a) all test videos as they are.
        having: (b) those that have the stream; None where none has.
        withheld: (c) all of them, this stream masked where they have it.
        presence: (d) a classifier that sees nothing but whether the stream is there; None where every video has it.
    """

    stream: str
    n_train_without: int
    n_test_without: int
    everything: Estimate
    having: Estimate | None
    withheld: Estimate
    presence: PresenceGauge | None


def stream_views(
    svm: LinearSVM,
    rows: FusedRows,
    *,
    seed: int = 0,
) -> list[StreamViews]:
    """Return the four views of every stream that the classifier was fitted with, in column order.

    Args:
        svm: fitted on the columns of `rows`.
        rows: videos; those without a label are skipped.
        seed: of the intervals.

    Raises:
        TristreamError: no labelled video in train or in test.
    """
    X, masks, columns, labels, groups = rows.X, rows.masks, rows.columns, rows.labels, rows.groups
    train, test = rows.labelled("train"), rows.labelled("test")
    if not len(train) or not len(test):
        raise TristreamError(
            f"there are {len(train)} labelled training and {len(test)} test videos; both are needed"
        )

    def accuracy(used: np.ndarray, index: np.ndarray) -> Estimate:
        hits = svm.predict(X[index], masks=used[index]) == labels[index]
        return mean_interval(hits, groups[index], seed=seed)

    views = []
    for s, (name, known) in enumerate(zip(columns, svm.standardiser.known, strict=True)):
        if not known:
            continue
        less = masks.copy()
        less[:, s] = False
        has = masks[:, s]
        some_lack = not has[np.r_[train, test]].all()
        gauge = presence_gauge(
            masks[:, [s]], labels=labels, splits=rows.splits, groups=groups, seed=seed
        )
        views.append(
            StreamViews(
                stream=name,
                n_train_without=int((~has[train]).sum()),
                n_test_without=int((~has[test]).sum()),
                everything=accuracy(masks, test),
                having=accuracy(masks, test[has[test]]) if has[test].any() else None,
                withheld=accuracy(less, test),
                presence=gauge if some_lack else None,
            )
        )
    return views
