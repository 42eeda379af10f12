from __future__ import annotations

import json

import numpy as np
import pytest

from tristream.fusion.action.calibration import (
    Platt,
    Temperature,
    calibration_error,
    fit_platt,
    fit_temperature,
)
from tristream.fusion.action.classifier import (
    CalibratedSVM,
    calibrate,
    calibration_figures,
    class_index,
)
from tristream.fusion.action.score_fusion import softmax
from tristream.fusion.action.svm import fit_svm


def overlapping(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Four classes that nothing tells apart without error."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    return 1.2 * np.eye(4, 8)[y] + rng.normal(size=(n, 8)), np.array(["a", "b", "c", "d"])[y]


@pytest.fixture(scope="module")
def svm():
    return fit_svm(*overlapping(200, seed=0), l2=1.0)  # so strong that every margin is small


@pytest.mark.parametrize(("method", "kind"), [("temperature", Temperature), ("platt", Platt)])
def test_probabilities_mean_what_they_say_on_new_videos(svm, method: str, kind: type) -> None:
    machine = calibrate(svm, *overlapping(800, seed=1), method=method)
    assert isinstance(machine.calibration, kind)
    X, labels = overlapping(4000, seed=2)
    p, index = machine.probabilities(svm.decision_function(X)), class_index(labels, svm.classes_)
    assert calibration_error(p, index) < 0.05
    figures = calibration_figures(svm.decision_function(X), index, machine.calibration)
    assert figures is not None
    assert figures.nll_after < figures.nll_before
    assert figures.n == 4000


@pytest.mark.parametrize("max_error", [0.1, 0.2, 0.3])
def test_the_reject_option_keeps_the_stated_error_on_new_videos(svm, max_error: float) -> None:
    machine = calibrate(svm, *overlapping(2000, seed=1))
    rule = machine.rejection(max_error)
    X, labels = overlapping(8000, seed=2)
    scores = svm.decision_function(X)
    sure = machine.probabilities(scores).max(axis=1) >= rule.confidence
    wrong = (svm.classes_[scores.argmax(axis=1)] != labels)[sure]
    n_val = rule.kept * 2000
    error = np.sqrt(max_error * (1 - max_error) / n_val)
    assert 0 < sure.mean() < 1
    assert max_error - 6 * error <= wrong.mean() <= max_error  # the bound is below, not far below
    assert sure.mean() == pytest.approx(rule.kept, abs=0.05)


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_a_saved_machine_decides_bit_for_bit(svm, method: str) -> None:
    machine = calibrate(svm, *overlapping(100, seed=1), method=method)
    arrays, config = machine.to_arrays()
    again = CalibratedSVM.from_arrays(arrays, json.loads(json.dumps(config)))
    scores = svm.decision_function(overlapping(50, seed=3)[0])
    assert np.array_equal(machine.probabilities(scores), again.probabilities(scores))
    assert again.rejection(0.5) == machine.rejection(0.5)
    assert all(array.dtype.kind in "fui" for array in arrays.values())


def test_a_machine_that_was_stored_before_there_was_calibration_still_decides(svm) -> None:
    old = CalibratedSVM.from_arrays(*svm.to_arrays())
    assert old.calibration is None
    with pytest.raises(
        ValueError,
        match="0 labelled validation videos to calibrate on; margins are no probabilities",
    ):
        old.probabilities(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="no error can be promised"):
        old.rejection(0.1)


def test_validation_videos_of_unknown_classes_are_errors_of_the_reject_option_but_not_of_the_fit(
    svm,
) -> None:
    X, labels = overlapping(100, seed=1)
    more, names = np.r_[X, X[:50]], np.r_[labels, np.full(50, "unknown")]
    plain, mixed = calibrate(svm, X, labels), calibrate(svm, more, names)
    assert plain.calibration == mixed.calibration
    assert mixed.hits.sum() == plain.hits.sum()
    assert len(mixed.hits) == 150
    assert calibrate(svm, X[:50], np.full(50, "unknown")).calibration is None


def test_an_unknown_calibration_is_refused(svm) -> None:
    X, labels = overlapping(20, seed=1)
    with pytest.raises(
        ValueError, match="unknown calibration 'isotonic'; available: temperature, platt"
    ):
        calibrate(svm, X, labels, method="isotonic")
    arrays, config = calibrate(svm, X, labels).to_arrays()
    with pytest.raises(ValueError, match="unknown calibration 'beta'"):
        CalibratedSVM.from_arrays(arrays, {**config, "calibration": {"method": "beta"}})


def test_figures_equal_plain_sums_over_the_known_classes() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 3)), rng.integers(-1, 3, 50)
    known = labels >= 0
    figures = calibration_figures(scores, labels, Temperature(2.0))
    assert figures is not None
    p = softmax(scores[known])[np.arange(known.sum()), labels[known]]
    assert figures.nll_before == pytest.approx(-np.log(p).mean())
    assert figures.n == known.sum()
    assert calibration_figures(scores, np.full(50, -1), Temperature(1.0)) is None


