"""Units, thresholds and combinations of streams: false alarms where videos lack streams, and what maxima find."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from tristream.errors import TristreamError
from tristream.fusion.anomaly import detectors
from tristream.fusion.anomaly.attribution import video_error
from tristream.fusion.anomaly.pattern_units import masked_copies, on_one_scale, patterns
from tristream.fusion.evaluate import auroc
from tristream.fusion.patterns import masked_alike, pattern_of
from tristream.fusion.standardise import fit_standardiser

NAMES = ("audio", "spatial", "temporal")
COLUMNS = {name: slice(12 * s, 12 * s + 12) for s, name in enumerate(NAMES)}


class World:
    """Videos of four classes on which three streams agree; every stream also varies along axes of its own."""

    def __init__(self, seed: int, width: int = 12) -> None:
        self.rng, self.width = np.random.default_rng(seed), width
        self.columns = {n: slice(width * s, width * (s + 1)) for s, n in enumerate(NAMES)}
        self.centres = self.rng.normal(size=(3, 4, width))
        self.axes = self.rng.normal(size=(3, 8, width)) / 8**0.5

    def draw(self, n: int, disturbed: str = "") -> np.ndarray:
        """Return normal videos, or ones that are disturbed in 'one' stream or thinly in 'all'."""
        own, odd = self.rng.integers(4, size=n), self.rng.integers(3, size=n)
        blocks = []
        for s in range(3):
            x = 0.7 * self.centres[s][own] + 0.6 * self.rng.normal(size=(n, 8)) @ self.axes[s]
            x += 0.4 * self.rng.normal(size=x.shape)
            size = {"": 0.0, "one": 0.5 * (odd == s)[:, None], "all": 0.25}[disturbed]
            blocks.append(np.tanh(x + size * self.rng.normal(size=x.shape)))
        return np.hstack(blocks)


def without(X: np.ndarray, columns: dict[str, slice], present: tuple[str, ...]) -> np.ndarray:
    X = X.copy()
    for name, block in columns.items():
        if name not in present:
            X[:, block] = np.nan
    return X


def false_alarms(kind: str, n_repeats: int, **changes: object) -> dict[int, float]:
    """Share of fresh normal videos that alarm, by how many of three streams they have."""
    alarms: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for seed in range(n_repeats):
        world = World(seed)
        detector = detectors.build(kind, columns=world.columns, seed=seed, **changes)
        detector.fit(world.draw(80), X_val=world.draw(59))
        for n, values in alarms.items():
            present = list(combinations(NAMES, n))[seed % (1 if n == 3 else 3)]
            values.append(
                (detector.predict(without(world.draw(60), world.columns, present)) == -1).mean()
            )
    return {n: float(np.mean(values)) for n, values in alarms.items()}


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["mean_max", "mean"])
def test_normal_videos_alarm_in_5_percent_with_three_two_or_one_stream_pca(combine: str) -> None:
    for n_streams, share in false_alarms("pca", 200, combine=combine).items():
        assert share == pytest.approx(0.05, abs=0.015), n_streams


@pytest.mark.slow
def test_normal_videos_alarm_in_5_percent_with_three_two_or_one_stream_autoencoder() -> None:
    for n_streams, share in false_alarms("autoencoder", 16, max_steps=300).items():
        assert share == pytest.approx(0.05, abs=0.025), n_streams


@pytest.mark.slow
def test_the_maximum_finds_an_anomaly_of_one_stream_and_loses_little_where_all_are_disturbed() -> (
    None
):
    gains: dict[str, list[float]] = {"one": [], "all": []}
    for seed in range(10):
        world = World(seed, width=128)
        detector = detectors.build("pca", columns=world.columns, seed=0)
        detector.fit(world.draw(50), X_val=world.draw(40))
        normal, truth = world.draw(100), np.repeat([0, 1], 100)
        for kind, values in gains.items():
            odd, by = world.draw(100, kind), {}
            for combine in ("mean", "mean_max"):
                detector.combine = combine
                scores = [detector.anomaly_score(X) for X in (normal, odd)]
                by[combine] = auroc(truth, np.concatenate(scores))
            values.append(by["mean_max"] - by["mean"])
    assert np.mean(gains["one"]) >= 0.04  # .855 → .924
    assert np.mean(gains["all"]) >= -0.03  # .810 → .793


def test_a_video_whose_streams_all_have_error_one_has_error_one_however_combined() -> None:
    masks = np.array([[True, True, True], [True, False, True]])
    for combine in ("mean", "mean_max"):
        assert video_error(masks.astype(float), masks, combine).tolist() == [1.0, 1.0]
    errors = np.array([[4.0, 1.0, 1.0], [4.0, 0.0, 2.0]])
    assert video_error(errors, masks, "mean").tolist() == [2.0, 3.0]
    assert video_error(errors, masks, "mean_max").tolist() == [3.0, 3.5]
    with pytest.raises(
        TristreamError, match="unknown combination 'max' of streams; available: mean_max"
    ):
        video_error(errors, masks, "max")


def test_shares_still_sum_to_one_and_a_single_stream_scores_its_error() -> None:
    world = World(0)
    detector = detectors.build("pca", columns=world.columns, seed=0).fit(world.draw(60))
    X = world.draw(9, "one")
    X[:3] = without(X[:3], world.columns, ("spatial",))
    np.testing.assert_allclose(detector.attribution(X).sum(axis=1), 1)
    np.testing.assert_allclose(detector.stream_errors(X)[:3, 1], detector.anomaly_score(X[:3]))


def test_rows_are_masked_to_each_pattern_that_they_have_all_streams_of() -> None:
    X = World(0).draw(6)
    X[:2] = without(X[:2], COLUMNS, ("audio", "temporal"))
    standardiser = fit_standardiser(X, columns=COLUMNS)
    names = patterns(standardiser)
    assert names[0] == "audio+spatial+temporal"
    assert sorted(names) == sorted("+".join(c) for n in (1, 2, 3) for c in combinations(NAMES, n))
    copies = masked_copies(X, standardiser)
    assert {name: len(rows) for name, rows in copies.items() if "spatial" in name} == dict.fromkeys(
        ["audio+spatial+temporal", "audio+spatial", "spatial+temporal", "spatial"], 4
    )
    assert len(copies["audio"]) == 6
    for name, rows in copies.items():
        assert {pattern_of(mask, NAMES) for mask in standardiser.masks(rows)} == {name}
    assert (
        masked_alike(standardiser.masks(X), "spatial", NAMES).tolist() == [False] * 2 + [True] * 4
    )


def test_a_score_at_its_own_limit_lies_at_the_common_threshold() -> None:
    limits = np.array([2.0, 0.5, -1.0])
    np.testing.assert_allclose(on_one_scale(limits, limits, 1.5), 1.5)
    np.testing.assert_allclose(on_one_scale(2 * limits[:2], limits[:2], 1.5), 3.0)
