"""fuse --window and detect on long videos, as a user types it: a planted anomaly found again, in its seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tristream import streams
from tristream.media.encode import write_video
from tristream.store.checkpoint import load_artifact, save_artifact
from tristream.streams import model
from tristream.workshop.clips import FPS, Recipe, make_clip

pytestmark = pytest.mark.slow

NORMAL = Recipe("rubber", ("spin",), "hum")
PLANTED = (2.4, 4.8)  # seconds


def long_video(path: Path, recipes: list[Recipe]) -> None:
    clips = [make_clip(recipe, f"{path.stem}-{n}") for n, recipe in enumerate(recipes)]
    frames, samples = (
        np.concatenate([c.frames for c in clips]),
        np.concatenate([c.samples for c in clips]),
    )
    write_video(path, frames, fps=FPS, samples=samples)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normal videos of 7.2 s, and one whose middle third is white, still and silent."""
    folder = tmp_path_factory.mktemp("long")
    lines = ["path,label,split,group,anomaly"]
    for split, n in (("train", 5), ("val", 3), ("test", 2)):
        for index in range(n):
            name = f"{split}{index}"
            long_video(folder / f"{name}.mp4", [NORMAL] * 3)
            lines.append(f"{name}.mp4,,{split},{name},0")
    clips = [make_clip(NORMAL, f"bad-{n}") for n in range(3)]
    frames, samples = (
        np.concatenate([c.frames for c in clips]),
        np.concatenate([c.samples for c in clips]),
    )
    frames[60:120], samples[38_400:76_800] = 255, 0
    write_video(folder / "bad.mp4", frames, fps=FPS, samples=samples)
    long_video(folder / "short.mp4", [NORMAL])
    lines += ["bad.mp4,,test,bad,1", "short.mp4,,test,short,0"]
    (folder / "videos.csv").write_text("\n".join(lines) + "\n")
    labels = {"bad.mp4": [list(PLANTED)]}
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