def test_calibration_is_that_of_the_margins(svm) -> None:
    X, labels = overlapping(100, seed=1)
    scores, index = svm.decision_function(X), class_index(labels, svm.classes_)
    assert calibrate(svm, X, labels).calibration == fit_temperature(scores, index)
    platt = calibrate(svm, X, labels, method="platt").calibration
    assert isinstance(platt, Platt)
    assert np.array_equal(platt.slope, fit_platt(scores, index).slope)


STREAMS = {"one": slice(0, 6), "two": slice(6, 12), "three": slice(12, 18)}


def streams_of(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Eight classes seen by three streams, each of which tells some of them apart."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(0)
    centres = world.normal(size=(8, 18)) * 0.9
    y = np.arange(n) % 8
    return centres[y] + rng.normal(size=(n, 18)), y


@pytest.fixture(scope="module")
def by_pattern() -> CalibratedSVM:
    X, y = streams_of(400, 0)
    svm = fit_svm(X, y, columns=STREAMS)
    return calibrate(svm, *streams_of(600, 1))


def test_every_pattern_of_streams_is_calibrated_on_videos_masked_alike(by_pattern) -> None:
    assert set(by_pattern.patterns) == {
        "one", "two", "three", "one+two", "one+three", "two+three", "one+two+three"
    }  # fmt: skip
    X, y = streams_of(4000, 2)
    for pattern in by_pattern.patterns:
        mask = np.array([name in pattern.split("+") for name in STREAMS])
        masks = np.tile(mask, (len(X), 1))
        scores = by_pattern.svm.decision_function(X, masks=masks)
        own = by_pattern.probabilities(scores, masks)
        whole = by_pattern.probabilities(scores)
        assert calibration_error(own, y) < 0.05, pattern
        assert calibration_error(own, y) <= calibration_error(whole, y) + 0.01, pattern
        assert by_pattern.pattern(mask) == pattern


@pytest.mark.parametrize("n_present", [1, 2, 3])
def test_the_promised_error_holds_for_videos_that_lack_streams(by_pattern, n_present: int) -> None:
    X, y = streams_of(4000, 3)
    for pattern in by_pattern.patterns:
        if len(pattern.split("+")) != n_present:
            continue
        mask = np.array([name in pattern.split("+") for name in STREAMS])
        masks = np.tile(mask, (len(X), 1))
        scores = by_pattern.svm.decision_function(X, masks=masks)
        p = by_pattern.probabilities(scores, masks)
        named = p.max(axis=1) >= by_pattern.limit(0.1, mask)
        wrong = p.argmax(axis=1) != y
        assert not named.any() or wrong[named].mean() <= 0.1, pattern


def test_a_pattern_that_no_validation_video_has_is_not_called_calibrated() -> None:
    X, y = streams_of(400, 0)
    X_val, y_val = streams_of(200, 1)
    X_val[:, STREAMS["three"]] = np.nan
    machine = calibrate(fit_svm(X, y, columns=STREAMS), X_val, y_val)
    assert set(machine.patterns) == {"one", "two", "one+two"}
    every = np.ones(3, bool)
    assert machine.pattern(every) is None
    assert machine.limit(0.2, every) == np.inf
    arrays, config = machine.to_arrays()
    again = CalibratedSVM.from_arrays(arrays, json.loads(json.dumps(config)))
    assert set(again.patterns) == set(machine.patterns)
    two = np.array([True, True, False])
    assert again.limit(0.3, two) == machine.limit(0.3, two)
