"""The command line from a folder of videos to decisions, as a user types it; small, so that it runs in every loop."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tristream import streams
from tristream.media.encode import write_video
from tristream.workshop.clips import FPS, Recipe, make_clip

RECIPES = {"bounce": Recipe(motions=("bounce",)), "spin": Recipe(motions=("spin",))}
N_CLIPS = 10  # a class in `two_classes`


@pytest.fixture(scope="module")
def trained(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/default of its own: indexed, every stream trained, embedded, fused."""
    return Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("commands") / "work"))


@pytest.fixture
def line(trained: Path, command_line) -> Any:
    return command_line(trained)


@pytest.fixture
def empty(tmp_path: Path, command_line) -> Any:
    return command_line(tmp_path)


def test_every_video_ends_in_one_state_and_the_broken_one_is_named(line: Any) -> None:
    found = line.json("embed", code=3)
    assert found["n_videos"] == 2 * N_CLIPS + 1
    assert found["rejected_videos"] == {"spin/broken.mp4": "not_a_video"}
    assert found["ok"] + found["degraded"] + found["rejected"] == found["n_videos"]
    failures = (line.folder / "runs/default/failures.csv").read_text()
    assert "spin/broken.mp4,not_a_video" in failures


def test_a_silent_video_is_masked_and_not_zero(line: Any) -> None:
    import pyarrow.parquet as pq

    for name in streams.names():
        if not streams.stream_class(name).needs_sound:
            continue
        [part] = (line.folder / "runs/default/embeddings" / name).glob("*/part-*.parquet")
        rows = {row["video_id"]: row for row in pq.read_table(part).to_pylist()}
        silent, sounding = rows["spin/0.mp4"], rows["spin/1.mp4"]
        assert (silent["present"], silent["reason"], silent["embedding"]) == (
            False,
            "no_audio",
            None,
        )
        assert sounding["present"]
        assert any(sounding["embedding"])


def test_fuse_reports_every_subset_of_streams(line: Any) -> None:
    found = line.json("fuse")
    n = len(streams.names())
    assert len(found["classification"]["subsets"]) == 2**n - 1
    assert found["classification"]["C"] == pytest.approx(1 / (1e-2 * n_train(line)))
    assert "accuracy of the linear svm" in line.said.lower()


def n_train(line: Any) -> int:
    table = (line.folder / "runs/default/videos.csv").read_text().splitlines()
    header = table[0].split(",")
    rows = [dict(zip(header, row.split(","), strict=False)) for row in table[1:]]
    return sum(row["split"] == "train" and "broken" not in row["video_id"] for row in rows)


def test_predict_names_an_action_and_says_which_streams_were_masked(
    line: Any, two_classes: Path
) -> None:
    found = line.json("predict", two_classes / "spin/0.mp4", two_classes / "spin/1.mp4")
    silent, sounding = found["predictions"]
    assert sounding["label"] in RECIPES
    assert [entry["score"] for entry in sounding["top"]] == sorted(
        (e["score"] for e in sounding["top"]), reverse=True
    )
    assert silent["masked"] == [
        name for name in streams.names() if streams.stream_class(name).needs_sound
    ]
    assert sounding["masked"] == []


