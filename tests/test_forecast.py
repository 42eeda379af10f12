from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tristream.forecast import Forecast, Pace, duration, forecast
from tristream.store.atomic import write_bytes
from tristream.streams.timings import Stages
from tristream.workspace import Workspace

PER_SECOND, PREPARING, BYTES_PER_SECOND = (
    0.02,
    0.3,
    1000,
)  # of the pretended extraction, per second of video


class Pretended:
    """Takes time and disk in proportion to a video's length, and prepares itself once; by a clock of its own."""

    def __init__(self) -> None:
        self.is_prepared, self.embedded, self.now = False, [], 0.0

    def __call__(self, rows, workspace):
        if not self.is_prepared:
            self.now += PREPARING
            self.is_prepared = True
        for row in rows:
            self.now += PER_SECOND * row.seconds
            self.embedded.append(row.video_id)
            write_bytes(
                workspace.cache_dir / "segments" / "ab" / row.video_id,
                bytes(BYTES_PER_SECOND * row.seconds),
            )
            yield SimpleNamespace(video=row)


def rows_of(n: int) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(video_id=f"v{index}", path=Path(f"v{index}"), seconds=1 + index % 5)
        for index in range(n)
    ]


def expected(rows, *, is_done=lambda row: False, seconds_of=lambda row: row.seconds, tmp_path):
    work = Pretended()
    workspace = Workspace(tmp_path / "run", tmp_path / "cache")
    found = forecast(
        rows, work, seconds_of, is_done, workspace, n_streams=0, clock=lambda: work.now
    )
    assert not (tmp_path / "run").exists(), "nothing of the run is written"
    assert not (tmp_path / "cache").exists()
    return found, work


def test_time_and_disk_follow_from_the_lengths_of_the_videos(tmp_path):
    rows = rows_of(1000)
    found, work = expected(rows, tmp_path=tmp_path)
    truth = sum(row.seconds for row in rows)
    assert found.n_todo == 1000
    assert len(work.embedded) <= 9
    assert 1 / 1.1 < found.seconds / (PREPARING + PER_SECOND * truth) < 1.1
    assert 1 / 1.1 < found.disk_bytes / (BYTES_PER_SECOND * truth) < 1.1
    assert found.memory_bytes > 10e6


def test_what_the_cache_has_costs_nothing(tmp_path):
    rows = rows_of(400)
    found, _ = expected(rows, is_done=lambda row: int(row.video_id[1:]) < 200, tmp_path=tmp_path)
    assert 100 < found.n_todo < 300
    none, work = expected(rows, is_done=lambda row: True, tmp_path=tmp_path)
    assert (none.n_todo, none.seconds, work.embedded) == (0, 0.0, [])


def test_files_that_cannot_be_read_are_not_measured_on(tmp_path):
    rows = rows_of(100)
    found, work = expected(
        rows, seconds_of=lambda row: row.seconds if row.seconds > 2 else 0.0, tmp_path=tmp_path
    )
    assert all(1 + int(name[1:]) % 5 > 2 for name in work.embedded)
    truth = sum(
        row.seconds for row in rows if row.seconds > 2
    )  # 60 of 100; of the sample perhaps 26 of 48
    assert 1 / 1.2 < found.seconds / (PREPARING + PER_SECOND * truth) < 1.2


def test_a_single_video_is_measured_twice(tmp_path):
    found, work = expected(rows_of(1), tmp_path=tmp_path)
    assert found.n_todo == 1
    assert work.embedded == ["v0", "v0"]


def test_the_forecast_is_one_sentence():
    text = Forecast(120, 100, 9, 7500.0, 75.0, 2.5e9, 1.25e9).sentence()
    assert text.startswith(
        "100 of 120 videos to compute: about 2.1 h, 2500 MB of disk, 1250 MB of memory"
    )
    assert "measured on 9 of them" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.4, "4 s"), (99, "99 s"), (600, "10 min"), (7200, "2.0 h"), (360000, "100.0 h")],
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text


def test_the_pace_is_that_of_the_last_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stages = Stages()
    stages.seconds |= {"encode": 75.0, "decode": 25.0, "write": 0.1}
    pace = Pace(200, stages)
    now[0] = 100.0  # a slow start
    assert pace.note().startswith("0.01 videos/s, 5.5 h to go")
    for _ in range(79):
        now[0] += 1.0
        text = pace.note()
    assert text == "1 videos/s, 2 min to go  [encode 75%, decode 25%]"
    pace = Pace(1, Stages())
    now[0] += 0.5
    assert pace.note() == "2 videos/s"


def test_stages_add_up_over_threads_and_their_shares_sum_to_one():
    stages = Stages()
    assert stages.shares() == {}
    with stages.spent("flow"):
        time.sleep(0.02)
    with pytest.raises(KeyError), stages.spent("decode"):
        raise KeyError(os.devnull)
    assert stages.seconds["flow"] >= 0.02
    assert stages.seconds["decode"] > 0
    assert sum(stages.shares().values()) == pytest.approx(1)
    assert next(iter(stages.shares())) == "flow"
