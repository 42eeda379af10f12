from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from tristream.fusion.anomaly.autoencoder import AutoencoderDetector
from tristream.fusion.anomaly.bottleneck import reconstruct
from tristream.fusion.evaluate import auroc

WIDTHS = {"look": 96, "move": 32, "sound": 64}
COLUMNS = {"look": slice(0, 96), "move": slice(96, 128), "sound": slice(128, 192)}


class World:
    """Embeddings of three streams whose normal videos are coherent: all streams say the same of three classes.

    Beside the class (half of the variance) every stream varies along eight axes of its own, plus noise, and is
    squashed like the state of a GRU.
    """

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = {name: self.rng.normal(size=(4, width)) for name, width in WIDTHS.items()}
        self.axes = {
            name: self.rng.normal(size=(8, width)) / 8**0.5 for name, width in WIDTHS.items()
        }

    def draw(self, n: int, kind: str = "normal") -> np.ndarray:
        own = self.rng.integers(3, size=n)
        odd = self.rng.integers(3, size=n)  # the stream that is not like the others
        blocks = []
        for s, name in enumerate(WIDTHS):
            says = own.copy()
            if kind == "swapped":
                says = np.where(odd == s, (own + 1 + self.rng.integers(2, size=n)) % 3, own)
            if kind == "novel":
                says = np.where(odd == s, 3, own)
            style = self.rng.normal(size=(n, 8)) @ self.axes[name]
            noise = self.rng.normal(size=(n, WIDTHS[name]))
            blocks.append(np.tanh(0.7 * self.centres[name][says] + 0.6 * style + 0.2 * noise))
        return np.hstack(blocks)


def against_normal(detector: AutoencoderDetector, normal: np.ndarray, odd: np.ndarray) -> float:
    scores = np.r_[detector.anomaly_score(normal), detector.anomaly_score(odd)]
    return auroc(np.repeat([0, 1], [len(normal), len(odd)]), scores)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def fused(world: World) -> AutoencoderDetector:
    return AutoencoderDetector(columns=COLUMNS).fit(world.draw(120), X_val=world.draw(60))


@pytest.mark.slow
def test_scikit_learn_s_own_checks_pass() -> None:
    # In a process of its own: they pass wrong types on purpose, which the suite's checked signatures would refuse.
    program = (
        "from sklearn.utils.estimator_checks import check_estimator\n"
        "from tristream.fusion.anomaly.autoencoder import AutoencoderDetector\n"
        "found = check_estimator(AutoencoderDetector(), on_fail=None, on_skip=None)\n"
        "print(len(found), [check['check_name'] for check in found if check['status'] == 'failed'])"
    )
    home = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=home, capture_output=True, text=True
    )
    n_checks, failed = done.stdout.split(maxsplit=1)
    assert int(n_checks) > 30, done.stderr
    assert failed.strip() == "[]"


def test_a_swapped_pairing_is_found_by_the_fused_detector_though_each_stream_is_normal(
    world: World, fused: AutoencoderDetector
) -> None:
    normal, swapped = world.draw(200), world.draw(200, "swapped")
    assert against_normal(fused, normal, swapped) >= 0.95
    train, val = world.draw(120), world.draw(60)
    for name, block in COLUMNS.items():
        single = AutoencoderDetector().fit(train[:, block], X_val=val[:, block])
        assert against_normal(single, normal[:, block], swapped[:, block]) == pytest.approx(
            0.5, abs=0.1
        ), name


def test_a_class_never_seen_is_found(world: World, fused: AutoencoderDetector) -> None:
    assert against_normal(fused, world.draw(200), world.draw(200, "novel")) >= 0.95


