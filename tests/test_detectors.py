from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from tristream.fusion.anomaly.attribution import stream_errors
from tristream.fusion.anomaly.baselines import METHODS, PlainDetector
from tristream.fusion.evaluate import auroc

COLUMNS = {"one": slice(0, 10), "two": slice(10, 40)}


def normal(n: int, *, seed: int = 0) -> np.ndarray:
    """Videos of four kinds that both streams agree on."""
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    centres = world.normal(size=(4, 40)) * 3
    return centres[rng.integers(4, size=n)] + rng.normal(size=(n, 40))


def swapped(n: int, *, seed: int = 0) -> np.ndarray:
    X = normal(4 * n, seed=seed + 100)
    other = normal(4 * n, seed=seed + 200)
    apart = np.linalg.norm(X - other, axis=1) > 15  # of different kinds
    return np.hstack([X[:, :10], other[:, 10:]])[apart][:n]


@pytest.mark.parametrize("method", METHODS)
def test_a_swapped_pairing_scores_above_normal(method: str) -> None:
    detector = PlainDetector(method, columns=COLUMNS).fit(normal(100), X_val=normal(50, seed=1))
    scores = [detector.anomaly_score(X) for X in (normal(80, seed=2), swapped(80))]
    assert auroc(np.repeat([0, 1], 80), np.concatenate(scores)) >= 0.95
    assert (detector.predict(normal(200, seed=3)) == -1).mean() <= 0.15


def test_pca_equals_scikit_learn_s_residual_where_there_is_one_stream() -> None:
    X, new = normal(100), normal(20, seed=1) * 1.5
    detector = PlainDetector("pca").fit(X, X_val=normal(50, seed=1))
    scale = lambda rows: (rows - X.mean(axis=0)) / X.std(axis=0)  # noqa: E731
    pca = PCA(0.95).fit(scale(X))
    residual = scale(new) - pca.inverse_transform(pca.transform(scale(new)))
    np.testing.assert_allclose(detector.anomaly_score(new), np.square(residual).mean(axis=1))


def test_knn_equals_scikit_learn_s_neighbours_with_blocks_weighted_alike() -> None:
    X, new = normal(100), normal(20, seed=1) * 1.5
    detector = PlainDetector("knn", columns=COLUMNS).fit(X, X_val=normal(50, seed=1))
    weight = np.repeat([1 / 10, 1 / 30], [10, 30]) ** 0.5 / 2**0.5
    scale = lambda rows: (rows - X.mean(axis=0)) / X.std(axis=0) * weight  # noqa: E731
    distance, index = NearestNeighbors(n_neighbors=5).fit(scale(X)).kneighbors(scale(new))
    errors = detector.pattern_units_.default * detector.stream_errors(new)
    np.testing.assert_allclose(errors.mean(axis=1), np.square(distance).mean(axis=1))
    found, squared = detector.nearest_normal(new, n_videos=5)
    assert np.array_equal(found, index)
    np.testing.assert_allclose(squared, np.square(distance))


@pytest.mark.parametrize("method", METHODS)
def test_shares_sum_to_one_and_name_the_disturbed_stream(method: str) -> None:
    detector = PlainDetector(method, columns=COLUMNS).fit(normal(100), X_val=normal(50, seed=1))
    X = normal(30, seed=2)
    X[:, 10:] += 3 * np.random.default_rng(0).normal(size=(30, 30))
    shares = detector.attribution(X)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares[:, 1] > shares[:, 0]).mean() >= 0.8
    X[:, :10] = np.nan
    assert detector.attribution(X)[:, 0].tolist() == [0.0] * 30
    np.testing.assert_allclose(detector.stream_errors(X)[:, 1], detector.anomaly_score(X))


def test_neighbours_are_compared_on_common_streams_only() -> None:
    X = normal(60)
    X[:30, :10] = np.nan
    detector = PlainDetector("knn", columns=COLUMNS).fit(X, X_val=normal(50, seed=1))
    silent = X[:30].copy()
    assert detector.nearest_normal(silent, n_videos=1)[0][:, 0].tolist() == list(range(30))
    only_one = X[30:].copy()
    only_one[:, 10:] = np.nan
    index, distance = detector.nearest_normal(only_one, n_videos=3)
    assert (index >= 30).all()  # the others have no stream in common with it
    assert np.isfinite(distance).all()


def test_a_normal_video_is_not_nearer_for_lacking_a_stream() -> None:
    X = np.vstack([normal(40), np.zeros((2, 40))])
    X[41, 10:] = np.nan
    detector = PlainDetector("knn", columns=COLUMNS).fit(X, X_val=normal(50, seed=1))
    away = detector.standardiser_.sd[None]  # one sd from 0 in every column
    index, squared = detector.nearest_normal(away, n_videos=42)
    of = dict(zip(index[0].tolist(), squared[0].tolist(), strict=True))
    assert of[40] == pytest.approx(1)
    assert of[41] == pytest.approx(1)


