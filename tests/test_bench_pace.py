from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tristream.bench import playback_rate
from tristream.media.decode import decode_video
from tristream.media.encode import write_video
from tristream.streams.windows import WindowPlan

SIDE = 20


def walk(n_frames: int) -> np.ndarray:
    """A striped square on a dark floor that walks one px a frame along the lower edge; nothing else moves."""
    frames = np.full((n_frames, 96, 144, 3), 40, np.uint8)
    stripes = (128 + 100 * np.sin(np.arange(SIDE) * 2 * np.pi / 12)).astype(np.uint8)[None, :, None]
    for t in range(n_frames):
        frames[t, 72 : 72 + SIDE, 4 + t : 4 + t + SIDE] = stripes
    return frames


def test_labels_of_frames_become_intervals(tmp_path: Path) -> None:
    labels = {"Test001": [0, 0, 1, 1, 1, 0, 1], "Test012": [0, 0, 0]}
    (tmp_path / "frame_labels.json").write_text(json.dumps(labels))
    found = playback_rate.intervals(tmp_path)
    assert found["test/01.mp4"] == [pytest.approx([0.2, 0.5]), pytest.approx([0.6, 0.7])]
    assert found["test/12.mp4"] == []


def test_clips_are_of_places_where_something_moves() -> None:
    cells = WindowPlan(1.0, 1.0, (4, 6)).cells()
    found = list(playback_rate.places(walk(60), cells, np.random.default_rng(0)))
    assert found
    for cell, first, part in found:
        assert cell.top + cell.height > 72 / 96  # the walker's row
        assert len(part) == 46
        assert 0 <= first <= 60 - 46


def test_a_clip_at_twice_the_pace_moves_twice_as_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playback_rate, "N_PLACES", 2)
    (tmp_path / "data" / "train").mkdir(parents=True)
    for n in range(5):
        write_video(tmp_path / "data" / "train" / f"{n:02d}.mp4", walk(60), fps=10, crf=1)
    counts = playback_rate.render(tmp_path / "data", tmp_path / "out")
    with (tmp_path / "out" / "videos.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert counts == {"train": 2 * 2 * 3, "val": 3 * 2 * 3}
    assert {row["label"] for row in rows} == {"1x", "2x", "3x"}
    assert not {r["group"] for r in rows if r["split"] == "val"} & {
        r["group"] for r in rows if r["split"] == "train"
    }
    change = {label: [] for label in ("1x", "2x", "3x")}
    for row in rows:
        frames = decode_video(tmp_path / "out" / row["path"], sound=False).frames
        assert len(frames) == playback_rate.N_FRAMES
        change[row["label"]].append(np.abs(np.diff(frames.astype(int), axis=0)).mean())
    once, twice, thrice = (np.mean(values) for values in change.values())
    assert 1.3 < twice / once < 2.2
    assert thrice > twice
