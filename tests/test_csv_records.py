"""Lists as spreadsheets, pandas and people save them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tristream.dataset.listing import ManifestError, index_csv
from tristream.dataset.manifest import complete, read_manifest, write_manifest

PLAIN = "path,label,split\na.mp4,walk,train\nb.mp4,sit,val\nc.mp4,walk,test\n"
EXPECTED = [("a.mp4", "walk", "train"), ("b.mp4", "sit", "val"), ("c.mp4", "walk", "test")]


def rows(folder: Path, data: bytes | str) -> list[tuple[str, str, str]]:
    for name in ("a.mp4", "b.mp4", "c.mp4", "x;y.mp4"):
        (folder / name).write_text(name)
    source = folder / "list.csv"
    source.write_bytes(data.encode() if isinstance(data, str) else data)
    return [(row.video_id, row.label, row.split) for row in index_csv(source)]


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"),
        PLAIN.replace("path,label,split", "Path, LABEL ,Split"),
        PLAIN.replace("path,label,split", '"path","label","split"'),
        PLAIN.replace("\n", ",,\n"),
        PLAIN + ",,\n,,\n",
        PLAIN.replace("\n", "\n\n"),
        PLAIN.replace(",train", ",Training").replace(",val", ",VALID").replace(",test", ",Test"),
    ],
)
def test_every_dialect_gives_the_rows_of_the_plain_list(tmp_path, data):
    assert rows(tmp_path, data) == EXPECTED


def test_a_delimiter_inside_a_path_is_part_of_it(tmp_path):
    assert rows(tmp_path, "path,label\nx;y.mp4,walk\n") == [("x;y.mp4", "walk", "")]
    assert rows(tmp_path, "path\nx;y.mp4\n") == [("x;y.mp4", "", "")]


def test_numbers_as_pandas_and_spreadsheets_write_them_are_read(tmp_path):
    rows(tmp_path, PLAIN)
    source = tmp_path / "list.csv"
    source.write_text("path,anomaly,fold\na.mp4,1.0,3.0\nb.mp4,FALSE,3\nc.mp4,,v1.0\n")
    found = [(row.anomaly, row.fold) for row in index_csv(source)]
    assert found == [(1, "3"), (0, "3"), (None, "v1.0")]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("a.mp4,walk\nb.mp4,sit\n", r"line 1: .*must name the columns.* and is 'a\.mp4,walk'"),
        (",path,label\n0,a.mp4,walk\n", "line 1: .*column 1 has no name .*index=False"),
        ("path;lable\na.mp4;walk\n", "line 1: .*unknown column 'lable'"),
        ("Path,path\na.mp4,a.mp4\n", "line 1: .*no column twice"),
        ("sep=;\nfile;label\na.mp4;walk\n", "line 2: .*unknown column 'file'"),
        ("sep=;\npath;label\nnone.mp4;walk\n", r"line 3: not_found: none\.mp4"),
        ("path;label\na.mp4;walk;extra\n", "line 2: wrong_field_count: 3 fields"),
        ("", "line 1: .*needs one column 'path'"),
        ("x" * 200_000, "line 1: .*needs one column 'path'"),
    ],
)
def test_a_list_that_is_not_understood_is_refused_with_its_cause(tmp_path, text, cause):
    with pytest.raises(ManifestError, match=cause):
        rows(tmp_path, text)


def test_a_manifest_saved_again_by_a_spreadsheet_is_read_alike(tmp_path):
    rows(tmp_path, PLAIN)
    write_manifest(complete(index_csv(tmp_path / "list.csv")), tmp_path / "videos.csv")
    before = read_manifest(tmp_path / "videos.csv")
    text = (tmp_path / "videos.csv").read_text()
    saved = text.replace(",", ";").replace("\n", "\r\n") + ";;;\r\n"
    (tmp_path / "videos.csv").write_bytes(saved.encode("utf-8-sig"))
    assert read_manifest(tmp_path / "videos.csv") == before
