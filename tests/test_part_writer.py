"""Embedding in parts: flat in memory, on disk while it runs, and equal after a kill."""

from __future__ import annotations

import gc
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tristream as ts
from tristream import part_writer, streams
from tristream.files import append_csv, complete_lines, write_csv
from tristream.part_writer import PartWriter
from tristream.store import embeddings
from tristream.store.cache import Cache
from tristream.streams.config import AggregatorConfig, DataConfig, SamplerConfig
from tristream.streams.extraction import SegmentEmbeddings, VideoResult
from tristream.streams.video import Video, View
from tristream.workspace import Workspace

CACHE = Cache(Path("/nowhere"), written=())
HOME = Path(__file__).parents[1]
KILLED = """
import os, signal, sys
from tristream import part_writer
import tristream as ts
part_writer.PART_VIDEOS = 3
add = part_writer.PartWriter.add
def counted(self, result):
    add(self, result)
    if self.tally.n_videos == 8:
        os.kill(os.getpid(), signal.SIGKILL)
part_writer.PartWriter.add = counted
if __name__ == "__main__":
    ts.Run(sys.argv[1]).embed()
"""


def tables(run: Path) -> dict[str, embeddings.EmbeddingTable]:
    found = {}
    for name in streams.names():
        [space] = (run / "embeddings" / name).iterdir()
        found[name] = embeddings.read(space)
    return found


@pytest.mark.slow
def test_a_killed_embedding_leaves_its_finished_parts_and_ends_equal(trained_run, tmp_path) -> None:
    work = Path(shutil.copytree(trained_run, tmp_path / "work"))
    run = work / "runs" / "default"
    whole = tables(run)
    shutil.rmtree(run / "embeddings")
    (run / "status.csv").unlink()
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = subprocess.run(
        [sys.executable, str(script), str(run)], cwd=work, env={"PYTHONPATH": str(HOME), "PATH": ""}
    )
    assert done.returncode == -signal.SIGKILL
    for name, table in tables(run).items():
        assert table.video_id == whole[name].video_id[:6]
        np.testing.assert_array_equal(table.embedding, whole[name].embedding[:6])
    assert len((run / "status.csv").read_text().splitlines()) == 1 + 6
    state = ts.Run(run).state().to_json()
    assert "6 of 21 videos" in str(state)

    ts.Run(run, cache=work / "cache").embed()
    for name, table in tables(run).items():
        assert table.video_id == whole[name].video_id
        np.testing.assert_array_equal(table.embedding, whole[name].embedding)
        assert len(list((run / "embeddings" / name).rglob("part-*"))) == 1
    assert "broken.mp4" in (run / "failures.csv").read_text()


def _stream(width: int = 4):
    return SimpleNamespace(
        name="audio",
        space_id="5" * 16,
        lineage={},
        classes=("a", "b"),
        config=SimpleNamespace(aggregator=AggregatorConfig()),
        model=SimpleNamespace(embedding_dim=width),
        segment_identity=dict,
    )


def _result(n: int, width: int = 4) -> VideoResult:
    segments = SegmentEmbeddings(
        np.ones((50, 64), np.float32), np.arange(50.0), np.arange(50.0) + 1
    )
    embedding = np.full(width, n, np.float32)
    video = Video(
        f"v{n:06d}",
        Path("/data/v.mp4"),
        f"c{n}",
        decode=lambda *_, **__: pytest.fail("nothing is decoded"),
        cache=CACHE,
        view=View(DataConfig(), SamplerConfig()),
    )
    return VideoResult(video, {"audio": embedding}, {"audio": segments}, {}, ())


def test_no_more_than_one_part_is_kept_in_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(part_writer, "PART_VIDEOS", 50)
    writer = PartWriter(Workspace(tmp_path), [_stream()])
    held, most = [], 0
    segments = []
    for n in range(1000):
        result = _result(n)
        held.append(weakref.ref(result.embeddings["audio"]))
        segments.append(weakref.ref(result.segments["audio"].embedding))
        writer.add(result)
        del result
        if n % 100 == 49:
            gc.collect()
            most = max(most, sum(ref() is not None for ref in held))
    gc.collect()
    assert most <= 50
    assert sum(ref() is not None for ref in segments) == 0
    writer.close()
    table = embeddings.read(writer.folder_of(_stream()))
    assert table.video_id == [f"v{n:06d}" for n in range(1000)]
    assert (table.start_seconds[7], table.stop_seconds[7]) == (0.0, 50.0)
    assert len(embeddings.parts_of(writer.folder_of(_stream()))) == 20


