"""Pairs of very similar videos among many: hashed by random hyperplanes, then checked exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

RECALL = 0.999  # expected share of the pairs at the limit that are found
MOST_IN_BUCKET = 256  # a larger bucket is split by further hyperplanes
MOST_BITS = 62
CHECKED_AT_ONCE = 1 << 15  # pairs
MOST_TABLES = 200

Limit = Callable[[Bool[np.ndarray, " streams"]], float]


def near_pairs(
    Z: Float[np.ndarray, "n F"],
    has: Bool[np.ndarray, "n streams"],
    blocks: Sequence[slice],
    limit: Limit,
    *,
    seed: int = 0,
) -> Iterator[
    tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]
]:
    """Yield pairs of rows whose cosine over their common streams reaches a limit, each pair once.

    For each set of streams that two rows can have in common, rows are sorted into buckets by the
    signs of random projections (Charikar 2002); rows at angle θ share a bucket of b signs with
    probability (1 − θ / π)^b, and as many tables are made as find a pair at the limit with
    probability .999. Every candidate is checked exactly. Work grows as n log n, memory as n.

    Args:
        Z: standardised embeddings; a missing stream is 0.
        has: streams of each row.
        blocks: columns of each stream.
        limit: common streams → least cosine of a pair.
        seed: of the projections.

    Yields:
        Rows a < b and their cosines, in blocks.
    """
    generator = np.random.default_rng(seed)
    for common in _intersections(has):
        rows = np.flatnonzero(has[:, common].all(axis=1))
        if len(rows) < 2:
            continue
        columns = np.r_[tuple(np.r_[blocks[s]] for s in np.flatnonzero(common).tolist())]
        V = Z[np.ix_(rows, columns)].astype(np.float32)
        V /= np.maximum(np.linalg.norm(V, axis=1, keepdims=True), 1e-12)
        n_bits, n_tables = plan(len(rows), limit(common))
        seen = np.zeros(0, np.int64)
        for _ in range(n_tables):
            found = []
            for a, b in _candidates(V, n_bits, generator):
                exactly = ((has[rows[a]] & has[rows[b]]) == common).all(axis=1)
                cosine = np.einsum("pd,pd->p", V[a[exactly]], V[b[exactly]])
                near = cosine >= limit(common) - 1e-6
                found.append(np.stack([a[exactly][near], b[exactly][near]]))
            if not found:
                continue
            pairs = np.concatenate(found, axis=1)
            keys = np.unique(pairs.min(axis=0) * len(rows) + pairs.max(axis=0))
            new = np.setdiff1d(keys, seen, assume_unique=True)
            seen = np.union1d(seen, new)
            a, b = new // len(rows), new % len(rows)
            if len(new):
                cosine = np.einsum("pd,pd->p", V[a].astype(np.float64), V[b])
                yield rows[a], rows[b], np.clip(cosine, -1, 1)


def plan(n: int, cosine: float) -> tuple[int, int]:
    """Return (signs in a bucket, tables) for n rows and pairs of at least this cosine."""
    n_bits = min(MOST_BITS, max(1, int(np.ceil(np.log2(n)))))
    together = (1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi) ** n_bits
    if together >= RECALL:
        return n_bits, 1
    n_tables = np.ceil(np.log(1 - RECALL) / np.log1p(-together))
    return n_bits, int(min(MOST_TABLES, n_tables))


def expected_recall(n: int, cosine: float) -> float:
    """Return the probability that a pair of this cosine is found among n rows."""
    n_bits, n_tables = plan(n, cosine)
    together = (1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi) ** n_bits
    return float(1 - (1 - together) ** n_tables)


def _intersections(has: np.ndarray) -> list[np.ndarray]:
    """Return the sets of streams that two rows can have in common."""
    patterns = {tuple(row) for row in np.unique(has, axis=0).tolist()}
    common = {tuple(x and y for x, y in zip(p, q, strict=True)) for p in patterns for q in patterns}
    return [np.array(each) for each in sorted(common) if any(each)]


def _candidates(
    V: np.ndarray, n_bits: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of rows that share a bucket of one table, in blocks of bounded size."""
    keys = _signs(V, n_bits, generator)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) != 0, True])
    waiting: list[np.ndarray] = []
    n_waiting = 0
    for first, last in pairwise(starts.tolist()):
        size = last - first
        if size < 2:
            continue
        members = order[first:last]
        if size > MOST_IN_BUCKET and not _all_equal(V, members):
            yield from _candidates_in(V, members, generator)
            continue
        a, b = _chain(members) if size > MOST_IN_BUCKET else _all_pairs(members)
        waiting.append(np.stack([a, b]))
        n_waiting += len(a)
        if n_waiting >= CHECKED_AT_ONCE:
            pairs = np.concatenate(waiting, axis=1)
            waiting, n_waiting = [], 0
            yield pairs[0], pairs[1]
    if waiting:
        pairs = np.concatenate(waiting, axis=1)
        yield pairs[0], pairs[1]


def _candidates_in(
    V: np.ndarray, members: np.ndarray, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of a crowded bucket: signs around its own mean tell its members apart."""
    inside = V[members] - V[members].mean(axis=0)
    inside /= np.maximum(np.linalg.norm(inside, axis=1, keepdims=True), 1e-12)
    n_bits = max(1, int(np.ceil(np.log2(len(members) / 16))))
    keys = _signs(inside, n_bits, generator)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(keys[order]) != 0, True])
    for first, last in pairwise(starts.tolist()):
        part = members[order[first:last]]
        for begin in range(0, len(part), MOST_IN_BUCKET):
            block = part[begin : begin + MOST_IN_BUCKET]
            if len(block) > 1:
                yield _all_pairs(block)


def _signs(V: np.ndarray, n_bits: int, generator: np.random.Generator) -> np.ndarray:
    """Return the signs of random projections of each row as one number."""
    planes = generator.standard_normal((V.shape[1], n_bits)).astype(np.float32)
    weights = np.int64(1) << np.arange(n_bits, dtype=np.int64)
    keys = np.empty(len(V), np.int64)
    for start in range(0, len(V), 1 << 16):
        part = slice(start, start + (1 << 16))
        keys[part] = ((V[part] @ planes) > 0) @ weights
    return keys


def _all_equal(V: np.ndarray, members: np.ndarray) -> bool:
    return bool((V[members] == V[members[0]]).all())


def _chain(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each member with the next: of many equal rows a chain says enough."""
    return members[:-1], members[1:]


def _all_pairs(members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.triu_indices(len(members), 1)
    return members[a], members[b]
