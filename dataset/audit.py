"""Warnings about a table of videos: doubtful labels, repeated files, classes not in every split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from tristream.dataset.folders import quoted
from tristream.dataset.spelling import similar_names
from tristream.dataset.video_row import VideoRow
from tristream.media.reasons import printable

_SHOWN = 10


def audit(rows: Sequence[VideoRow]) -> list[str]:
    """Return a sentence for each doubt about the rows, those of split unlabelled excepted."""
    learned = [row for row in rows if row.split != "unlabelled"]
    return [*_spellings(learned), *_repeated_bytes(learned), *_missing_splits(learned)]


def _spellings(rows: Sequence[VideoRow]) -> list[str]:
    """Labels that differ only in spelling, and such groups in different splits."""
    sentences = []
    if variants := similar_names({row.label for row in rows if row.label}):
        sentences.append(
            "labels that differ only in capitals, spaces, _ or - stay different classes: "
            f"{_listed(variants)}; give videos of one class one spelling"
        )
    splits = {
        row.group: row.split for row in rows if row.group not in (row.content_id, row.video_id)
    }
    variants = [names for names in similar_names(splits) if len({splits[n] for n in names}) > 1]
    if variants:
        sentences.append(
            "groups that differ only in capitals, spaces, _ or - lie in different splits: "
            f"{_listed(variants)}; give videos of one source one spelling"
        )
    return sentences


def _listed(variants: list[list[str]]) -> str:
    more = f"; and {len(variants) - _SHOWN} more" if len(variants) > _SHOWN else ""
    return "; ".join(quoted(names) for names in variants[:_SHOWN]) + more


def _repeated_bytes(rows: Sequence[VideoRow]) -> list[str]:
    """Equal files under two labels, and equal files on both sides of a split."""
    first: dict[str, VideoRow] = {}
    labels, sides = [], []
    for row in rows:
        if not row.content_id:
            continue
        twin = first.setdefault(row.content_id, row)
        if twin.label != row.label:
            labels.append(
                f"{_named(twin, twin.label)} and {_named(row, row.label)} have the same bytes "
                "under two labels; keep one of them"
            )
        if twin.split != row.split:
            sides.append(
                f"{_named(twin, twin.split)} and {_named(row, row.split)} have the same bytes in "
                "two splits; give them one group"
            )
    return [*_shortened(labels, "under two labels"), *_shortened(sides, "in two splits")]


def _named(row: VideoRow, fact: str) -> str:
    return f"{printable(row.video_id)} ({fact!r})"


def _shortened(sentences: list[str], kind: str) -> list[str]:
    rest = len(sentences) - _SHOWN
    more = [f"{rest} more pairs of files have the same bytes {kind}"] if rest > 0 else []
    return [*sentences[:_SHOWN], *more]


def _missing_splits(rows: Sequence[VideoRow]) -> list[str]:
    """Classes of two groups or more without a video in test or val."""
    groups: dict[str, set[str]] = defaultdict(set)
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.label:
            groups[row.label].add(row.group)
            splits[row.label].add(row.split)
    large = [name for name in sorted(groups) if len(groups[name]) > 1]
    sentences = []
    for split in ("test", "val"):
        lacking = [f"{name!r} ({len(groups[name])})" for name in large if split not in splits[name]]
        if lacking:
            sentences.append(
                f"no {split} video in these classes of two groups or more: {', '.join(lacking)}"
            )
    return sentences
