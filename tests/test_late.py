from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC

from tristream.fusion.action.calibration import fit_temperature
from tristream.fusion.action.late_fusion import (
    LEAST_WEIGHT,
    accuracy_weights,
    late_fusion,
    weight_grid,
)
from tristream.fusion.action.score_fusion import softmax

CLASSES = np.array(["a", "b", "c", "d"])


def videos(n: int = 240, *, seed: int = 0) -> dict:
    """`pair` tells a, b from c, d; `parity` a, c from b, d; `noise` is sure of itself and knows nothing."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    logits = {
        "pair": 4.0 * (y[:, None] // 2 == np.arange(4) // 2) + 0.3 * rng.normal(size=(n, 4)),
        "parity": 4.0 * (y[:, None] % 2 == np.arange(4) % 2) + 0.3 * rng.normal(size=(n, 4)),
        "noise": 10.0 * rng.normal(size=(n, 4)),
    }
    splits = np.array(["train", "val", "test"])[np.arange(n) // 4 % 3]
    return {"logits": logits, "classes": CLASSES, "labels": CLASSES[y], "splits": splits}


def accuracy(named: np.ndarray, data: dict, split: str = "test") -> float:
    rows = data["splits"] == split
    return float((named == data["labels"])[rows].mean())


def test_streams_that_each_know_half_know_the_whole_together() -> None:
    data = videos()
    found = late_fusion(**data)
    assert {name: accuracy(named, data) for name, named in found.named.items()} == {
        "mean": pytest.approx(1, abs=0.12),
        "weighted": pytest.approx(1, abs=0.12),
        "simonyan": pytest.approx(1, abs=0.12),
    }
    for name in ("pair", "parity"):
        assert accuracy(found.heads[name], data) == pytest.approx(0.5, abs=0.1)


def test_a_stream_that_is_sure_and_wrong_is_cooled_before_it_drowns_the_others() -> None:
    data = videos()
    found = late_fusion(**data)
    assert found.temperatures["noise"] > 20 * found.temperatures["pair"]
    raw = np.mean([softmax(logits) for logits in data["logits"].values()], axis=0)
    assert accuracy(found.named["mean"], data) > accuracy(CLASSES[raw.argmax(axis=1)], data) + 0.2
    val = data["splits"] == "val"
    alone = fit_temperature(data["logits"]["pair"][val], (np.arange(240) % 4)[val])
    assert found.temperatures["pair"] == alone.temperature


def test_nothing_is_learned_on_test() -> None:
    data = videos()
    other = videos()
    test = data["splits"] == "test"
    other["labels"] = np.where(test, "a", data["labels"])
    first, second = late_fusion(**data), late_fusion(**other)
    assert first.weights == second.weights
    assert first.temperatures == second.temperatures
    for name in first.named:
        assert np.array_equal(first.named[name], second.named[name])


def test_a_video_without_a_stream_is_judged_by_the_others_and_one_without_any_by_the_commonest_class() -> (
    None
):
    data = videos()
    y = np.arange(240) % 4
    data["logits"]["parity"][5] = np.nan
    for logits in data["logits"].values():
        logits[2] = np.nan
    data["labels"][np.flatnonzero(data["splits"] == "train")[:20]] = "d"
    found = late_fusion(**data)
    assert [found.named[name][2] for name in ("mean", "weighted")] == ["d", "d"]
    assert found.heads["parity"][5] == ""
    assert found.named["weighted"][5] in CLASSES[y[5] // 2 * 2 :][:2]


def test_the_svm_on_scores_is_libsvm_on_probabilities_of_length_one() -> None:
    data = videos()
    found = late_fusion(**data, l2=1e-2)
    train = data["splits"] == "train"
    scores = [softmax(logits / found.temperatures[name]) for name, logits in data["logits"].items()]
    F = np.hstack([p / np.linalg.norm(p, axis=1, keepdims=True) for p in scores])
    margins = np.column_stack(
        [SVC(kernel="linear", C=1 / (train.sum() * 1e-2), tol=1e-6).fit(F[train], data["labels"][train] == name)
         .decision_function(F) for name in CLASSES]
    )  # fmt: skip
    assert (CLASSES[margins.argmax(axis=1)] == found.named["simonyan"]).mean() > 0.98


def test_weights_find_the_stream_that_helps_and_leave_equals_equal() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    right, noise = softmax(3.0 * np.eye(3)[labels]), softmax(4 * rng.normal(size=(300, 3)))
    np.testing.assert_allclose(accuracy_weights([right, right], labels), [0.5, 0.5])
    weights = accuracy_weights([noise, right], labels)
    assert weights[1] >= 0.6
    np.testing.assert_allclose(accuracy_weights([noise[:0], right[:0]], labels[:0]), [0.5, 0.5])
    missing = right.copy()
    missing[::2] = np.nan
    assert np.isfinite(accuracy_weights([missing, noise], labels)).all()


@pytest.mark.parametrize("n_streams", [1, 2, 3, 4, 5, 8])
def test_the_grid_of_weights_covers_the_simplex_and_no_weight_is_nothing(n_streams: int) -> None:
    grid = weight_grid(n_streams)
    np.testing.assert_allclose(grid.sum(axis=1), 1)
    assert (grid >= LEAST_WEIGHT / 2).all()
    assert len(grid) <= 301
    np.testing.assert_allclose(grid[0], 1 / n_streams)
    if n_streams > 1:
        for s in range(n_streams):  # each stream nearly alone
            assert (grid[:, s] > 0.98).any()