def test_a_slow_run_writes_parts_in_growing_steps(tmp_path, monkeypatch) -> None:
    """One video a minute: something is on disk after a minute, and a thousand need few files."""
    now = [0.0]
    monkeypatch.setattr(part_writer.time, "monotonic", lambda: now[0])
    writer = PartWriter(Workspace(tmp_path), [_stream()])
    for n in range(1000):
        now[0] += 60
        writer.add(_result(n))
        if n == 0:
            assert len(embeddings.parts_of(writer.folder_of(_stream()))) == 1
    writer.close()
    assert len(embeddings.parts_of(writer.folder_of(_stream()))) < 60


def test_a_later_part_replaces_a_row_of_an_earlier_one(tmp_path) -> None:
    first = PartWriter(Workspace(tmp_path), [_stream()], replace=False)
    first.add(_result(1))
    first.add(_result(2))
    first.close()
    second = PartWriter(Workspace(tmp_path), [_stream()], replace=False)
    changed = _result(1)
    changed.embeddings["audio"][:] = 9
    second.add(changed)
    second.close()
    table = embeddings.read(second.folder_of(_stream()))
    assert dict(zip(table.video_id, table.embedding[:, 0], strict=True)) == {
        "v000001": 9.0,
        "v000002": 2.0,
    }


def test_a_line_that_a_kill_cut_off_is_not_read(tmp_path) -> None:
    path = tmp_path / "status.csv"
    write_csv(path, ["a", "b"], [["1", "x"]])
    append_csv(path, ["a", "b"], [["2", "=y"]])
    with path.open("ab") as file:
        file.write("3,caf\u00e9".encode()[:-1])
    assert complete_lines(path) == "a,b\n1,x\n2,\\x3dy\n"


@pytest.mark.slow
def test_shards_that_run_at_once_make_the_tables_of_the_whole(trained_run, tmp_path) -> None:
    work = Path(shutil.copytree(trained_run, tmp_path / "work"))
    run = work / "runs" / "default"
    whole = tables(run)
    shutil.rmtree(run / "embeddings")
    (run / "status.csv").unlink()
    (run / "failures.csv").unlink()
    command = [sys.executable, str(HOME / "orchestrate.py"), "embed", "--run", str(run), "--shard"]
    shards = [
        subprocess.Popen([*command, f"{k}/3"], cwd=work, stderr=subprocess.DEVNULL)
        for k in (1, 2, 3)
    ]
    assert sorted(shard.wait() for shard in shards) == [0, 0, 3]  # one holds the broken file
    for name, table in tables(run).items():
        place = {video: row for row, video in enumerate(table.video_id)}
        rows = [place[video] for video in whole[name].video_id]
        assert len(place) == len(whole[name])
        np.testing.assert_array_equal(table.embedding[rows], whole[name].embedding)
    assert "not_embedded" in str(ts.Run(run).state().to_json())
    assert "are not embedded" not in str(ts.Run(run).state().to_json())


def test_a_shard_is_a_part_and_the_parts_are_all() -> None:
    from tristream.embed import rows_of_shard
    from tristream.errors import UsageError

    rows = [SimpleNamespace(video_id=f"v{n}", content_id=f"{n:064x}") for n in range(1000)]
    parts = [rows_of_shard(rows, k, 7) for k in range(1, 8)]
    assert sorted(row.video_id for part in parts for row in part) == sorted(
        row.video_id for row in rows
    )
    assert max(map(len, parts)) < 2 * min(map(len, parts))
    with pytest.raises(UsageError, match="shard 8/7"):
        rows_of_shard(rows, 8, 7)