def test_the_stream_that_was_disturbed_has_the_largest_share(
    world: World, fused: AutoencoderDetector
) -> None:
    for s, block in enumerate(COLUMNS.values()):
        X = world.draw(200)
        X[:, block] += np.random.default_rng(s).normal(size=X[:, block].shape)
        shares = fused.attribution(X)
        assert shares.shape == (200, 3)
        np.testing.assert_allclose(shares.sum(axis=1), 1)
        assert (shares.argmax(axis=1) == s).mean() >= 0.95


def test_the_error_splits_exactly_by_stream(world: World, fused: AutoencoderDetector) -> None:
    X = world.draw(30)
    X[::3, COLUMNS["sound"]] = np.nan
    present = np.where(np.arange(30) % 3 == 0, 2, 3)
    errors, score = fused.stream_errors(X), fused.anomaly_score(X)
    np.testing.assert_allclose((errors.sum(axis=1) / present + errors.max(axis=1)) / 2, score)
    np.testing.assert_allclose(fused.attribution(X), errors / errors.sum(axis=1, keepdims=True))
    assert not fused.attribution(X)[::3, 2].any()


def test_a_video_without_a_stream_is_not_abnormal_for_that(
    world: World, fused: AutoencoderDetector
) -> None:
    silent = world.draw(300)
    silent[:, COLUMNS["sound"]] = np.nan
    assert against_normal(fused, world.draw(300), silent) == pytest.approx(0.5, abs=0.1)
    careless = AutoencoderDetector(columns=COLUMNS, stream_dropout=0.0).fit(
        world.draw(120), X_val=world.draw(60)
    )

    def harder(detector: AutoencoderDetector) -> float:
        """Error of the other streams without sound, in parts of that with it."""
        units = detector.pattern_units_.units
        return float((units["look+move"][:2] / units["look+move+sound"][:2]).mean())

    assert harder(careless) > 1.2 * harder(fused)
    odd = world.draw(200, "swapped")
    odd[:, COLUMNS["sound"]] = np.nan
    pair_differs = 2 / 3  # of the swapped videos; in the rest the odd stream is the one withheld
    assert against_normal(fused, silent, odd) >= pair_differs * 0.9 + (1 - pair_differs) * 0.5


def test_wide_and_narrow_streams_count_alike(world: World) -> None:
    X, X_val = world.draw(120), world.draw(60)
    wide = {"look": slice(0, 96), "move": slice(96, 96 + 320), "sound": slice(416, 480)}

    def widen(rows: np.ndarray) -> np.ndarray:
        return np.hstack([rows[:, :96], np.tile(rows[:, 96:128], 10), rows[:, 128:]])

    plain = AutoencoderDetector(columns=COLUMNS, bottleneck=16, max_steps=500).fit(X, X_val=X_val)
    repeated = AutoencoderDetector(columns=wide, bottleneck=16, max_steps=500).fit(
        widen(X), X_val=widen(X_val)
    )
    new = world.draw(100)
    np.testing.assert_allclose(
        plain.pattern_units_.default * plain.stream_errors(new).mean(axis=0),
        repeated.pattern_units_.default * repeated.stream_errors(widen(new)).mean(axis=0),
        rtol=0.1,
    )


def test_a_linear_autoencoder_reaches_the_pca_residual_from_above() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 30)) + 0.5 * rng.normal(size=(200, 30))
    detector = AutoencoderDetector(
        hidden_dims=(), bottleneck=4, max_steps=4000, patience=4000, learning_rate=1e-3
    )
    found = detector.fit(X, X_val=X).anomaly_score(X).mean()
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    pca = PCA(4).fit(Z)
    best = np.square(Z - pca.inverse_transform(pca.transform(Z))).mean()
    assert best <= found <= 1.01 * best


def test_a_usual_normal_video_scores_about_one_in_every_stream(
    world: World, fused: AutoencoderDetector
) -> None:
    np.testing.assert_allclose(
        np.median(fused.stream_errors(world.draw(300)), axis=0), 1, atol=0.15
    )


