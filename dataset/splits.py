"""Who is held out: whole groups, chosen by a hash, so that the same video is always on the same side."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

HELD_OUT_SHARE = 0.2


@runtime_checkable
class Grouped(Protocol):
    """What a hold-out goes by."""

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
    """The groups that leave `rows` for val or test.

    Where every group has one class: of each class the lowest 20 % of its groups by blake2b(f"{seed}:{group}"), at least
    one on each side where there are two. Where groups span classes: whole groups in that order until 20 % of the videos
    are out.

    Args:
        rows: those to choose from.
        seed: another one, another choice.
        inside: others that stay, when `rows` are new beside them: they count as one on that side.
        outside: others that are held out already.
    """
    rows, inside, outside = list(rows), list(inside), list(outside)
    classes = defaultdict(set)
    for row in rows:
        classes[row.group].add(row.label)
    if all(len(labels) == 1 for labels in classes.values()):
        return _by_class(rows, seed, {row.label for row in inside}, {row.label for row in outside})
    return _whole_groups(rows, seed, has_inside=bool(inside), has_outside=bool(outside))


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
