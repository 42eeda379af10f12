from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.action.calibration import (
    Platt,
    Temperature,
    calibration_error,
    choose_rejection,
    fit_platt,
    fit_temperature,
    negative_log_likelihood,
)
from tristream.fusion.action.score_fusion import softmax


def overconfident(
    n: int, *, factor: float = 4.0, classes: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `factor` times too large for labels that are drawn from the softmax of the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    labels = np.array([rng.choice(classes, p=p) for p in softmax(logits)])
    return factor * logits, labels


def test_the_planted_temperature_is_found_again() -> None:
    scores, labels = overconfident(4000)
    assert fit_temperature(scores, labels).temperature == pytest.approx(4, rel=0.07)


def test_temperature_lowers_nll_and_calibration_error_on_new_videos_and_never_changes_the_class() -> (
    None
):
    calibration = fit_temperature(*overconfident(1000))
    scores, labels = overconfident(2000, seed=1)
    before, after = softmax(scores), calibration.probabilities(scores)
    assert negative_log_likelihood(after, labels) < negative_log_likelihood(before, labels) - 0.3
    assert calibration_error(after, labels) < 0.05 < calibration_error(before, labels)
    assert np.array_equal(after.argmax(axis=1), scores.argmax(axis=1))
    np.testing.assert_allclose(after.sum(axis=1), 1)


def test_temperature_keeps_the_class_of_scores_that_nearly_tie() -> None:
    scores = np.array([[1.0, 1.0 + 1e-12, 0.0]])
    assert Temperature(3.0).probabilities(scores).argmax() == 1


def test_platt_on_held_out_margins_equals_scikit_learn_s_calibrated_classifier() -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(0)
    y = np.arange(150) % 3
    X = rng.normal(size=(3, 6))[y] + rng.normal(size=(150, 6))
    svm = LinearSVC().fit(X[:80], y[:80])
    reference = CalibratedClassifierCV(FrozenEstimator(svm), method="sigmoid").fit(
        X[80:120], y[80:120]
    )
    platt = fit_platt(svm.decision_function(X[80:120]), y[80:120])
    found = platt.probabilities(svm.decision_function(X[120:]))
    np.testing.assert_allclose(found, reference.predict_proba(X[120:]), atol=1e-4)


def test_platt_survives_a_class_that_is_told_apart_without_error_and_one_that_never_occurs() -> (
    None
):
    labels = np.arange(20) % 2
    scores = np.where(labels[:, None] == np.arange(3), 5.0, -5.0)
    platt = fit_platt(scores, labels)
    assert np.isfinite(platt.slope).all()
    assert (platt.slope[2], platt.offset[2]) == (1, 0)
    assert np.isfinite(platt.probabilities(scores * 1e4)).all()


def test_a_saved_platt_gives_the_same_probabilities() -> None:
    scores, labels = overconfident(200)
    platt = fit_platt(scores, labels)
    again = Platt.from_arrays(*platt.to_arrays())
    assert np.array_equal(platt.probabilities(scores), again.probabilities(scores))
    with pytest.raises(ValueError, match=r"array 'slope' is \(5,\); it must be \(4,\)"):
        Platt.from_arrays({"slope": np.ones(5), "offset": np.ones(4)}, {})


def test_calibration_error_is_the_mean_gap_over_bins() -> None:
    scores, labels = overconfident(500)
    p = softmax(scores)
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == labels
    slow = 0.0
    for b in range(15):
        inside = (confidence >= b / 15) & ((confidence < (b + 1) / 15) | (b == 14))
        if inside.any():
            slow += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    assert calibration_error(p, labels) == pytest.approx(slow)
    assert calibration_error(np.eye(3), np.arange(3)) == 0


def test_videos_of_unknown_class_do_not_enter_calibration() -> None:
    scores, labels = overconfident(300)
    unknown = np.r_[labels, -np.ones(50, dtype=int)]
    more = np.r_[scores, 100 * np.random.default_rng(0).normal(size=(50, 5))]
    assert fit_temperature(more, unknown) == fit_temperature(scores, labels)


def test_rejection_names_as_many_as_the_error_allows() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.7, 0.6, 0.5])
    hits = np.array([True, True, True, False, True, False])
    found = choose_rejection(confidence, hits, max_error=0.25)
    assert (found.confidence, found.error, found.kept) == (0.6, 0.2, 5 / 6)
    assert (
        choose_rejection(confidence, hits, max_error=0.0).confidence == 0.8
    )  # not .7: its twin is wrong
    with pytest.raises(
        ValueError, match=r"no confidence brings the error to 0.1 on 2 .* the least is 0.500"
    ):
        choose_rejection([0.9, 0.8], np.array([False, True]), max_error=0.1)
    with pytest.raises(ValueError, match="error 5 is not between 0 and 1"):
        choose_rejection([0.9], np.array([True]), max_error=5.0)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="label 7 has no column; scores have 3 classes"):
        fit_temperature(np.zeros((2, 3)), np.array([0, 7]))
    with pytest.raises(ValueError, match="0 labelled videos to calibrate on"):
        fit_platt(np.zeros((2, 3)), np.array([-1, -1]))
