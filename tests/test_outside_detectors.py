from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("pyod", reason="PyOD is the extra 'detectors'")

from tristream.fusion.anomaly import detectors
from tristream.fusion.anomaly.pyod_adapter import OutsideDetector
from tristream.fusion.evaluate import auroc

COLUMNS = {"one": slice(0, 6), "two": slice(6, 14)}


def normal(n: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 14))


def odd(n: int, *, seed: int = 5) -> np.ndarray:
    X = normal(n, seed=seed)
    X[:, 6:] *= 4
    return X


@pytest.mark.parametrize("name", ["ECOD", "IForest", "LOF"])
def test_what_lies_far_out_scores_higher_and_its_stream_is_named(name: str) -> None:
    detector = OutsideDetector(name, columns=COLUMNS).fit(normal(150), X_val=normal(60, seed=1))
    scores = [detector.anomaly_score(X) for X in (normal(30, seed=2), odd(30))]
    assert auroc(np.repeat([0, 1], 30), np.concatenate(scores)) >= 0.9
    shares = detector.attribution(odd(30))
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares[:, 1] > shares[:, 0]).mean() >= 0.9
    np.testing.assert_allclose(detector.stream_errors(odd(30)).mean(axis=1), scores[1])
    if name != "IForest":  # whose scores fall below 0 for what is normal: they keep their own unit
        assert np.median(detector.anomaly_score(normal(60, seed=1))) == pytest.approx(1)


@pytest.mark.parametrize("name", ["ECOD", "IForest"])
def test_a_score_depends_on_no_other_row_and_survives_storage_bit_for_bit(name: str) -> None:
    detector = OutsideDetector(name, columns=COLUMNS).fit(normal(80), X_val=normal(40, seed=1))
    X = odd(6)
    X[0, :6] = np.nan
    alone = np.concatenate([detector.anomaly_score(X[i : i + 1]) for i in range(6)])
    assert np.array_equal(detector.anomaly_score(X), alone)
    arrays, config = detector.to_arrays()
    again = detectors.load(f"pyod.{name}", arrays, json.loads(json.dumps(config)))
    assert np.array_equal(again.anomaly_score(X), alone)
    assert detector.attribution(X)[0].tolist() == [0.0, 1.0]


def test_kinds_are_built_by_name_and_others_are_named() -> None:
    for kind in ("autoencoder", "pca", "knn", "pyod.HBOS"):
        fitted = detectors.build(kind, columns=COLUMNS, seed=0).fit(
            normal(40), X_val=normal(20, seed=1)
        )
        assert len(fitted.anomaly_score(odd(3))) == 3
    with pytest.raises(
        ValueError, match=r"unknown detector 'gan'; available: autoencoder, pca, knn, pyod.NAME"
    ):
        detectors.check_kind("gan")
    with pytest.raises(ValueError, match="PyOD has no detector 'Magic'; some that it has: ECOD"):
        detectors.check_kind("pyod.Magic")
    with pytest.raises(ValueError, match=r"'pyod.DeepSVDD' trains a network of its own"):
        detectors.check_kind("pyod.DeepSVDD")
    with pytest.raises(ValueError, match="the 12 normal videos all have the same embedding"):
        OutsideDetector("ECOD").fit(np.ones((15, 4)))