@pytest.fixture(scope="module")
def fitted(
    request: Any, videos: Path, workshop_settings: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """runs/default with streams of random weights that pass a mean and a deviation on.

    Its parameter is the crop of the videos; None by default.
    """
    data = workshop_settings.data.model_copy(update={"crop": getattr(request, "param", None)})
    folder = tmp_path_factory.mktemp("work")
    for name in streams.names():
        config = workshop_settings.streams[name]
        parts = config.aggregator.model_copy(update={"kind": "mean_deviation"})
        config = config.model_copy(update={"aggregator": parts})
        torch.manual_seed(0)
        stream = streams.load(name, config, workshop_settings.sampler)
        network = model.build_model(stream, 2).eval()
        made = model.TrainedStream(
            stream=stream, data=data, classes=("a", "b"), model=network,
            checksums=model.Checksums.of(network), lineage={},
        )  # fmt: skip
        model.save(folder / "runs/default/streams" / name, made)
    return folder


@pytest.fixture
def line(fitted: Path, command_line: Any, videos: Path) -> Any:
    made = command_line(fitted)
    if not (fitted / "runs/default/fusion/detector.json").exists():
        made("index", "--data", videos)
        made.report = made.json(
            "fuse",
            "--window",
            1.2,
            "--hop",
            0.6,
            "--preset",
            "workshop",
            "--frame-labels",
            videos / "labels.json",
        )
        (fitted / "report.json").write_text(json.dumps(made.report))
    made.report = json.loads((fitted / "report.json").read_text())
    return made


def test_the_planted_seconds_are_found_and_nothing_else(line: Any, videos: Path) -> None:
    found = line.json(
        "detect", videos / "bad.mp4", videos / "test0.mp4", videos / "short.mp4", "--quantile", 0.9
    )
    bad, good, short = found["detections"]
    assert bad["abnormal"]
    highest = max(bad["events"], key=lambda event: event["peak_score"])
    assert PLANTED[0] <= highest["peak_seconds"] <= PLANTED[1]
    assert highest["start_seconds"] <= PLANTED[0] + 0.6
    assert highest["stop_seconds"] >= PLANTED[1] - 0.6
    assert sum(highest["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert set(highest["nearest"]) <= {f"train{n}.mp4" for n in range(5)}
    assert bad["anomaly_score"] > 3 * max(good["anomaly_score"], short["anomaly_score"])
    assert short["n_windows"] == 3  # 2.4 s
    assert good["n_windows"] == 11


def test_timelines_of_test_videos_are_what_detect_says(line: Any, videos: Path) -> None:
    stored = json.loads((line.folder / "runs/default/fusion/timelines.json").read_text())
    assert (stored["window_seconds"], stored["hop_seconds"]) == (1.2, 0.6)
    by_id = {video["video_id"]: video for video in stored["videos"]}
    assert set(by_id) == {"test0.mp4", "test1.mp4", "bad.mp4", "short.mp4"}
    bad = by_id["bad.mp4"]
    [found] = line.json("detect", videos / "bad.mp4")["detections"]
    assert max(bad["scores"]) == found["anomaly_score"]
    assert stored["threshold"] == pytest.approx(found["threshold"], abs=1e-6)
    for event, again in zip(bad["events"], found["events"], strict=True):
        assert event == {name: value for name, value in again.items() if name != "streams"}
    assert bad["labels"] == [list(PLANTED)]
    assert by_id["test0.mp4"]["labels"] == []
    assert bad["times"][:2] == [0.6, 1.2]
    sums = np.sum([bad["shares"][name] for name in stored["streams"]], axis=0)
    np.testing.assert_allclose(sums, 1, atol=1e-3)


def test_every_rival_is_measured_on_videos_frames_and_events(line: Any) -> None:
    found = line.report["detection"]
    assert set(found["rivals"]) >= {"autoencoder", "pca", "knn"}
    if any(streams.stream_class(name).needs_pictures for name in streams.names()):
        assert "max |flow|" in found["rivals"]
    assert found["rivals"]["autoencoder"]["auroc"] == 1
    assert found["rivals"]["autoencoder"]["prevalence"] == pytest.approx(1 / 4)
    assert found["frames"]["autoencoder"]["micro"] > 0.9
    assert found["frames"]["autoencoder"]["n_undefined"] == 3
    assert found["events"]["n_true"] == found["events"]["n_hits"] == 1


def test_tables_of_windows_hold_their_seconds(line: Any) -> None:
    from tristream.store import embeddings

    for name in streams.names():
        [folder] = (line.folder / "runs/default/windows" / name).iterdir()
        table = embeddings.read(folder)
        assert table.space_id == folder.name
        rows = [row for row, video in enumerate(table.video_id) if video == "bad.mp4"]
        np.testing.assert_allclose(table.start_seconds[rows], 0.6 * np.arange(11), atol=1e-9)
        np.testing.assert_allclose(table.stop_seconds[rows] - table.start_seconds[rows], 1.2)
        assert table.lineage["windows"]["hop_seconds"] == 0.6


@pytest.mark.parametrize("fitted", [None, (0.0, 0.25, 0.75, 1.0)], indirect=True)
def test_a_live_pipe_gives_the_events_of_the_file(
    line: Any, videos: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    import io

    import av
    import cv2

    from tristream.media.decode import decode_video

    buffer = io.BytesIO()
    with (
        av.open(str(videos / "bad.mp4")) as source,
        av.open(buffer, "w", format="matroska") as pipe,
    ):
        copies = {track: pipe.add_stream_from_template(track) for track in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream]
                pipe.mux(packet)
    path = tmp_path / "in.mkv"
    path.write_bytes(buffer.getvalue())
    with path.open("rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        folder = tmp_path / "events"
        said = [
            json.loads(text)
            for text in line("detect", "--follow", "-", "--json", "--save", folder).splitlines()
        ]
    [expected] = line.json("detect", path)["detections"]
    events = [one for one in said if one["type"] == "event"]
    assert len(events) == len(expected["events"])
    for event, again in zip(events, expected["events"], strict=True):
        for key in ("peak_score", "start_seconds", "stop_seconds", "shares", "streams", "nearest"):
            assert event[key] == again[key], key
    assert [one["kind"] for one in said if one["type"] == "notice"] == ["opened", "ended"]
    assert [one["type"] for one in said].count("alarm") >= len(events)
    for event in events:  # the pictures of its seconds, which no one can read again
        clip, picture = map(Path, event["files"])
        shown = decode_video(clip)
        start, stop = max(0.0, event["start_seconds"] - 1), min(7.2, event["stop_seconds"] + 1)
        assert shown.stop_seconds[-1] == pytest.approx(stop - start, abs=0.7)
        assert cv2.imread(str(picture)).shape[1] == 1080
    assert len(list(folder.iterdir())) == 2 * len(events)


def test_each_event_gets_a_clip_of_its_seconds_and_a_picture(
    line: Any, videos: Path, tmp_path: Path
) -> None:
    from tristream.media.decode import decode_video

    folder = tmp_path / "events"
    [found] = line.json("detect", videos / "bad.mp4", "--save", folder)["detections"]
    clips, pictures = sorted(folder.glob("*.mp4")), sorted(folder.glob("*.png"))
    assert len(clips) == len(pictures) == len(found["events"])
    for clip, event in zip(clips, found["events"], strict=True):
        shown = decode_video(clip)
        start, stop = max(0.0, event["start_seconds"] - 1), min(7.2, event["stop_seconds"] + 1)
        assert shown.stop_seconds[-1] == pytest.approx(stop - start, abs=0.1)
        assert (shown.samples is not None) == (shown.n_decoded_frames > 0)


def test_windows_keep_to_the_limits_of_files(line: Any, videos: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.mp4"
    new.write_bytes((videos / "bad.mp4").read_bytes() + bytes(8))  # nothing of it is in the cache
    found = line.json("detect", new, "--set", "limits.max_bytes=100", code=3)
    assert list(found["rejected"].values()) == ["file_too_large"]


def test_what_does_not_fit_is_said(line: Any, videos: Path) -> None:
    bad = videos / "bad.mp4"
    cases = [
        (
            ["detect", bad, "--false-alarms-per-hour", 0.01],
            "0.01 alarms an hour cannot be set from 0.0",
        ),
        (
            ["detect", bad, "--quantile", 0.9, "--mean-sd", 2],
            "--quantile and --mean-sd are different thresholds",
        ),
        (
            ["detect", bad, "--follow", "-"],
            "1 video files and a --follow SOURCE; give one of them",
        ),
        (["detect"], "0 video files and no --follow SOURCE; give one of them"),
        (
            ["detect", "--follow", "http://127.0.0.1:1/a"],
            "needs the network; allow it with --protocols http",
        ),
        (["detect", bad, "--flow-from", "x"], "--flow-from is for whole videos"),
        (
            ["detect", "--follow", "-", "--out", "x.json"],
            "--out is for files; with --follow, --json prints",
        ),
        (["fuse", "--hop", 1], "--hop needs windows; give --window SECONDS too"),
        (["fuse", "--window", 2, "--regions", "4by6"], "--regions 4by6 is not ROWSxCOLUMNS"),
        (["fuse", "--window", 2, "--hop", 3], "a hop of 3 s with windows of 2 s"),
        (
            ["fuse", "--window", 2, "--set", "detector.kind=magic"],
            "unknown detector 'magic'; available: autoencoder",
        ),
        (
            ["fuse", "--window", 2, "--normal", "calm"],
            "--normal: no video has the label 'calm'; there are no labels",
        ),
    ]
    for arguments, words in cases:
        line(*arguments, code=2)
        assert words in line.said, (arguments, line.said)


def test_streams_trained_again_are_refused(
    line: Any, videos: Path, tmp_path: Path, fitted: Path, command_line
) -> None:
    copy = Path(shutil.copytree(fitted, tmp_path / "copy"))
    path = copy / "runs/default/fusion/detector"
    arrays, stored = load_artifact(path)
    name = next(iter(stored["spaces"]))
    for key, value, words in (
        (
            "spaces",
            {**stored["spaces"], name: "0" * 16},
            f"stream '{name}' is in space {stored['spaces'][name]}, but the detector was fitted in 00",
        ),
        ("windows", {**stored["windows"], "schema": 99}, "run tristream fuse again"),
    ):
        save_artifact(path, arrays, {**stored, key: value})
        other = command_line(copy)
        other("detect", videos / "bad.mp4", code=2)
        assert words in other.said, other.said
