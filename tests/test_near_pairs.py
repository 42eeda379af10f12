"""Near pairs among many rows: the same as by comparing all, with work that grows as the rows do."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tristream.fusion.action import leaks, near_pairs

COLUMNS = {"audio": slice(0, 24), "spatial": slice(24, 48)}


def planted(n: int, n_pairs: int, *, seed: int = 0, masked: bool = False):
    """Random rows in clusters, of which the last `n_pairs` are noisy copies of the first."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 48)) + 0.3 * rng.normal(size=(20, 48))[rng.integers(20, size=n)]
    X[n - n_pairs :] = X[:n_pairs] + 0.12 * rng.normal(size=(n_pairs, 48))
    splits = np.array(["train"] * (n - n_pairs) + ["test"] * n_pairs)
    if masked:
        X[rng.random(n) < 0.2, :24] = np.nan
    return X, splits


def near_duplicates(X: np.ndarray, splits: np.ndarray):
    n = len(X)
    names = [f"v{k}" for k in range(n)]
    found = leaks.check_splits(
        video_ids=names,
        splits=splits.tolist(),
        labels=["a"] * n,
        groups=names,
        content_ids=names,
        embeddings=X,
        columns=COLUMNS,
    )
    return [leak for leak in found if leak.kind == "near_duplicate"]


@pytest.mark.parametrize("masked", [False, True])
def test_hashing_finds_the_pairs_that_comparing_all_finds(masked: bool, monkeypatch) -> None:
    X, splits = planted(3000, 300, masked=masked)
    [exact] = near_duplicates(X, splits)
    monkeypatch.setattr(leaks, "MOST_COMPARED", 100)
    [hashed] = near_duplicates(X, splits)
    assert exact.n > 150
    assert exact.n - 2 <= hashed.n <= exact.n
    assert "found by hashing, 99.9 % of such pairs" in hashed.words
    closest = [set(re.findall(r"v\d+ in|0\.\d{4}\)", leak.words)) for leak in (exact, hashed)]
    assert closest[0] == closest[1]
    assert near_duplicates(*planted(3000, 0)) == []


def test_work_grows_as_the_rows_do(monkeypatch) -> None:
    checked = []
    plain = near_pairs._candidates

    def counted(*arguments):
        for a, b in plain(*arguments):
            checked[-1] += len(a)
            yield a, b

    monkeypatch.setattr(near_pairs, "_candidates", counted)
    for n in (2000, 16_000):
        rng = np.random.default_rng(0)
        Z = rng.normal(size=(n, 32))
        checked.append(0)
        found = list(
            near_pairs.near_pairs(Z, np.ones((n, 1), bool), [slice(0, 32)], lambda _: 0.97)
        )
        assert sum(len(a) for a, _, _ in found) == 0
    few, many = checked
    assert many / few < 8 * 2  # 64 by comparing all
    assert many < 16_000 * 60


def test_a_thousand_equal_rows_do_not_explode() -> None:
    rng = np.random.default_rng(0)
    Z = np.vstack([np.tile(rng.normal(size=32), (1000, 1)), rng.normal(size=(1000, 32))])
    pairs = list(near_pairs.near_pairs(Z, np.ones((2000, 1), bool), [slice(0, 32)], lambda _: 0.97))
    n = sum(len(a) for a, _, _ in pairs)
    assert 999 <= n <= 1000 * near_pairs.MOST_IN_BUCKET / 2  # of 499,500
    assert all((cosine > 0.999).all() for _, _, cosine in pairs)


def test_the_recall_that_is_printed_is_reached() -> None:
    """Pairs at exactly the limit, which are the hardest to find."""
    rng = np.random.default_rng(1)
    n, cosine = 4000, 0.97
    base = rng.normal(size=(n // 2, 64))
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    noise = rng.normal(size=base.shape)
    noise -= (noise * base).sum(axis=1, keepdims=True) * base
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    Z = np.vstack([base, cosine * base + np.sqrt(1 - cosine**2) * noise])
    found = list(
        near_pairs.near_pairs(Z, np.ones((n, 1), bool), [slice(0, 64)], lambda _: cosine - 1e-4)
    )
    n_found = sum(int((b - a == n // 2).sum()) for a, b, _ in found)
    assert n_found >= 0.995 * n // 2
    assert near_pairs.expected_recall(n, cosine) >= 0.999
