"""Hold-outs of whole groups, chosen by a hash: the same video is always on the same side."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

HELD_OUT_SHARE = 0.2


@runtime_checkable
class Grouped(Protocol):
    """Properties of a video that a hold-out needs."""

    @property
    def label(self) -> str: ...
    @property
    def group(self) -> str: ...


def held_out_groups(
    rows: Iterable[Grouped],
    *,
    seed: int,
    inside: Iterable[Grouped] = (),
    outside: Iterable[Grouped] = (),
) -> set[str]:
    """Return the groups that leave `rows` for val or test.

    Groups of one class: of each class the lowest 20 % of its groups by blake2b(f"{seed}:{group}"),
    at least one on each side where there are two. Groups that span classes: whole groups in the
    same order until 20 % of their videos are out. Neither kind affects the choice among the other.

    Args:
        rows: the videos to choose from.
        seed: another seed makes another choice.
        inside: other videos that stay, when `rows` are new beside them: they count as one on that
            side.
        outside: other videos that are held out already.
    """
    rows, inside, outside = list(rows), list(inside), list(outside)
    mixed = _mixed_groups([*rows, *inside, *outside])
    pure = [row for row in rows if row.group not in mixed]
    spanning = [row for row in rows if row.group in mixed]
    return _by_class(
        pure,
        seed,
        {row.label for row in inside if row.group not in mixed},
        {row.label for row in outside if row.group not in mixed},
    ) | _whole_groups(
        spanning,
        seed,
        has_inside=any(row.group in mixed for row in inside),
        has_outside=any(row.group in mixed for row in outside),
    )


def _mixed_groups(rows: Iterable[Grouped]) -> set[str]:
    """Groups with videos of two classes or more."""
    first: dict[str, str] = {}
    return {row.group for row in rows if first.setdefault(row.group, row.label) != row.label}


def _by_class(rows: list[Grouped], seed: int, inside: set[str], outside: set[str]) -> set[str]:
    groups = defaultdict(set)
    for row in rows:
        groups[row.label].add(row.group)
    out: set[str] = set()
    for label, members in groups.items():
        most = len(members) if label in inside else len(members) - 1
        least = 0 if label in outside else 1
        n = min(max(round(HELD_OUT_SHARE * len(members)), least), most)
        out.update(_in_order(members, seed)[:n])
    return out


def _whole_groups(
    rows: list[Grouped], seed: int, *, has_inside: bool, has_outside: bool
) -> set[str]:
    sizes: dict[str, int] = defaultdict(int)
    for row in rows:
        sizes[row.group] += 1
    out: set[str] = set()
    n_out = 0
    for group in _in_order(sizes, seed)[: len(sizes) if has_inside else len(sizes) - 1]:
        if n_out >= HELD_OUT_SHARE * len(rows) and (out or has_outside):
            break
        out.add(group)
        n_out += sizes[group]
    return out


def _in_order(groups: Iterable[str], seed: int) -> list[str]:
    def key(group: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{group}".encode(errors="surrogateescape")).digest()

    return sorted(groups, key=key)
