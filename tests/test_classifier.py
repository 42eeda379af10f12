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
def test_the_reject_option_reaches_the_stated_error_on_new_videos(svm, max_error: float) -> None:
    machine = calibrate(svm, *overlapping(2000, seed=1))
    rule = machine.rejection(max_error)
    X, labels = overlapping(8000, seed=2)
    scores = svm.decision_function(X)
    sure = machine.probabilities(scores).max(axis=1) >= rule.confidence
    wrong = (svm.classes_[scores.argmax(axis=1)] != labels)[sure]
    n_val = rule.kept * 2000
    assert 0 < sure.mean() < 1
    assert wrong.mean() == pytest.approx(
        max_error, abs=3 * np.sqrt(max_error * (1 - max_error) / n_val)
    )
    assert sure.mean() == pytest.approx(rule.kept, abs=0.05)


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_a_saved_machine_decides_bit_for_bit(svm, method: str) -> None:
    machine = calibrate(svm, *overlapping(100, seed=1), method=method)
    arrays, config = machine.to_arrays()
    again = CalibratedSVM.from_arrays(arrays, json.loads(json.dumps(config)))
    scores = svm.decision_function(overlapping(50, seed=3)[0])
    assert np.array_equal(machine.probabilities(scores), again.probabilities(scores))
    assert again.rejection(0.5) == machine.rejection(0.5)
    assert all(array.dtype.kind in "fu" for array in arrays.values())


def test_a_machine_that_was_stored_before_there_was_calibration_still_decides(svm) -> None:
    old = CalibratedSVM.from_arrays(*svm.to_arrays())
    assert old.calibration is None
    with pytest.raises(
        ValueError,
        match="0 labelled validation videos to calibrate on; margins are no probabilities",
    ):
        old.probabilities(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="an error cannot be promised"):
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
