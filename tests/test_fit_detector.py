"""The detector of whole videos: what its threshold comes from and what it promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tristream import settings
from tristream.dataset.manifest import VideoRow
from tristream.fit_detector import detect, hold_out
from tristream.fused import Fused
from tristream.progress import SILENT
from tristream.stored_detector import StoredDetector
from tristream.workspace import Workspace

COLUMNS = {"one": slice(0, 8), "two": slice(8, 20)}


def row(name: str, split: str, *, anomaly: int | None = None, group: str = "") -> VideoRow:
    return VideoRow(
        video_id=name,
        path=Path(name),
        label="",
        split=split,
        group=group or name,
        anomaly=anomaly,
        fold="",
        content_id=name,
    )


def normal(n: int, *, seed: int) -> np.ndarray:
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    return rng.normal(size=(n, 6)) @ world.normal(size=(6, 20)) + 0.3 * rng.normal(size=(n, 20))


def fused(X: np.ndarray, splits: list[str]) -> Fused:
    rows = [row(f"v{n}", split) for n, split in enumerate(splits)]
    masks = np.stack([~np.isnan(X[:, block]).all(axis=1) for block in COLUMNS.values()], axis=1)
    return Fused(rows, X, masks, COLUMNS, {"one": "a", "two": "b"})


def fit(tmp_path: Path, X: np.ndarray, splits: list[str], **changes: object) -> StoredDetector:
    chosen = settings.load("workshop")
    changes = {"kind": "pca", **changes}
    chosen = replace(chosen, detector=chosen.detector.model_copy(update=changes))
    detect(Workspace(tmp_path, tmp_path), fused(X, splits), chosen, None, 0)
    return StoredDetector.load(Workspace(tmp_path, tmp_path))


def test_without_validation_videos_the_configured_rule_is_applied_to_videos_held_out(
    tmp_path: Path,
) -> None:
    X = normal(100, seed=0)
    stored = fit(tmp_path, X, ["train"] * 100, quantile=0.8)
    threshold = stored.detector.threshold_
    assert (threshold.rule, threshold.level, threshold.n) == ("quantile", 0.8, 20)
    assert np.array_equal(stored.val_scores.values, stored.detector.anomaly_score(X[4::5]))
    assert len(stored.neighbour_ids) == 80
    assert not set(stored.neighbour_ids) & {f"v{n}" for n in range(4, 100, 5)}
    again = fit(tmp_path, X, ["train"] * 100, mean_sd=2.0).detector.threshold_
    assert (again.rule, again.level) == ("mean_sd", 2.0)


@pytest.mark.slow
def test_without_validation_videos_fresh_normal_videos_alarm_as_often_as_asked(
    tmp_path: Path,
) -> None:
    shares = []
    for seed in range(30):
        X = normal(100, seed=seed)
        stored = fit(tmp_path, X, ["train"] * 100, quantile=0.95)
        limit = stored.threshold(rule="quantile", level=0.9).value
        shares.append(
            (stored.detector.anomaly_score(normal(200, seed=1000 + seed)) >= limit).mean()
        )
    assert 0.07 <= np.mean(shares) <= 0.115  # the 19th of 20: 2 of 21 exceed it


def test_videos_of_one_group_are_held_out_together() -> None:
    rows = [row(f"v{n}", "train", group=f"g{n // 3}") for n in range(30)]
    train, held = hold_out(rows, np.arange(30), SILENT)
    assert held.tolist() == [12, 13, 14, 27, 28, 29]
    assert sorted([*train, *held]) == list(range(30))
    train, held = hold_out(rows[:9], np.arange(9), SILENT)
    assert (len(train), len(held)) == (9, 0)