def test_without_columns_the_score_is_the_plain_mean_squared_error() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 12)) + 5
    detector = AutoencoderDetector(max_steps=60).fit(X)
    assert detector.pattern_units_.default.tolist() == [1.0]
    Z = detector.standardiser_.transform(X)
    rebuilt = reconstruct(Z, detector.basis_, detector.layers_)
    np.testing.assert_allclose(detector.anomaly_score(X), np.square(Z - rebuilt).mean(axis=1))
    assert np.array_equal(detector.score_samples(X), -detector.anomaly_score(X))
    assert detector.attribution(X).tolist() == [[1.0]] * 60


def test_a_wider_bottleneck_rebuilds_better(world: World) -> None:
    X, X_val = world.draw(120), world.draw(60)
    errors = [
        AutoencoderDetector(columns=COLUMNS, bottleneck=width, max_steps=300)
        .fit(X, X_val=X_val)
        .anomaly_score(X)
        .mean()
        for width in (1, 16)
    ]
    assert errors[0] > errors[1]


def test_the_layers_kept_are_those_of_the_smallest_validation_error() -> None:
    rng = np.random.default_rng(0)
    X, X_val = rng.normal(
        size=(2, 20, 30)
    )  # nothing to learn: training soon makes validation worse
    long = AutoencoderDetector(max_steps=600, patience=600, bottleneck=5).fit(X, X_val=X_val)
    assert long.n_steps_ < 400
    short = AutoencoderDetector(max_steps=long.n_steps_, patience=600, bottleneck=5).fit(
        X, X_val=X_val
    )
    assert np.array_equal(long.anomaly_score(X), short.anomaly_score(X))