@pytest.mark.parametrize("method", METHODS)
def test_a_score_does_not_depend_on_the_other_rows(method: str) -> None:
    detector = PlainDetector(method, columns=COLUMNS).fit(normal(60))
    X = normal(20, seed=1)
    alone = np.concatenate([detector.anomaly_score(X[i : i + 1]) for i in range(20)])
    assert np.array_equal(detector.anomaly_score(X), alone)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("columns", [None, COLUMNS])
def test_a_saved_detector_scores_bit_for_bit(method: str, columns: dict | None) -> None:
    detector = PlainDetector(method, columns=columns).fit(normal(60))
    arrays, config = detector.to_arrays()
    again = PlainDetector.from_arrays(arrays, json.loads(json.dumps(config, sort_keys=True)))
    X = swapped(10)
    assert np.array_equal(detector.score_samples(X), again.score_samples(X))
    assert np.array_equal(detector.predict(X), again.predict(X))
    with pytest.raises(ValueError, match=r"array 'rows' is \(48, 39\); it must be \(48, 40\)"):
        PlainDetector.from_arrays({**arrays, "rows": arrays["rows"][:, 1:]}, config)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="unknown detector 'lof'; available: pca, knn"):
        PlainDetector("lof")
    with pytest.raises(ValueError, match="there is 1 normal video"):
        PlainDetector("knn").fit(normal(1))
    with pytest.raises(ValueError, match="the 12 normal videos all have the same embedding"):
        PlainDetector("knn").fit(np.ones((15, 4)))
    with pytest.raises(ValueError, match="none of the 3 normal validation videos has a stream"):
        PlainDetector("knn", columns=COLUMNS).fit(normal(20), X_val=np.full((3, 40), np.nan))
    detector = PlainDetector("knn", columns=COLUMNS).fit(normal(20))
    with pytest.raises(ValueError, match="row 0 has none of the streams"):
        detector.anomaly_score(np.full((1, 40), np.nan))


def plain_pca_errors(detector: PlainDetector, Z: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The residual by scikit-learn's own transform and its inverse."""
    normal = detector.normality_
    weighted = normal.rows * normal.weight
    pca = PCA(normal.axes.shape[1], svd_solver="full").fit(weighted - weighted.mean(axis=0))
    residual = Z * normal.weight - pca.inverse_transform(pca.transform(Z * normal.weight))
    return stream_errors(residual / normal.weight, masks, COLUMNS)


def plain_knn_errors(detector: PlainDetector, Z: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The distance to the 5 nearest in plain loops over all normal videos."""
    errors, normal = np.zeros(masks.shape), detector.normality_
    for row, (z, mask) in enumerate(zip(Z, masks, strict=True)):
        common = normal.masks & mask
        n_common = common.sum(axis=1, keepdims=True)
        squares = stream_errors(normal.rows - z, common, COLUMNS)
        squares = np.where(n_common > 0, squares * mask.sum() / np.maximum(n_common, 1), np.inf)
        nearest = np.argsort(squares.sum(axis=1), kind="stable")[:5]
        errors[row] = squares[nearest].mean(axis=0)
    return errors


@pytest.mark.parametrize(
    ("method", "plain"), [("pca", plain_pca_errors), ("knn", plain_knn_errors)]
)
def test_errors_equal_scikit_learn_s_and_plain_loops_with_streams_missing(
    method: str, plain: Callable[..., np.ndarray]
) -> None:
    rng = np.random.default_rng(3)
    X, new = normal(120), normal(60, seed=4) + 0.3 * rng.normal(size=(60, 40))
    for rows in (X, new):  # some lack the first stream, some the second
        rows[::4, :10] = np.nan
        rows[1::5, 10:] = np.nan
    X, new = (rows[~np.isnan(rows).all(axis=1)] for rows in (X, new))
    detector = PlainDetector(method, columns=COLUMNS).fit(X, X_val=normal(50, seed=1))
    Z, masks = detector.standardiser_.transform(new), detector.standardiser_.masks(new)
    errors = detector.stream_errors(new)
    errors = errors * detector.pattern_units_.of(masks, detector.standardiser_)
    np.testing.assert_allclose(errors, plain(detector, Z, masks), rtol=1e-6, atol=1e-9)


def test_few_common_neighbours_give_a_finite_distance() -> None:
    X = normal(20)
    X[3:, 10:] = np.nan  # three normal videos have the second stream
    detector = PlainDetector("knn", columns=COLUMNS).fit(X, X_val=normal(50, seed=1))
    only_two = normal(4, seed=2)
    only_two[:, :10] = np.nan
    assert np.isfinite(detector.anomaly_score(only_two)).all()
    index, distance = detector.nearest_normal(only_two, n_videos=5)
    assert np.isinf(distance[:, 3:]).all()
    assert sorted(index[0, :3].tolist()) == [0, 1, 2]
