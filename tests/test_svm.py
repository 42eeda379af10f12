from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.svm import SVC

from tristream.fusion.action import svm as svm_module
from tristream.fusion.action.svm import READINGS, LinearSVM, choose_l2, fit_svm, hinge_weight

COLUMNS = {"one": slice(0, 4), "two": slice(4, 10)}


def blobs(
    n: int = 60, *, n_classes: int = 3, width: int = 10, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    centres = rng.normal(size=(n_classes, width))
    return (centres[y] * 2 + rng.normal(size=(n, width))) * rng.uniform(0.1, 50, width), y


def divisors(X: np.ndarray) -> np.ndarray:
    """Deviations of the columns, at least a tenth of the root mean square of those of their stream."""
    sd = X.std(axis=0)
    return np.concatenate(
        [
            np.maximum(sd[block], 0.1 * np.sqrt(np.mean(sd[block] ** 2)))
            for block in COLUMNS.values()
        ]
    )


def primal(w: np.ndarray, b: float, Z: np.ndarray, sign: np.ndarray, C: float) -> float:
    return 0.5 * float(w @ w) + C * float(np.maximum(0, 1 - sign * (Z @ w + b)).sum())


def slow_optimum(Z: np.ndarray, sign: np.ndarray, C: float) -> float:
    """Hinge primal by a general convex solver, as a reference that shares nothing with libsvm."""
    from scipy.optimize import minimize

    n, width = Z.shape
    # variables w, b, slack; slack >= 0 and slack >= 1 - sign (Z w + b)
    rows = np.hstack([sign[:, None] * Z, sign[:, None], np.eye(n)])
    found = minimize(
        lambda v: 0.5 * v[:width] @ v[:width] + C * v[width + 1 :].sum(),
        np.r_[np.zeros(width + 1), np.ones(n)],
        jac=lambda v: np.r_[v[:width], 0, np.full(n, C)],
        constraints={"type": "ineq", "fun": lambda v: rows @ v - 1, "jac": lambda v: rows},
        bounds=[(None, None)] * (width + 1) + [(0, None)] * n,
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert found.success, found.message
    return float(found.fun)


@pytest.mark.parametrize("gram_rows", [0, 100])
def test_each_class_reaches_the_optimum_of_the_hinge_primal(
    gram_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svm_module, "GRAM_ROWS", gram_rows)
    X, y = blobs(45, width=6)
    svm = fit_svm(X, y, l2=1e-2)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    for k in range(3):
        sign = np.where(y == k, 1.0, -1.0)
        best = slow_optimum(Z, sign, svm.C_)
        assert (
            best - 1e-6
            <= primal(svm.coef_[k], svm.intercept_[k], Z, sign, svm.C_)
            <= best * (1 + 1e-3)
        )


def test_margins_equal_those_of_libsvm_on_standardised_columns() -> None:
    X, y = blobs(80)
    svm = fit_svm(X, y, columns=COLUMNS)
    Z = (X - X.mean(axis=0)) / divisors(X)
    for k in range(3):
        reference = SVC(kernel="linear", C=1 / (80 * 1e-2), tol=1e-8).fit(Z, y == k)
        np.testing.assert_allclose(
            svm.decision_function(X)[:, k], reference.decision_function(Z), atol=1e-2
        )


def test_three_readings_give_the_weights_of_the_paper_s_split() -> None:
    n = 9537  # training videos of UCF101 split 1
    assert hinge_weight(1e-2, n, "mean_hinge") == pytest.approx(0.010485478, abs=1e-9)
    assert hinge_weight(1e-2, n, "keras") == pytest.approx(0.005242739, abs=1e-9)
    assert hinge_weight(1e-2, n, "libsvm") == 1e-2
    X, y = blobs(50)
    assert {reading: fit_svm(X, y, reading=reading).C_ for reading in READINGS} == {
        "mean_hinge": pytest.approx(2.0),
        "keras": pytest.approx(1.0),
        "libsvm": 1e-2,
    }


@pytest.mark.parametrize("content", [np.nan, np.inf, 0.0, 1e30, "noise"])
def test_a_masked_stream_changes_nothing_whatever_it_holds(content: float | str) -> None:
    X, y = blobs()
    svm = fit_svm(X, y, columns=COLUMNS)
    masks = np.random.default_rng(1).random((60, 2)) < 0.5
    other = X.copy()
    for s, block in enumerate(COLUMNS.values()):
        shape = other[~masks[:, s], block].shape
        fill = (
            np.random.default_rng(2).normal(size=shape)
            if content == "noise"
            else np.full(shape, content)
        )
        other[~masks[:, s], block] = fill
    assert np.array_equal(
        svm.decision_function(X, masks=masks), svm.decision_function(other, masks=masks)
    )


def test_masks_in_training_equal_blocks_of_nan() -> None:
    X, y = blobs()
    masks = np.random.default_rng(1).random((60, 2)) < 0.7
    holes = X.copy()
    for s, block in enumerate(COLUMNS.values()):
        holes[~masks[:, s], block] = np.nan
    by_mask, by_nan = (
        fit_svm(X, y, columns=COLUMNS, masks=masks),
        fit_svm(holes, y, columns=COLUMNS),
    )
    assert np.array_equal(by_mask.coef_, by_nan.coef_)
    assert np.array_equal(by_mask.predict(X, masks=masks), by_nan.predict(holes))


def test_a_stream_is_standardised_on_the_videos_that_have_it() -> None:
    X, y = blobs()
    X[::2, COLUMNS["two"]] = np.nan
    svm = fit_svm(X, y, columns=COLUMNS)
    np.testing.assert_allclose(
        svm.standardiser.mean[COLUMNS["two"]], X[1::2, COLUMNS["two"]].mean(axis=0)
    )
    Z = svm.standardiser.transform(X)
    assert not Z[::2, COLUMNS["two"]].any()
    seen = X[1::2, COLUMNS["two"]]
    expected = seen.std(axis=0) / np.maximum(
        seen.std(axis=0), 0.1 * np.sqrt(seen.var(axis=0).mean())
    )
    np.testing.assert_allclose(Z[1::2, COLUMNS["two"]].std(axis=0), expected)


def test_a_unit_that_is_almost_silent_is_not_made_as_loud_as_the_others() -> None:
    """Networks end in a ReLU: beside the units that tell the classes apart are hundreds that fire once by chance."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    telling = (y[:, None] * 1.0 + rng.normal(size=(400, 4))).clip(0)
    chance = 0.02 * (rng.random((400, 500)) < 0.02) * rng.random((400, 500))
    X, columns = np.hstack([telling, chance]), {"audio": slice(0, 504)}
    train, test = np.arange(400) < 100, np.arange(400) >= 100
    svm = fit_svm(X[train], y[train], columns=columns)
    deviations = X[train].std(axis=0)
    assert np.allclose(svm.standardiser.sd[:4], deviations[:4])
    assert np.allclose(svm.standardiser.sd[4:], 0.1 * np.sqrt(np.mean(deviations**2)))
    whole = fit_svm(
        X[train], y[train]
    )  # of columns without a name nothing is known: they may be of different units
    assert np.allclose(whole.standardiser.sd, np.where(deviations > 0, deviations, 1))
    reached, without = ((found.predict(X[test]) == y[test]).mean() for found in (svm, whole))
    assert reached > without + 0.05


def test_a_stream_that_training_never_had_stays_out() -> None:
    X, y = blobs()
    silent = X.copy()
    silent[:, COLUMNS["two"]] = np.nan
    svm = fit_svm(silent, y, columns=COLUMNS)
    assert np.array_equal(svm.decision_function(silent), svm.decision_function(X))


def test_a_row_does_not_depend_on_its_mates() -> None:
    X, y = blobs(61, n_classes=5)
    svm = fit_svm(X, y)
    together = svm.decision_function(X)
    for row in range(61):
        assert np.array_equal(svm.decision_function(X[row : row + 1])[0], together[row])


def test_a_column_that_does_not_vary_is_harmless() -> None:
    X, y = blobs()
    X[:, 3] = np.float32(0.1)
    svm = fit_svm(X, y)
    assert svm.standardiser.sd[3] == 1
    assert np.isfinite(svm.decision_function(X)).all()


def test_two_classes_give_two_margins_that_mirror_each_other() -> None:
    X, y = blobs(40, n_classes=2)
    margins = fit_svm(X, np.where(y == 1, "walk", "run")).decision_function(X)
    assert margins.shape == (40, 2)
    np.testing.assert_allclose(margins[:, 0], -margins[:, 1], atol=1e-3)


def test_planted_classes_are_found_again_by_name() -> None:
    X, y = blobs(90)
    names = np.array(["walk", "run", "jump"])[y]
    svm = fit_svm(X[:60], names[:60])
    assert svm.classes_.tolist() == ["jump", "run", "walk"]
    assert (svm.predict(X[60:]) == names[60:]).mean() >= 0.9


@pytest.mark.parametrize("labels", [np.array(["b", "a", "c"]), np.array([7, 3, 5])])
def test_a_saved_machine_predicts_bit_for_bit(labels: np.ndarray) -> None:
    X, y = blobs()
    X[::3, COLUMNS["one"]] = np.nan
    svm = fit_svm(X, labels[y], columns=COLUMNS)
    arrays, config = svm.to_arrays()
    again = LinearSVM.from_arrays(arrays, json.loads(json.dumps(config, sort_keys=True)))
    assert np.array_equal(svm.decision_function(X), again.decision_function(X))
    assert again.predict(X).tolist() == svm.predict(X).tolist()
    assert list(again.standardiser.columns) == ["one", "two"]
    assert all(array.dtype.kind in "fu" for array in arrays.values())


def test_a_damaged_machine_is_refused() -> None:
    X, y = blobs()
    arrays, config = fit_svm(X, y).to_arrays()
    with pytest.raises(
        ValueError, match=r"array 'coef' is missing; the file holds: intercept, known, mean, sd"
    ):
        LinearSVM.from_arrays(
            {name: array for name, array in arrays.items() if name != "coef"}, config
        )
    with pytest.raises(ValueError, match=r"array 'coef' is \(3, 9\); it must be \(3, 10\)"):
        LinearSVM.from_arrays({**arrays, "coef": arrays["coef"][:, 1:]}, config)
    with pytest.raises(ValueError, match=r"array 'coef' holds values that are not finite"):
        LinearSVM.from_arrays({**arrays, "coef": arrays["coef"] * np.nan}, config)


def test_cross_validation_prefers_the_l2_that_generalises_and_never_splits_a_group() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = np.hstack([y[:, None] * 1.0, rng.normal(size=(60, 40))]) + 0.3 * rng.normal(size=(60, 41))
    best, accuracy = choose_l2(X, y, np.arange(60) // 4, candidates=(1e-4, 1e-1, 1e3))
    assert best == max(accuracy, key=lambda l2: (accuracy[l2], l2))
    leaked = np.hstack(
        [X, np.repeat(rng.normal(size=(15, 200)), 4, axis=0)]
    )  # the group's own signature
    by_group = np.arange(60) // 4
    per_group_label = (by_group % 2 == 0).astype(int)
    _, grouped = choose_l2(leaked[:, 41:], per_group_label, by_group, candidates=(1e-2,))
    _, split = choose_l2(leaked[:, 41:], per_group_label, np.arange(60), candidates=(1e-2,))
    assert split[1e-2] == 1 > grouped[1e-2] + 0.2


def test_stream_dropout_minimises_the_mean_hinge_over_withheld_streams() -> None:
    X, y = blobs(40, n_classes=2)
    X[:5, COLUMNS["one"]] = np.nan  # these have one stream only, which is never withheld
    svm = fit_svm(X, y, columns=COLUMNS, stream_dropout=0.4)
    Z = svm.standardiser.transform(X)
    one, two = Z.copy(), Z.copy()
    one[:, COLUMNS["two"]], two[:, COLUMNS["one"]] = 0, 0
    both = np.arange(40) >= 5
    rows = np.vstack([Z, one[both], two[both]])
    signs = np.where(np.r_[y, y[both], y[both]] == 1, 1.0, -1.0)
    weights = np.r_[np.where(both, 0.6, 1.0), np.full(35, 0.2), np.full(35, 0.2)]
    assert weights.sum() == pytest.approx(40)
    reference = SVC(kernel="linear", C=svm.C_, tol=1e-8).fit(rows, signs, sample_weight=weights)
    np.testing.assert_allclose(
        svm.decision_function(X)[:, 1], reference.decision_function(Z), atol=1e-2
    )
    assert pytest.approx(1 / (40 * 1e-2)) == svm.C_


def test_stream_dropout_costs_less_where_a_stream_is_withheld() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    sure, weak = (
        y[:, None] * 4 + 0.1 * rng.normal(size=(400, 4)),
        y[:, None] * 1.5 + rng.normal(size=(400, 6)),
    )
    X, less = np.hstack([sure, weak]), np.column_stack([np.zeros(200, bool), np.ones(200, bool)])
    plain, dropped = (
        fit_svm(X[:200], y[:200], columns=COLUMNS, stream_dropout=share) for share in (0.0, 0.5)
    )
    margins = [
        svm.decision_function(X[200:], masks=less)[:, 1] * np.where(y[200:], 1, -1)
        for svm in (plain, dropped)
    ]
    assert np.maximum(0, 1 - margins[1]).mean() < np.maximum(0, 1 - margins[0]).mean() - 0.1
    assert np.array_equal(dropped.predict(X[200:]), y[200:])


def test_columns_may_be_left_as_they_are() -> None:
    X, y = blobs()
    X = X / np.abs(X).max()
    svm = fit_svm(X, y, standardise=False)
    reference = SVC(kernel="linear", C=svm.C_, tol=1e-8).fit(X, y == 0)
    np.testing.assert_allclose(
        svm.decision_function(X)[:, 0], reference.decision_function(X), atol=1e-2
    )
    X[::2, COLUMNS["two"]] = np.nan
    Z = fit_svm(X, y, columns=COLUMNS, standardise=False).standardiser.transform(X)
    np.testing.assert_array_equal(Z, np.nan_to_num(X))


def test_bad_input_is_named() -> None:
    X, y = blobs()
    with pytest.raises(
        ValueError, match=r"training videos hold only 'walk'; an SVM needs two classes"
    ):
        fit_svm(X, ["walk"] * 60)
    with pytest.raises(ValueError, match=r"hold no video at all"):
        fit_svm(X[:0], [])
    with pytest.raises(ValueError, match=r"y has 59 labels; X has 60 rows"):
        fit_svm(X, y[:59])
    with pytest.raises(ValueError, match=r"l2 is 0.0; it must be above 0"):
        fit_svm(X, y, l2=0.0)
    with pytest.raises(
        ValueError, match=r"unknown reading 'sgd'; available: mean_hinge, keras, libsvm"
    ):
        fit_svm(X, y, reading="sgd")
    with pytest.raises(
        ValueError, match=r"stream_dropout is 1.0; it must be at least 0 and below 1"
    ):
        fit_svm(X, y, stream_dropout=1.0)
    with pytest.raises(ValueError, match=r"3 groups cannot make 5 folds"):
        choose_l2(X, y, np.arange(60) % 3)
    holes = X.copy()
    holes[7, 5] = np.nan
    with pytest.raises(
        ValueError, match=r"row 7 holds nan; every value must be finite .*pass columns="
    ):
        fit_svm(holes, y)
    with pytest.raises(ValueError, match=r"row 7 is NaN in 1 of the 6 columns of 'two'"):
        fit_svm(holes, y, columns=COLUMNS)
    holes[7, 5] = np.inf
    with pytest.raises(ValueError, match=r"row 7 holds inf in 'two'"):
        fit_svm(holes, y, columns=COLUMNS)
    svm = fit_svm(X, y, columns=COLUMNS)
    with pytest.raises(
        ValueError, match=r"X is \(60, 9\); the fit has seen 10 columns \(one 4, two 6\)"
    ):
        svm.predict(X[:, :9])
    with pytest.raises(
        ValueError, match=r"masks are \(60, 3\); 60 rows and 2 streams need \(60, 2\)"
    ):
        svm.predict(X, masks=np.ones((60, 3), dtype=bool))
    with pytest.raises(ValueError, match=r"columns cover 4 features \(one 4\); X has 10"):
        fit_svm(X, y, columns={"one": slice(0, 4)})
    with pytest.raises(ValueError, match=r"'two' takes 5:10, which must begin at 4"):
        fit_svm(X, y, columns={"one": slice(0, 4), "two": slice(5, 10)})


@pytest.mark.slow
def test_scikit_learn_s_own_checks_pass() -> None:
    # In its own process: they pass wrong types on purpose, which the suite's checked signatures refuse.
    program = (
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from tristream.fusion.action.svm import LinearSVM\n"
        "found = check_estimator(LinearSVM(), on_fail=None, on_skip=None)\n"
        "print(len(found), [c['check_name'] for c in found if c['status'] == 'failed'])"
    )
    home = Path(__file__).parents[1]
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    n_checks, failed = done.stdout.split(maxsplit=1)
    assert int(n_checks) > 40, done.stderr
    assert failed.strip() == "[]"


def test_one_margin_of_two_classes_is_the_difference_of_both() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)), np.arange(60) % 2
    X[y == 1] += 1.0
    both, one = fit_svm(X, y), LinearSVM().fit(X, y)
    margins = both.decision_function(X)
    assert margins.shape == (60, 2)
    assert np.array_equal(one.decision_function(X), margins[:, 1] - margins[:, 0])
    assert np.array_equal(one.predict(X), both.predict(X))
    assert np.array_equal(one.predict(X), (one.decision_function(X) > 0).astype(int))