def test_the_same_seed_gives_the_same_detector_and_another_seed_another(world: World) -> None:
    X = world.draw(60)
    one, two, other = (
        AutoencoderDetector(columns=COLUMNS, random_state=seed, max_steps=100)
        .fit(X)
        .score_samples(X)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_score_does_not_depend_on_the_other_rows(
    world: World, fused: AutoencoderDetector
) -> None:
    X = world.draw(150)
    together = fused.anomaly_score(X)
    assert np.array_equal(
        together, np.concatenate([fused.anomaly_score(X[i : i + 1]) for i in range(150)])
    )
    assert np.array_equal(together[::-1], fused.anomaly_score(X[::-1]))


def test_a_saved_detector_scores_bit_for_bit(world: World, fused: AutoencoderDetector) -> None:
    X = world.draw(20)
    X[3, COLUMNS["look"]] = np.nan
    for detector in (
        fused,
        AutoencoderDetector(max_steps=60, hidden_dims=(16, 8)).fit(world.draw(30)),
    ):
        arrays, config = detector.to_arrays()
        again = AutoencoderDetector.from_arrays(
            arrays, json.loads(json.dumps(config, sort_keys=True))
        )
        rows = X if detector is fused else X[:3]
        assert np.array_equal(detector.score_samples(rows), again.score_samples(rows))
        assert np.array_equal(detector.predict(rows), again.predict(rows))
        assert np.array_equal(detector.attribution(rows), again.attribution(rows))
        assert again.get_params() == detector.get_params()
        assert again.bottleneck_ == detector.bottleneck_
        assert all(array.dtype.kind in "fu" for array in arrays.values())


def test_a_damaged_detector_is_refused(fused: AutoencoderDetector) -> None:
    arrays, config = fused.to_arrays()
    with pytest.raises(ValueError, match=r"array 'axes' is \(191, \d+\); it must be \(192, \d+\)"):
        AutoencoderDetector.from_arrays({**arrays, "axes": arrays["axes"][1:]}, config)
    with pytest.raises(ValueError, match=r"array 'layer1.weight' is \(\d+, \d+\); it must be"):
        AutoencoderDetector.from_arrays(
            {**arrays, "layer1.weight": arrays["layer1.weight"][:, 1:]}, config
        )


def test_the_threshold_lets_about_one_in_twenty_normal_videos_alarm(
    world: World, fused: AutoencoderDetector
) -> None:
    alarms = (fused.predict(world.draw(1000)) == -1).mean()
    assert alarms <= 0.10
    assert (fused.predict(world.draw(100, "swapped")) == -1).mean() >= 0.9


def test_the_threshold_changes_without_retraining(world: World, fused: AutoencoderDetector) -> None:
    arrays, config = fused.to_arrays()
    detector = AutoencoderDetector.from_arrays(arrays, config)
    X = world.draw(200)
    scores = detector.anomaly_score(X)
    detector.set_threshold(scores, level=0.5)
    assert (detector.predict(X) == -1).mean() == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(detector.predict(X) == -1, scores >= detector.threshold_.value)
    assert np.array_equal(detector.anomaly_score(X), scores)


def test_a_detector_that_learned_nothing_says_so(world: World) -> None:
    idle = AutoencoderDetector(columns=COLUMNS, learning_rate=0.0, max_steps=40).fit(world.draw(60))
    assert any("no better than their mean" in remark for remark in idle.remarks_)
    sound = AutoencoderDetector(columns=COLUMNS).fit(world.draw(100), X_val=world.draw(50))
    assert sound.remarks_ == []


def test_a_collapsed_score_is_noticed() -> None:
    from tristream.fusion.anomaly.autoencoder import _collapse

    X = np.random.default_rng(0).normal(size=(20, 3))
    assert "20 different normal videos all score 2" in _collapse(np.full(20, 2.0), X, 3.0)[0]
    assert _collapse(np.linspace(1, 2, 20), X, 3.0) == []


def test_few_normal_videos_are_said_to_be_few(world: World) -> None:
    few = AutoencoderDetector(columns=COLUMNS, max_steps=40).fit(world.draw(6))
    assert "only 6 normal videos" in few.remarks_[0]
    assert "6 normal scores cannot support a quantile of 0.95" in few.remarks_[1]


def test_rows_without_any_stream_are_left_out_of_the_fit_and_refused_later(world: World) -> None:
    X = world.draw(40)
    X[:2] = np.nan
    detector = AutoencoderDetector(columns=COLUMNS, max_steps=40).fit(X)
    assert detector.remarks_[0] == "2 of 40 normal videos have no stream at all and are skipped"
    with pytest.raises(ValueError, match="row 1 has none of the streams"):
        detector.anomaly_score(X[[5, 0]])


def test_a_stream_that_is_never_present_does_no_harm(world: World) -> None:
    X = world.draw(40)
    X[:, COLUMNS["sound"]] = np.nan
    detector = AutoencoderDetector(columns=COLUMNS, max_steps=40).fit(X)
    heard = world.draw(5)
    deaf = heard.copy()
    deaf[:, COLUMNS["sound"]] = np.nan
    assert np.array_equal(detector.anomaly_score(heard), detector.anomaly_score(deaf))


def test_bad_input_is_named(world: World) -> None:
    X = world.draw(20)
    with pytest.raises(
        ValueError, match=r"there is 1 normal video \(n_samples = 1\); a detector needs 2"
    ):
        AutoencoderDetector(columns=COLUMNS).fit(X[:1])
    with pytest.raises(ValueError, match=r"the 8 normal videos all have the same embedding"):
        AutoencoderDetector(columns=COLUMNS).fit(np.repeat(X[:1], 8, axis=0))
    with pytest.raises(
        ValueError, match=r"bottleneck is 192; it must be at least 1 and below the 192 columns"
    ):
        AutoencoderDetector(columns=COLUMNS, bottleneck=192).fit(X)
    with pytest.raises(ValueError, match=r"columns cover 192 features .*; X has 191"):
        AutoencoderDetector(columns=COLUMNS).fit(X[:, :191])
    with pytest.raises(ValueError, match="NaN"):
        AutoencoderDetector().fit(np.where(X > 0.9, np.nan, X))
