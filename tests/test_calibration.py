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
from tristream.fusion.intervals import design_effect


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


def test_rejection_names_as_many_as_the_bound_allows() -> None:
    from scipy.stats import binomtest

    confidence = np.r_[np.linspace(0.99, 0.6, 100), 0.5, 0.5]
    hits = np.r_[np.ones(100, bool), True, False]
    hits[60] = False
    rule = choose_rejection(confidence, hits, max_error=0.05)
    named = confidence >= rule.confidence
    n, wrong = int(named.sum()), int((named & ~hits).sum())
    bound = binomtest(wrong, n).proportion_ci(0.90).high  # two-sided 90 %: one-sided 95 %
    assert rule.upper == pytest.approx(bound)
    assert rule.upper <= 0.05
    assert n == 100  # not .5: one of the twins is wrong, and they are refused together
    assert (rule.error, rule.kept) == (0.01, 100 / 102)


def test_everything_may_be_named_where_nothing_is_wrong() -> None:
    rule = choose_rejection(np.linspace(0.3, 0.9, 100), np.ones(100, bool), max_error=0.2)
    assert (rule.confidence, rule.kept, rule.error) == (0.0, 1.0, 0.0)
    assert choose_rejection([0.4], np.array([False]), max_error=1.0).confidence == 0.0


def test_a_promise_that_so_few_videos_cannot_keep_is_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match=r"to 0.05: on 20 val.*it takes 59 of them without"):
        choose_rejection(np.full(20, 0.9), np.ones(20, bool), max_error=0.05)
    with pytest.raises(ValueError, match="no number of videos can promise an error of 0"):
        choose_rejection(np.full(20, 0.9), np.ones(20, bool), max_error=0.0)
    assert choose_rejection(np.full(59, 0.9), np.ones(59, bool), max_error=0.05).kept == 1
    with pytest.raises(ValueError, match="error 5 is not between 0 and 1"):
        choose_rejection([0.9], np.array([True]), max_error=5.0)


def test_videos_of_one_source_count_as_fewer() -> None:
    rng = np.random.default_rng(0)
    bad = np.repeat(rng.random(40) < 0.1, 10)  # whole sources are wrong together
    groups = np.repeat(np.arange(40), 10)
    assert design_effect(~bad, groups) == pytest.approx(10, rel=0.2)
    assert design_effect(rng.random(400) < 0.5, groups) == pytest.approx(1, abs=0.5)
    assert design_effect(~bad, np.arange(400)) == 1.0
    alone = choose_rejection(np.full(400, 0.9), ~bad, max_error=0.3)
    assert choose_rejection(np.full(400, 0.9), ~bad, max_error=0.3, groups=groups).upper > (
        alone.upper + 0.03
    )


@pytest.mark.slow
@pytest.mark.parametrize("max_error", [0.05, 0.1, 0.2])
@pytest.mark.parametrize(("n_val", "skill"), [(150, 0.9), (400, 0.9), (400, 0.7), (1000, 0.7)])
def test_the_error_among_the_named_is_at_most_what_was_asked_in_nine_runs_of_ten(
    max_error: float, n_val: int, skill: float
) -> None:
    rng = np.random.default_rng(1)
    broken, n_runs = 0, 400
    for _ in range(n_runs):
        confidence = rng.beta(6 * skill, 6 * (1 - skill), size=n_val)
        try:
            rule = choose_rejection(confidence, rng.random(n_val) < confidence, max_error=max_error)
        except ValueError:
            continue  # refused: nothing was promised
        fresh = rng.beta(6 * skill, 6 * (1 - skill), size=4000)
        named = fresh >= rule.confidence
        broken += bool(named.any() and (rng.random(4000) >= fresh)[named].mean() > max_error)
    assert broken <= 0.1 * n_runs


def test_a_small_set_without_a_mistake_gives_no_certainty() -> None:
    """20 validation videos, all correct by far: probabilities on fresh videos stay useful."""
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 4
    scores = 3.0 * np.eye(4)[labels] + 0.1 * rng.normal(size=(20, 4))
    curve = fit_temperature(scores, labels)
    assert 0.3 < curve.temperature < 1  # the likelihood alone goes to its bound, exp(-6)
    assert curve.floor == 0.1 / 22
    wrong = curve.probabilities(3.0 * np.eye(4)[[1]])
    assert -np.log(wrong[0, 0]) < 7  # nats; by maximum likelihood alone, hundreds


@pytest.mark.slow
def test_calibration_is_never_worse_than_none_on_fresh_videos() -> None:
    """Mean over repetitions, by number of classes, skill and validation videos."""
    from tristream.fusion.action.svm import fit_svm

    rng = np.random.default_rng(0)
    for n_classes, distance, n_val in ((4, 0.7, 20), (16, 0.7, 50), (16, 0.35, 50), (8, 0.35, 200)):
        gains = []
        for _ in range(20):
            centres = rng.normal(size=(n_classes, 64)) * distance

            def draw(n, centres=centres, n_classes=n_classes):
                y = np.r_[np.arange(n_classes), rng.integers(n_classes, size=n - n_classes)]
                return centres[y] + rng.normal(size=(n, 64)), y

            svm = fit_svm(*draw(12 * n_classes))
            (X_val, y_val), (X, y) = draw(n_val), draw(1000)
            curve = fit_temperature(svm.decision_function(X_val), y_val)
            scores = svm.decision_function(X)
            before, after = softmax(scores), curve.probabilities(scores)
            gains.append(
                [
                    calibration_error(before, y) - calibration_error(after, y),
                    negative_log_likelihood(before, y) - negative_log_likelihood(after, y),
                ]
            )
        assert (np.mean(gains, axis=0) > 0).all(), (n_classes, distance, n_val)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="label 7 has no column; scores have 3 classes"):
        fit_temperature(np.zeros((2, 3)), np.array([0, 7]))
    with pytest.raises(ValueError, match="0 labelled videos to calibrate on"):
        fit_platt(np.zeros((2, 3)), np.array([-1, -1]))
