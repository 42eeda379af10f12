"""Promises about probabilities and error, repeated on fresh synthetic videos for every pattern of streams."""

from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.action.calibration import (
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from tristream.fusion.action.classifier import calibrate
from tristream.fusion.action.score_fusion import softmax
from tristream.fusion.action.svm import fit_svm

STREAMS = ("audio", "spatial", "temporal")
WIDTH, N_CLASSES = 24, 6
PATTERNS = [(0,), (0, 2), (0, 1, 2)]


class World:
    """Classes with a centre in each of three streams; a part of the noise is common to a source."""

    columns = {name: slice(WIDTH * s, WIDTH * (s + 1)) for s, name in enumerate(STREAMS)}  # noqa: RUF012

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.centres = rng.normal(size=(N_CLASSES, 3 * WIDTH)) * 0.45

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.r_[np.arange(N_CLASSES), self.rng.integers(N_CLASSES, size=n - N_CLASSES)]
        return self.centres[y] + self.rng.normal(size=(n, 3 * WIDTH)), y


def masks_of(pattern: tuple[int, ...], n: int) -> np.ndarray:
    return np.tile(np.isin(np.arange(3), pattern), (n, 1))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: "+".join(map(str, pattern)))
def test_the_error_among_the_named_is_kept_and_probabilities_are_not_worse_than_uncalibrated(
    pattern: tuple[int, ...],
) -> None:
    """60 worlds: SVM, calibration on 150 validation videos, 1000 fresh ones with these streams only."""
    rng = np.random.default_rng(sum(1 << s for s in pattern))
    broken, gains, n_runs = 0, [], 60
    for _ in range(n_runs):
        world = World(rng)
        X, y = world.draw(90)
        svm = fit_svm(X, y, columns=world.columns)
        X_val, y_val = world.draw(150)
        classifier = calibrate(svm, X_val, y_val)
        fresh, truth = world.draw(1000)
        masks = masks_of(pattern, len(fresh))
        scores = svm.margins(fresh, masks=masks)
        p = classifier.probabilities(scores, masks)
        right = svm.classes_[p.argmax(axis=1)] == truth
        limit = classifier.limit(0.2, masks[0])
        named = p.max(axis=1) >= limit
        broken += bool(named.any() and (~right)[named].mean() > 0.2)
        before = softmax(scores)
        gains.append(
            [
                calibration_error(before, truth) - calibration_error(p, truth),
                negative_log_likelihood(before, truth) - negative_log_likelihood(p, truth),
            ]
        )
    assert broken <= 0.1 * n_runs
    assert (np.mean(gains, axis=0) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("n_val", "most"), [(8, 0.02), (20, 0.01), (60, 0.005)])
def test_logits_that_are_calibrated_already_lose_little_by_few_videos(n_val, most) -> None:
    """Log-likelihood ratios of known Gaussians are calibrated: any temperature but 1 makes them worse."""
    rng = np.random.default_rng(3)
    losses = []
    for _ in range(150):
        centres = rng.normal(size=(4, 64)) * 0.5

        def draw(n, centres=centres):
            y = rng.integers(4, size=n)
            X = centres[y] + rng.normal(size=(n, 64))
            return X @ centres.T - (centres**2).sum(axis=1) / 2, y

        curve = fit_temperature(*draw(n_val))
        scores, y = draw(2000)
        loss = negative_log_likelihood(curve.probabilities(scores), y)
        losses.append(loss - negative_log_likelihood(softmax(scores), y))
    assert np.mean(losses) <= most
