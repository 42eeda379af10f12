from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.action.score_fusion import (
    mean_scores,
    simonyan_features,
    softmax,
    weighted_scores,
)


def probabilities(seed: int, n: int = 6, classes: int = 4) -> np.ndarray:
    return softmax(np.random.default_rng(seed).normal(size=(n, classes)))


def test_softmax_equals_scipy_and_survives_large_logits() -> None:
    from scipy.special import softmax as reference

    logits = np.random.default_rng(0).normal(size=(5, 4)) * 300
    np.testing.assert_allclose(softmax(logits), reference(logits, axis=1))
    assert softmax(np.array([[1e6, 0.0]])).tolist() == [[1, 0]]


def test_the_mean_is_the_mean_and_equal_weights_change_nothing() -> None:
    a, b, c = (probabilities(seed) for seed in range(3))
    np.testing.assert_allclose(mean_scores([a, b, c]), (a + b + c) / 3)
    np.testing.assert_allclose(weighted_scores([a, b, c], [2, 2, 2]), mean_scores([a, b, c]))


def test_weights_pull_towards_a_stream() -> None:
    a, b = probabilities(0), probabilities(1)
    np.testing.assert_allclose(weighted_scores([a, b], [1, 3]), (a + 3 * b) / 4)
    np.testing.assert_allclose(weighted_scores([a, b], [0, 5]), b)
    np.testing.assert_allclose(weighted_scores([a, b], [1, 3]).sum(axis=1), 1)


def test_a_missing_stream_leaves_its_weight_to_the_others() -> None:
    a, b, c = (probabilities(seed) for seed in range(3))
    b[2] = np.nan
    fused = weighted_scores([a, b, c], [1, 5, 2])
    np.testing.assert_allclose(fused[2], (a[2] + 2 * c[2]) / 3)
    np.testing.assert_allclose(fused[3], (a[3] + 5 * b[3] + 2 * c[3]) / 8)


def test_simonyan_features_are_unit_vectors_side_by_side() -> None:
    a, b = probabilities(0), probabilities(1)
    found = simonyan_features([a, b])
    assert found.shape == (6, 8)
    for row in range(6):
        np.testing.assert_allclose(
            found[row], np.r_[a[row] / np.sqrt(a[row] @ a[row]), b[row] / np.sqrt(b[row] @ b[row])]
        )
    b[1] = np.nan
    assert np.isnan(simonyan_features([a, b])[1]).tolist() == [False] * 4 + [True] * 4


def test_bad_input_is_named() -> None:
    a = probabilities(0)
    with pytest.raises(ValueError, match="scores of 0 streams"):
        mean_scores([])
    with pytest.raises(ValueError, match=r"scores of stream 1 are \(5, 4\), of stream 0 \(6, 4\)"):
        mean_scores([a, a[:5]])
    with pytest.raises(ValueError, match="3 weights for 2 streams"):
        weighted_scores([a, a], [1, 2, 3])
    with pytest.raises(ValueError, match="weights are 1, -1; none may be negative"):
        weighted_scores([a, a], [1, -1])
    with pytest.raises(ValueError, match="row 4 has no stream with scores"):
        mean_scores([np.where(np.arange(6)[:, None] == 4, np.nan, a)])
    with pytest.raises(ValueError, match="row 2 has scores of 0 only"):
        simonyan_features([np.where(np.arange(6)[:, None] == 2, 0.0, a)])
