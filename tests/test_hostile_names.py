"""Names with line ends, quotes, escapes, formulas, HTML, 251 bytes or broken UTF-8, from the folder to every output."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import orchestrate
from tristream import streams
from tristream.media.encode import write_video

pytestmark = pytest.mark.slow

STREAM = streams.names()[0]
NAMES = {
    "two\nlines.mp4": "two\nlines.mp4",
    "-i.mp4": "-i.mp4",
    "cam1:12:00.mp4": "cam1:12:00.mp4",
    "clip_%03d.mp4": "clip_%03d.mp4",
    "a,b\"c'.mp4": "a,b\"c'.mp4",
    "=cmd|' calc'!A0.mp4": "=cmd|' calc'!A0.mp4",
    "red \x1b[31m\x1b[2J.mp4": "red \x1b[31m\x1b[2J.mp4",
    "<img src=x onerror=alert(1)>.mp4": "<img src=x onerror=alert(1)>.mp4",
    "</script><script>alert(1)</script>".replace("/", "\u2044") + ".mp4": None,
    "v" * 247 + ".mp4": None,
    "видео 日本語 🎬 é.mp4": None,
    os.fsdecode(b"bad_utf8_\xff\xfe.mp4"): "bad_utf8_\ufffdff\ufffdfe.mp4",
}
BROKEN = os.fsdecode(b"empty \x1b[31m\n\xff.mp4")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """One video under every name, with other bytes each: names alone must tell them apart. And a broken one."""
    folder = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    frames, samples = (
        rng.integers(0, 255, (30, 48, 64, 3), np.uint8),
        rng.uniform(-0.5, 0.5, 20000).astype(np.float32),
    )
    write_video(folder / "video.mp4", frames, fps=25, samples=samples)
    data = (folder / "video.mp4").read_bytes()
    (folder / "video.mp4").unlink()
    for index, name in enumerate(NAMES):
        (folder / name).write_bytes(data + b"\0\0\0\x0cfree" + index.to_bytes(4, "big"))
    (folder / BROKEN).write_bytes(b"")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    def command(*arguments: object, code: int = 0) -> tuple[str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["tristream", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            orchestrate.main()
        said = capfd.readouterr()
        assert (end.value.code or 0) == code, said.err
        for line in (said.out + said.err).splitlines():
            assert line.isprintable(), line
        return said.out, said.err

    return command


def test_every_name_goes_the_whole_way_and_is_safe_in_everything_that_is_written(
    videos, run, tmp_path, untrained
):
    from tristream.streams import model

    model.save(tmp_path / "runs/default/streams" / STREAM, untrained(STREAM))
    out, _ = run("index", "--data", videos, "--json")
    assert json.loads(out)["n_videos"] == len(NAMES) + 1
    out, said = run("embed", "--workers", "1", "--json", code=3)
    report = json.loads(out)
    assert "\\ud8" not in out.lower().replace("\\ud83c\\udfac", "")  # no half of a pair
    assert (report["ok"] + report["degraded"], report["rejected"]) == (len(NAMES), 1)
    assert list(report["rejected_videos"].values()) == ["empty_file"]
    assert "empty \\x1b[31m\\n" in said
    home = tmp_path / "runs/default"
    for path in home.rglob("*"):
        if path.suffix in (".csv", ".json", ".jsonl"):
            path.read_bytes().decode("utf-8")  # or it raises
    with (home / "status.csv").open(newline="", encoding="utf-8") as file:
        cells = [row["video_id"] for row in csv.DictReader(file)]
    with (home / "videos.csv").open(newline="", encoding="utf-8") as file:
        assert {row["video_id"] for row in csv.DictReader(file)} == set(
            cells
        )  # so that they can be joined
    assert len(set(cells)) == len(NAMES) + 1
    for cell in [*cells, *(home / "failures.csv").read_text(encoding="utf-8").splitlines()]:
        assert cell.isprintable()
        assert not cell.startswith(("=", "-", "+", "@"))
    [part] = home.rglob("part-*.parquet")
    found = pq.read_table(part)
    ids = found.column("video_id").to_pylist()
    assert set(ids) == {shown or name for name, shown in NAMES.items()}
    assert len({tuple(row) for row in found.column("content_id").to_pylist()}) == len(NAMES)
    again, _ = run("embed", "--workers", "1", "--json", "--retry", "failed", code=3)
    assert json.loads(again)["n_videos"] == 1


def test_the_same_names_given_as_paths_are_safe_too(videos, run, tmp_path, untrained):
    from tristream.streams import model

    model.save(tmp_path / "runs/default/streams" / STREAM, untrained(STREAM))
    paths = sorted(videos.iterdir(), key=os.fsencode)
    out, _ = run("plan", "--workers", "1", "--json", *paths, code=3)
    assert len(json.loads(out)["plans"]) == len(NAMES)
    run("plan", "--workers", "1", *paths, code=3)
    out, _ = run("check", "--workers", "1", videos, code=3)
    assert len(out.splitlines()) == len(NAMES) + 1


def test_labels_with_markup_are_escaped_in_tables_and_lists(run, tmp_path):
    folder = tmp_path / "data"
    for index, label in enumerate(("<b>walk</b>", "[red]run\x1b[31m", "=1+1")):
        (folder / label).mkdir(parents=True)
        for number in range(3):
            frames = np.full((5, 32, 32, 3), 40 * index + number, np.uint8)
            write_video(folder / label / f"{number}.mp4", frames, fps=25)
    _, said = run("index", "--data", folder)
    assert "[red]run\\x1b[31m" in said
    with (tmp_path / "runs/default/videos.csv").open(newline="", encoding="utf-8") as file:
        table = io.StringIO(file.read())
    assert not [row for row in csv.reader(table) for cell in row if cell.startswith("=")]
    shutil.rmtree(folder)
