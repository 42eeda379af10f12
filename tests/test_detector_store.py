"""The stored detector: thresholds without training, neighbours, regions, and what cannot be fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tristream import fit_windows, settings
from tristream.commands.screen import PROGRESS
from tristream.dataset.manifest import VideoRow
from tristream.detect import _detection
from tristream.errors import UsageError
from tristream.fusion.anomaly.normal_scores import NormalScores
from tristream.store.checkpoint import load_artifact, save_artifact
from tristream.stored_detector import NormalRows, StoredDetector, fit_stored
from tristream.streams.windows import WindowPlan
from tristream.windows import WindowSet
from tristream.workspace import Workspace

COLUMNS = {"one": slice(0, 8), "two": slice(8, 20)}
PLAN = WindowPlan(2.0, 1.0)


def normal(n: int, *, seed: int = 0) -> np.ndarray:
    world, rng = np.random.default_rng(7), np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) @ world.normal(size=(3, 20)) + 0.1 * rng.normal(size=(n, 20))


def fitted(plan: WindowPlan = PLAN, **changes: object) -> StoredDetector:
    arguments = {
        "X": normal(60),
        "X_val": normal(40, seed=1),
        "ids": [f"v{n // 6}" for n in range(60)],
    } | changes
    chosen = settings.load("workshop").detector.model_copy(update={"max_steps": 200})
    return fit_stored(
        NormalRows(arguments["X"], arguments["ids"], arguments.get("region")),
        NormalRows(arguments["X_val"], (), arguments.get("region_val")),
        COLUMNS,
        chosen,
        plan=plan,
        spaces={"one": "a", "two": "b"},
        seed=0,
    )


def test_thresholds_come_from_the_stored_scores_and_nothing_is_trained_again(
    tmp_path: Path,
) -> None:
    stored = fitted()
    stored.val_scores = NormalScores.of_one_source(np.arange(1.0, 7201.0), 1.0)  # 2 h
    stored.set_rule("quantile", 0.99)
    assert stored.detector.threshold_.value == pytest.approx(7129)  # the ⌈7201 · .99⌉-th
    layers = [weight.copy() for weight, _ in stored.detector.layers_]
    stored.save(Workspace(tmp_path, tmp_path))
    again = StoredDetector.load(Workspace(tmp_path, tmp_path))
    assert again.threshold(rule="mean_sd", level=1.0).value == pytest.approx(
        3600.5 + np.arange(1, 7201).std()
    )
    budget = again.threshold(rule="per_hour", level=36.0)
    assert (budget.n_events, budget.n_videos) == (1, 1)  # one rise: one event, however many windows
    assert all(
        np.array_equal(a, b) for a, (b, _) in zip(layers, again.detector.layers_, strict=True)
    )
    X = normal(5, seed=3)
    assert np.array_equal(again.scores(X, np.zeros(5, int)), stored.scores(X, np.zeros(5, int)))
    assert (again.plan, again.spaces, again.neighbour_ids) == (
        PLAN,
        stored.spaces,
        stored.neighbour_ids,
    )
    with pytest.raises(
        ValueError, match=r"0\.01 alarms an hour cannot be set from 2\.00 h of normal video"
    ):
        again.threshold(rule="per_hour", level=0.01)
    with pytest.raises(UsageError, match="a budget of false alarms per hour needs windows"):
        fitted(WindowPlan()).threshold(rule="per_hour", level=1.0)


def test_the_nearest_normal_videos_are_named_each_once() -> None:
    stored = fitted()
    found = stored.nearest(normal(60)[[0, 13]], np.zeros(2, int))
    assert [names[0] for names in found] == ["v0", "v2"]
    assert all(len(names) == len(set(names)) == 3 for names in found)


def test_what_is_unusual_for_its_row_scores_high_and_what_is_usual_there_does_not(
    tmp_path: Path,
) -> None:
    plan = WindowPlan(2.0, 1.0, regions=(2, 2))  # 3 x 3 regions
    region = np.tile(np.arange(9), 60)
    scale = (1 + region // 3)[:, None] ** 2
    X = scale * normal(540)
    region_val = np.tile(np.arange(9), 40)
    X_val = (1 + region_val // 3)[:, None] ** 2 * normal(360, seed=1)
    stored = fitted(
        plan, X=X, X_val=X_val, ids=["v"] * 540, region=region, region_val=region_val,
    )  # fmt: skip
    near, far = normal(20, seed=4) * 9, normal(20, seed=4) * 9
    high = stored.scores(far, np.zeros(20, int))  # far away as large as what stands near
    usual = stored.scores(near, np.full(20, 8))
    assert np.median(high) > 10 * np.median(usual)
    errors = stored.errors(far, np.zeros(20, int))
    np.testing.assert_allclose((errors.mean(axis=1) + errors.max(axis=1)) / 2, high)
    stored.val_scores = NormalScores.of_videos(stored.scores(X_val, region_val))
    stored.save(Workspace(tmp_path, tmp_path))
    again = StoredDetector.load(Workspace(tmp_path, tmp_path))
    assert np.array_equal(again.scores(far, np.zeros(20, int)), high)


def test_a_stream_that_is_never_there_has_no_share_and_spoils_nothing() -> None:
    X, X_val = normal(60), normal(40, seed=1)
    X[:, 8:], X_val[:, 8:] = np.nan, np.nan
    stored = fitted(X=X, X_val=X_val)
    new = normal(5, seed=2)  # has it, and there is nothing to compare it with
    assert stored.detector.attribution(new)[:, 1].tolist() == [0.0] * 5
    new_without = new.copy()
    new_without[:, 8:] = np.nan
    assert np.array_equal(
        stored.scores(new, np.zeros(5, int)), stored.scores(new_without, np.zeros(5, int))
    )


def test_what_nothing_can_be_learned_from_is_said() -> None:
    with pytest.raises(ValueError, match="the 60 normal videos all have the same embedding"):
        fitted(X=np.ones((60, 20)))
    with pytest.raises(ValueError, match="there is 1 normal video"):
        fitted(X=normal(1), ids=["v"])


def row(name: str, split: str, anomaly: int | None) -> VideoRow:
    return VideoRow(
        video_id=name,
        path=Path(name),
        label="",
        split=split,
        group=name,
        anomaly=anomaly,
        fold="",
        content_id=name,
    )


def test_without_normal_training_videos_there_is_no_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("a", "train", 1), row("b", "test", 0)]
    found = fit_windows.detect_windows(
        Workspace(tmp_path, tmp_path, progress=PROGRESS),
        rows,
        fit_windows.WindowOptions(PLAN, settings.load("workshop")),
    )
    assert found is None
    assert (
        "no anomaly detector: 0 normal training videos (videos with anomaly = 0)"
        in capsys.readouterr().err
    )


def test_labels_that_are_no_json_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text("{")
    with pytest.raises(UsageError, match=r"labels\.json is not JSON"):
        fit_windows.read_labels(path, [row("a", "test", 1)])
    path.write_text('{"b": []}')
    with pytest.raises(ValueError, match="frame labels name 'b'"):
        fit_windows.read_labels(path, [row("a", "test", 1)])
    assert fit_windows.read_labels(None, []) is None


def window_set(videos: dict[str, np.ndarray]) -> WindowSet:
    """Windows of 2 s, one each second, in videos that each have some rows."""
    counts = [len(rows) for rows in videos.values()]
    starts = np.concatenate([np.arange(float(n)) for n in counts])
    return WindowSet(
        results=[],
        X=np.concatenate(list(videos.values())),
        columns=COLUMNS,
        video_id=np.repeat(list(videos), counts),
        start_seconds=starts,
        stop_seconds=starts + 2,
        region=np.zeros(len(starts), np.int64),
        peak_motion=np.full(len(starts), np.nan),
    )


def windowed(stored: StoredDetector, val: dict[str, np.ndarray], **changes: object) -> None:
    """Set the thresholds from windows of validation videos."""
    whole, chosen = window_set(val), settings.load("workshop")
    chosen = replace(chosen, detector=chosen.detector.model_copy(update=changes))
    every = np.ones(len(whole.X), bool)
    fit_windows._set_threshold(stored, whole, every, ~every, chosen)


def videos_of(n: int, *, seed: int, n_windows: int = 30) -> dict[str, np.ndarray]:
    return {f"v{i}": normal(n_windows, seed=10_000 * seed + i) for i in range(n)}


def judged(stored: StoredDetector, videos: dict[str, np.ndarray]) -> list[tuple[bool, int]]:
    """Verdict and number of events of each video, as `detect` gives them."""
    whole, found = window_set(videos), []
    limit = stored.detector.threshold_.value
    for line in fit_windows.scored(stored, whole, np.ones(len(whole.X), bool)):
        detection = _detection(line.video_id, stored, whole, line, limit)
        found.append((detection.abnormal, len(detection.events)))
    return found


def pca(plan: WindowPlan = PLAN, **changes: object) -> StoredDetector:
    chosen = settings.load("workshop").detector.model_copy(update={"kind": "pca"})
    X = normal(200)
    return fit_stored(
        NormalRows(X, [f"v{n}" for n in range(200)]),
        NormalRows(normal(100, seed=1), ()),
        COLUMNS,
        chosen,
        plan=plan,
        spaces={"one": "a", "two": "b"},
        seed=0,
    )


def test_a_video_is_abnormal_by_a_threshold_of_videos_and_never_without_an_event() -> None:
    stored = pca()
    windowed(stored, videos_of(60, seed=1), quantile=0.95)
    by_window, by_video = stored.detector.threshold_, stored.video_thresholds["one+two"]
    assert (by_window.n, by_window.n_videos, by_video.n) == (1800, 60, 60)
    assert by_video.value > by_window.value
    assert by_window.n_events <= by_window.n_alarms
    verdicts = judged(stored, videos_of(40, seed=2))
    assert np.mean([events > 0 for _, events in verdicts]) > 0.4  # what it said before
    assert np.mean([abnormal for abnormal, _ in verdicts]) <= 0.15
    assert all(events for abnormal, events in verdicts if abnormal)
    stored.min_seconds = 60.0  # no event is that long
    odd = {"odd": normal(30, seed=3) * 9}
    assert judged(stored, odd) == [(False, 0)]


@pytest.mark.slow
def test_normal_videos_of_30_windows_are_abnormal_about_as_often_as_asked() -> None:
    stored, shares = pca(), []
    for seed in range(20):
        windowed(stored, videos_of(60, seed=2 * seed), quantile=0.95)
        verdicts = judged(stored, videos_of(40, seed=2 * seed + 1))
        shares.append(np.mean([abnormal for abnormal, _ in verdicts]))
    assert 0.02 <= np.mean(shares) <= 0.075


def test_windows_without_a_stream_alarm_by_the_threshold_of_their_pattern(tmp_path: Path) -> None:
    stored = pca()
    windowed(stored, videos_of(60, seed=1), quantile=0.9)
    assert set(stored.detector.thresholds_) == {"one+two", "one", "two"}
    stored.save(Workspace(tmp_path, tmp_path))
    again = StoredDetector.load(Workspace(tmp_path, tmp_path))
    for block in COLUMNS.values():
        videos = videos_of(60, seed=2)
        for rows in videos.values():
            rows[:, block] = np.nan
        whole = window_set(videos)
        scores = again.scores(whole.X, whole.region)
        assert 0.06 <= (scores >= again.detector.threshold_.value).mean() <= 0.15
        assert np.mean([abnormal for abnormal, _ in judged(again, videos)]) <= 0.25
        assert np.array_equal(scores, stored.scores(whole.X, whole.region))


def test_an_artifact_of_an_earlier_version_scores_and_alarms_as_it_did(tmp_path: Path) -> None:
    stored = pca()
    windowed(stored, videos_of(10, seed=1))
    stored.save(Workspace(tmp_path, tmp_path))
    path = tmp_path / "fusion" / "detector"
    arrays, config = load_artifact(path)
    new = (":", ".video", ".times", "units.")
    arrays = {name: array for name, array in arrays.items() if not any(n in name for n in new)}
    for part in (config, config["neighbours"]):
        part.pop("thresholds")
        part.pop("combine", None)
    for name in ("video_thresholds", "pattern_scores"):
        config.pop(name)
    for name in ("n_videos", "n_alarms", "n_events"):
        config["threshold"].pop(name)
    save_artifact(path, arrays, config)
    again = StoredDetector.load(Workspace(tmp_path, tmp_path))
    X = normal(20, seed=5)
    X[::2, :8] = np.nan
    errors = again.detector.stream_errors(X)
    plain = errors.sum(axis=1) / (~np.isnan(X[:, [0, 8]])).sum(axis=1)  # the mean over streams
    np.testing.assert_allclose(again.scores(X, np.zeros(20, int)), plain)
    threshold = again.detector.threshold_.value
    assert again.video_limit(X) == threshold == stored.detector.threshold_.value
    assert again.threshold(rule="quantile", level=0.9).n == 300
