from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from tristream.fusion.nearest import cosines, most_alike
from tristream.fusion.standardise import fit_standardiser

COLUMNS = {"one": slice(0, 6), "two": slice(6, 10)}


def rows(n: int = 30, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 100 + rng.normal(size=(n, 10)) * rng.uniform(0.1, 9, 10)


def test_with_every_stream_there_it_is_the_cosine_of_standardised_rows() -> None:
    X, query = rows(), rows(4, seed=1)
    scaler = StandardScaler().fit(X)
    found = cosines(fit_standardiser(X, columns=COLUMNS), query, X)
    np.testing.assert_allclose(
        found, cosine_similarity(scaler.transform(query), scaler.transform(X)), atol=1e-12
    )


def test_a_stream_that_one_of_two_lacks_counts_for_neither() -> None:
    X = rows()
    X[3, COLUMNS["two"]] = np.nan
    standardiser = fit_standardiser(X, columns=COLUMNS)
    both, left = X[[5]], standardiser.transform(X)[:, COLUMNS["one"]]
    found = cosines(standardiser, both, X)[0]
    assert found[3] == pytest.approx(cosine_similarity(left[[5]], left[[3]])[0, 0])
    assert found[5] == pytest.approx(1)
    silent = cosines(standardiser, X[[3]], X)[0]
    np.testing.assert_allclose(silent, cosine_similarity(left[[3]], left)[0])


def test_videos_without_a_common_stream_are_not_alike_at_all() -> None:
    X = rows()
    X[0, COLUMNS["one"]] = np.nan
    X[1, COLUMNS["two"]] = np.nan
    found = cosines(fit_standardiser(X, columns=COLUMNS), X[[0]], X)[0]
    assert np.isnan(found[1])
    assert 1 not in most_alike(found, 30)
    assert len(most_alike(found, 30)) == 29


def test_a_planted_copy_is_the_nearest() -> None:
    X = rows(60)
    X[41] = X[7] + 1e-4
    cosine = cosines(fit_standardiser(X, columns=COLUMNS), X[[7]], X)[0]
    cosine[7] = np.nan
    assert most_alike(cosine, 3)[0] == 41
    assert (np.diff(cosine[most_alike(cosine, 10)]) <= 0).all()
