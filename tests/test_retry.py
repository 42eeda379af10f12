"""A run whose failed videos are tried again alone, and whose links lead elsewhere."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import orchestrate
from tristream import streams
from tristream.media.encode import write_video
from tristream.store import embeddings

STREAM = streams.names()[0]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """(arguments, code) → stdout and stderr of a command line in a folder of its own."""

    def command(*arguments: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["tristream", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            orchestrate.main()
        said = capsys.readouterr()
        assert (end.value.code or 0) == code, said.err
        return said.out, said.err

    return command


@pytest.fixture
def folder(tmp_path, untrained):
    """Two good videos, one that is broken, one link that leads out; a run with one stream that has learned nothing."""
    from tristream.streams import model

    videos = tmp_path / "videos"
    videos.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "outside"):
        samples = rng.uniform(-0.5, 0.5, 32000).astype(np.float32)
        frames = rng.integers(0, 255, (50, 48, 64, 3), np.uint8)
        write_video(videos / f"{name}.mp4", frames, fps=25, samples=samples)
    shutil.move(videos / "outside.mp4", tmp_path / "outside.mp4")
    (videos / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (videos / "broken.mp4").write_bytes(b"<html>404</html>")
    model.save(tmp_path / "runs/default/streams" / STREAM, untrained(STREAM))
    return tmp_path


def states(folder: Path) -> dict[str, str]:
    with (folder / "runs/default/status.csv").open(newline="") as file:
        return {
            row["video_id"]: f"{row['status']} {row['reasons']}".strip()
            for row in csv.DictReader(file)
        }


def table(folder: Path) -> embeddings.EmbeddingTable:
    [space] = (folder / "runs/default/embeddings" / STREAM).iterdir()
    return embeddings.read(space)


def test_failed_videos_are_tried_again_alone_and_join_the_others(folder, run):
    run("index", "--data", "videos")
    run("embed", "--workers", "1", code=3)
    assert states(folder)["broken.mp4"] == "rejected not_a_video"
    first = table(folder)
    (folder / "videos/a.mp4").unlink()  # would be noticed, if it were looked at again
    shutil.copy(folder / "videos/b.mp4", folder / "videos/broken.mp4")
    out, _ = run("embed", "--workers", "1", "--retry", "failed", "--json", code=3)
    assert json.loads(out)["n_videos"] == 2
    assert states(folder) == {
        "a.mp4": "ok",
        "b.mp4": "ok",
        "broken.mp4": "ok",
        "link.mp4": "rejected outside_root",
    }
    assert "broken" not in (folder / "runs/default/failures.csv").read_text()
    both = table(folder)
    rows = {video_id: row for row, video_id in enumerate(both.video_id)}
    assert rows.keys() == {"a.mp4", "b.mp4", "broken.mp4"}
    np.testing.assert_array_equal(both.embedding[rows["broken.mp4"]], both.embedding[rows["b.mp4"]])
    np.testing.assert_array_equal(both.embedding[[rows["a.mp4"], rows["b.mp4"]]], first.embedding)


def test_links_out_of_the_root_are_followed_by_index_and_embed_when_asked(folder, run):
    _, said = run("index", "--data", "videos", "--follow-links")
    assert f"the data root is {folder / 'videos'}" in said
    run("embed", "--workers", "1", "--follow-links", code=3)
    assert states(folder)["link.mp4"] == "ok"
    run("embed", "--workers", "1", code=3)
    assert states(folder)["link.mp4"] == "rejected outside_root"  # though it is in the cache


@pytest.mark.parametrize(
    ("first", "arguments", "said"),
    [
        (False, ["--retry", "failed"], "has no embeddings of its present training"),
        (False, ["--retry", "ok"], "--retry ok is unknown; it can be: failed"),
        (True, ["--retry", "failed", "videos/../outside.mp4"], "outside.mp4 has no state in"),
    ],
)
def test_what_was_never_tried_cannot_be_tried_again(folder, run, first, arguments, said):
    run("index", "--data", "videos")
    if first:
        run("embed", "--workers", "1", code=3)
    assert said in run("embed", *arguments, code=2)[1]


def test_limits_are_recorded_and_do_not_change_the_space(folder, run):
    run("index", "--data", "videos")
    run("embed", "--workers", "1", code=3)
    space = table(folder).space_id
    run("embed", "--workers", "1", "--set", "limits.max_bytes=100", "--force", code=3)
    assert (
        json.loads((folder / "runs/default/lineage.json").read_text())["limits"]["max_bytes"] == 100
    )
    assert states(folder)["a.mp4"] == "rejected file_too_large"
    assert table(folder).space_id == space


@pytest.mark.parametrize("command", [["plan"], ["similar"]])
def test_commands_on_new_videos_keep_to_limits_and_links_too(folder, run, command):
    run("index", "--data", "videos")
    run("embed", "--workers", "1", code=3)
    new = folder / "videos" / "new.mp4"
    shutil.copy(folder / "outside.mp4", new)
    assert "new.mp4 has" in run(*command, new, "--set", "limits.max_bytes=100", code=3)[1]
    run(*command, new)
    assert (
        "or allow links with --follow-links"
        in run(*command, folder / "videos" / "link.mp4", code=3)[1]
    )
    run(*command, folder / "videos" / "link.mp4", "--follow-links")


@pytest.mark.slow
def test_no_flow_stays_in_the_cache_when_that_is_asked_for(folder, run, untrained):
    from tristream.streams import model

    for name in streams.names():
        model.save(folder / "runs/default/streams" / name, untrained(name))
    run("index", "--data", "videos")
    run("embed", "--workers", "1", "--cache", "small", "--no-flow-cache", code=3)
    run("embed", "--workers", "1", "--cache", "large", code=3)
    kinds = {
        cache: {path.name for path in (folder / cache).iterdir()} for cache in ("small", "large")
    }
    assert kinds["small"] == kinds["large"] - {"flow"}
    assert "segments" in kinds["small"]
