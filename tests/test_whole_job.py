"""One call for the whole job: folders of classes, files without frames, unlabelled folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tristream as ts
from tristream import streams
from tristream.errors import UsageError
from tristream.media.encode import write_video
from tristream.train_all import train_all

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("audio" not in streams.names(), reason="needs the audio stream"),
]
QUICK = ["--preset", "workshop", "--epochs", "1", "--set", "sampler.n_samples=4"]


def test_a_folder_of_classes_becomes_a_classifier_a_detector_and_a_report(
    command_line, two_classes: Path, tmp_path: Path
) -> None:
    line = command_line(tmp_path)
    found = line.json("run", two_classes, *QUICK, code=3)  # one file is broken
    assert found["streams"] == streams.names()
    assert "3 test videos" in found["verdict"]
    assert "<" not in found["verdict"]
    assert (tmp_path / found["report"]).stat().st_size > 10_000
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("checkpoint*")}
    again = line.json("run", two_classes, *QUICK, code=3)
    assert again["verdict"] == found["verdict"]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps  # nothing is trained again
    assert line("predict", two_classes / "spin" / "2.mp4").startswith(str(two_classes))


def test_audio_files_train_the_audio_stream_alone(two_classes: Path, tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    for label, hertz in (("low", 200), ("high", 2000)):
        (tmp_path / "sounds" / label).mkdir(parents=True)
        for n in range(8):
            tone = 0.3 * np.sin(np.arange(48_000) * 2 * np.pi * hertz / 16_000)
            samples = (tone + 0.05 * rng.normal(size=48_000)).astype(np.float32)
            write_video(tmp_path / "sounds" / label / f"{n}.mp4", None, fps=25, samples=samples)
    run = ts.Run(tmp_path / "run", cache=tmp_path / "cache")
    result = run.run(tmp_path / "sounds", preset="workshop", epochs=2)
    assert result.streams == ("audio",)
    assert set(result.skipped.values()) == {"no file has frames"}


def test_an_unlabelled_folder_takes_the_streams_of_another_run(
    trained_run: Path, two_classes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "camera"
    folder.mkdir()
    for n, file in enumerate(sorted(two_classes.rglob("[1-8].mp4"))):
        shutil.copy(file, folder / f"{n:02d}.mp4")
    run = ts.Run(tmp_path / "run", cache=tmp_path / "cache")
    with pytest.raises(UsageError, match="has no two classes to train on"):
        run.run(folder)
    result = run.run(folder, from_run=trained_run / "runs" / "default", preset="workshop")
    assert result.streams == tuple(streams.names())
    assert run.detect([folder / "00.mp4"])[0].anomaly_score > 0


def test_train_stream_all_learns_what_each_training_alone_learns(
    command_line, two_classes: Path, tmp_path: Path
) -> None:
    line = command_line(tmp_path)
    line("index", "--data", two_classes)
    first, *others = streams.names()
    only_first = ["--set", f"streams.{first}.aggregator.kind=mean"]
    found = line.json("train-stream", "all", *QUICK, *only_first)
    assert list(found["streams"]) == streams.names()
    assert found["skipped"] == {}
    settings = {name: each["settings"]["streams"][name] for name, each in found["streams"].items()}
    assert [settings[name]["aggregator"]["kind"] == "mean" for name in (first, *others)] == [
        name == first for name in (first, *others)
    ]
    assert all(each["aggregator_training"]["epochs"] == 1 for each in settings.values())
    alone = line.json("train-stream", others[0], *QUICK, "--force")
    assert alone["space_id"] == found["streams"][others[0]]["space_id"]
    run = ts.Run(tmp_path / "other", cache=tmp_path / "cache")
    run.index(two_classes)
    source = ts.Run(tmp_path / "runs" / "default").workspace
    taken = train_all(run.workspace, from_run=source)
    assert {name: each.space_id for name, each in taken.results.items()} == {
        name: each["space_id"] for name, each in found["streams"].items()
    }


def test_fast_and_epochs_exclude_each_other(command_line, tmp_path: Path) -> None:
    line = command_line(tmp_path)
    (tmp_path / "runs" / "default").mkdir(parents=True)
    for command in (["train-stream", "all"], ["run", tmp_path]):
        line(*command, "--fast", "--epochs", "3", code=2)
        assert "--fast and --epochs exclude each other" in line.said