def test_detect_scores_videos_and_shares_sum_to_one(line: Any, two_classes: Path) -> None:
    line("detect", two_classes / "bounce/1.mp4", "--out", "found.csv")
    found = line.json("detect", two_classes / "bounce/1.mp4")["detections"][0]
    assert found["anomaly_score"] > 0
    assert sum(found["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert (
        (line.folder / "found.csv")
        .read_text()
        .startswith("path,anomaly_score,threshold,abnormal,share_")
    )


def test_a_broken_new_file_is_named_and_the_exit_code_is_three(
    line: Any, two_classes: Path
) -> None:
    found = line.json(
        "predict", two_classes / "spin/broken.mp4", two_classes / "spin/1.mp4", code=3
    )
    assert list(found["rejected"].values()) == ["not_a_video"]
    assert len(found["predictions"]) == 1


def test_plan_shows_increasing_moments_inside_the_video(line: Any, two_classes: Path) -> None:
    [plan] = line.json("plan", two_classes / "bounce/1.mp4")["plans"]
    for found in plan["streams"].values():
        starts = [start for start, _ in found["segments"]]
        assert starts == sorted(set(starts))
        assert starts[0] >= 0
        assert found["segments"][-1][1] <= 1.3


def test_a_second_training_with_the_same_settings_does_nothing(line: Any, quick) -> None:
    name = streams.names()[0]
    assert line.json("train-stream", name, *quick(name))["trained"] is False
    assert "trained already" in line.said


def test_retraining_one_stream_makes_only_its_embeddings_stale(line: Any, quick) -> None:
    before = line.json("embed", code=3)["spaces"]
    name = streams.names()[-1]
    line("train-stream", name, *quick(name), "--seed", "7", code=0)
    line("fuse", code=2)
    assert f"'{name}' has no embeddings in its space" in line.said
    after = line.json("embed", code=3)["spaces"]
    assert {stream for stream in before if before[stream] != after[stream]} == {name}
    line(
        "predict", next((line.folder / "runs").glob("**/videos.csv")), code=2
    )  # decided in the old space
    assert "run tristream embed and tristream fuse" in line.said
    line("fuse")


def test_a_stream_from_another_run_comes_with_its_space(line: Any, tmp_path: Path) -> None:
    name = streams.names()[0]
    space = line.json("embed", code=3)["spaces"][name]
    taken = line.json("train-stream", name, "--run", tmp_path / "other", "--from", "runs/default")
    assert taken["space_id"] == space


def test_a_moved_file_and_a_new_one_join_without_training(
    line: Any, two_classes: Path, tmp_path: Path
) -> None:
    extra = tmp_path / "moved.mp4"
    extra.write_bytes((two_classes / "bounce/2.mp4").read_bytes())
    found = line.json("embed", extra, code=3)
    assert found["n_videos"] == 2 * N_CLIPS + 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train-stream", "smell"], "unknown stream 'smell'; available: "),
        (["embed"], "runs/default does not exist; make it first: tristream index"),
        (["index"], "--data is missing"),
        (["index", "--data", "nowhere"], "--data nowhere is not a folder"),
        (["fuse", "--preset", "heavy"], "unknown preset 'heavy'; available: light, "),
        (["fuse", "--set", "fusion.C=1"], "unknown key 'C' in [fusion]; valid: l2, reading"),
        (["fuse", "--set", "fusion"], "--set fusion is not KEY=VALUE"),
        (["predict", "x.mp4"], "runs/default does not exist; make it first: tristream index"),
        (["embed", "--streams", "smell"], "unknown stream 'smell'"),
        (["workshop", "out", "--size", "huge"], "huge"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_two(
    empty: Any, arguments: list[str], sentence: str
) -> None:
    if arguments[0] == "fuse":
        (empty.folder / "runs/default").mkdir(parents=True)
        (empty.folder / "runs/default/videos.csv").write_text("video_id,path,label,split\n")
    empty(*arguments, code=2)
    assert sentence in empty.said
    assert "Traceback" not in empty.said


def test_videos_without_the_sound_that_a_stream_needs_break_nothing(empty: Any, quick) -> None:
    silent = empty.folder / "silent"
    for label, recipe in RECIPES.items():
        (silent / label).mkdir(parents=True)
        for index in range(3):
            frames = make_clip(recipe, f"silent-{label}-{index}").frames[:12]
            write_video(silent / label / f"{index}.mp4", frames, fps=FPS)
    empty("index", "--data", silent)
    for name in streams.names():
        if streams.stream_class(name).needs_sound:
            assert empty.json("train-stream", name, *quick(name))["trained"] is False
            assert "nothing to learn from" in empty.said


def test_one_training_class_is_said_with_the_way_out(empty: Any, two_classes: Path) -> None:
    only = empty.folder / "only" / "bounce"
    only.mkdir(parents=True)
    for index in range(4):
        (only / f"{index}.mp4").write_bytes((two_classes / f"bounce/{index + 1}.mp4").read_bytes())
    empty("index", "--data", empty.folder / "only")
    empty("train-stream", streams.names()[0], code=2)
    assert "one class only ('bounce')" in empty.said
    assert "--from RUN" in empty.said
