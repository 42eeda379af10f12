from __future__ import annotations

import json

import pytest

from tristream.curves import EVENTS, Curves


def epoch(number: int, loss: float) -> dict[str, float]:
    return {"epoch": number, "loss": loss, "val_loss": loss + 1, "learning_rate": 1e-3}


def test_tensorboard_reads_the_numbers_of_metrics_jsonl(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Curves(tmp_path) as curves:
        curves.add("audio-encoder", epoch(1, 0.5))
        curves.add("audio-encoder", epoch(2, 0.25))
        curves.add("audio-aggregator", epoch(1, 0.75))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = EventAccumulator(str(tmp_path)).Reload()
    tags = found.Tags()["scalars"]
    assert set(tags) == {
        f"audio-{p}/{n}"
        for p in ("encoder", "aggregator")
        for n in ("loss", "val_loss", "learning_rate")
    }
    for tag in tags:
        phase, _, name = tag.partition("/")
        expected = [(line["epoch"], line[name]) for line in lines if line["phase"] == phase]
        assert [
            (event.step, pytest.approx(event.value)) for event in found.Scalars(tag)
        ] == expected


def test_curves_are_there_while_the_training_runs_and_after_it_failed(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def fail() -> None:
        with Curves(tmp_path) as curves:
            curves.add("a", epoch(1, 0.5))
            assert len(EventAccumulator(str(tmp_path)).Reload().Scalars("a/loss")) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 0.5


def test_a_resumed_training_tells_the_whole_story_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for n_epochs in (2, 3):
        with Curves(tmp_path) as curves:
            for number in range(1, n_epochs + 1):
                curves.add("a", epoch(number, 1 / number))
    assert sorted(path.name for path in tmp_path.iterdir()) == [EVENTS, "metrics.jsonl"]
    assert [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("a/loss")] == [
        1,
        2,
        3,
    ]


def test_a_process_that_trains_along_writes_nothing(tmp_path):
    with Curves(tmp_path, is_writing=False) as curves:
        curves.add("a", epoch(1, 0.5))
    assert list(tmp_path.iterdir()) == []
