from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time

import pytest

from tristream.bench.inputs import subject
from tristream.bench.table import Table, as_text
from tristream.bench.timing import in_turns, run_child
from tristream.commands.bench import BENCHES
from tristream.errors import MachineError
from tristream.memory import tree_bytes


def test_a_table_keeps_its_numbers_in_json_and_shows_three_digits():
    table = Table(
        "speed", ["net", "ms", "items"], [["a", 12.34567, 1234567], ["b", None, 3]], ["two cores"]
    )
    stored = json.loads(json.dumps(table.to_json()))
    assert stored["rows"] == [
        {"net": "a", "ms": 12.34567, "items": 1234567},
        {"net": "b", "ms": None, "items": 3},
    ]
    assert table.cells() == [["a", "12.3", "1234567"], ["b", "–", "3"]]
    assert as_text(4321.9) == "4322"


def test_a_row_that_does_not_fit_the_header_is_named():
    with pytest.raises(ValueError, match=r"table 'speed': row 'b' has 3 cells, the header has 2"):
        Table("speed", ["net", "ms"], [["a", 1], ["b", 2, 3]])


def test_pairs_take_turns_and_the_first_call_does_not_count():
    called = []
    seconds = in_turns(
        {"a": lambda: called.append("a"), "b": lambda: called.append("b")}, repeats=3
    )
    assert called == ["a", "b"] * 4
    assert set(seconds) == {"a", "b"}


def test_the_memory_of_a_process_tree_counts_its_children():
    hold = "import subprocess, sys; x = b'1' * (80 << 20); print(1, flush=True); sys.stdin.read()"
    nest = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {hold!r}]); {hold}"
    child = subprocess.Popen(
        [sys.executable, "-c", nest], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == child.stdout.readline() == "1\n"
        assert 160 << 20 < tree_bytes(child.pid) < 260 << 20
    finally:
        child.communicate("")
    assert tree_bytes(child.pid) == 0


def test_a_child_that_fails_says_why():
    with pytest.raises(MachineError, match=r"(?s)ended with 1.*ZeroDivisionError"):
        run_child(["-c", "1/0"])


def test_a_child_is_watched():
    begun = time.perf_counter()
    ran = run_child(["-c", "import time; x = b'1' * (100 << 20); time.sleep(.4); print('done')"])
    assert ran.stdout == "done\n"
    assert 0.4 <= ran.seconds <= time.perf_counter() - begun
    assert 100 << 20 < ran.peak_bytes < 200 << 20


def test_clips_are_rendered_where_no_videos_are_named():
    from tristream.media.decode import decode_video

    with subject(None, n_videos=1) as measured:
        [path] = measured.videos
        decoded = decode_video(path)
        assert decoded.frames.shape == (175, 240, 320, 3)
        assert decoded.samples_stop_seconds == pytest.approx(7.0, abs=0.1)
        assert decoded.reasons == ()
        assert measured.scratch.is_dir()
    assert not measured.scratch.exists()


def test_a_folder_without_videos_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"--data {tmp_path} holds no video"), subject(tmp_path):
        pass


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_is_a_module_with_run(name):
    assert callable(importlib.import_module(f"bench.{name.replace('-', '_')}").run)


def test_targets_are_looked_up_in_the_tables_and_judged():
    from tristream.bench.targets import summary

    cache = Table(
        "flow in the cache, a pair",
        ["what", "here"],
        [["kilobytes", 46.0], ["largest error, px", 0.01]],
    )
    startup = Table("from process start", ["what", "median, s"], [["tristream --help", 0.31]])
    rows = {
        row[0]: row
        for row in summary({"cache": [cache.to_json()], "startup": [startup.to_json()]}).rows
    }
    assert rows["flow cache, kB a pair"] == ("flow cache, kB a pair", 46.0, "at most 50", "reached")
    assert rows["flow cache, largest error, px"][3] == "missed"
    assert rows["second run / first run"][1:] == (None, "at most 0.02", "not measured here")
    assert rows["tristream --help, s"][3] == "reached"
    assert not any("memory" in name for name in rows), "a bench that was not run has no row"


def test_every_target_names_a_bench_that_exists():
    from tristream.bench.targets import TARGETS

    assert {target[1] for target in TARGETS} <= set(BENCHES)


def test_bars_are_as_wide_as_their_shares_and_names_are_escaped():
    import re
    from xml.etree import ElementTree

    from tristream.bench.plots import bars, curves

    svg = bars(
        "where <time> goes", ["decode", "encode"], {"spatial": [1.0, 3.0], "audio": [0.0, 2.0]}
    )
    ElementTree.fromstring(svg)
    widths = [
        float(w) for w in re.findall(r'<rect x="[\d.]+" y="\d+" width="([\d.]+)" height="34"', svg)
    ]
    assert widths[1] == pytest.approx(3 * widths[0], rel=1e-2)
    assert widths[2] == 0
    assert widths[3] == pytest.approx(sum(widths[:2]), rel=1e-3)
    assert "encode 75.0%" in svg
    lines = curves("memory", "videos", ["1", "16"], {"MB": [500.0, 1000.0]}, "MB")
    ElementTree.fromstring(lines)
    heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', lines)]
    assert heights == [190.0, 70.0], "the axis begins at 0"
