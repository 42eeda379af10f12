from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tristream.store.embeddings import EmbeddingsError, EmbeddingTable, read, write


def table(n: int = 5, width: int = 3, *, first: int = 0, **changes) -> EmbeddingTable:
    rng = np.random.default_rng(first)
    present = np.arange(n) % 3 != 1
    embedding = rng.normal(size=(n, width)).astype(np.float32)
    embedding[~present] = np.nan
    values = {
        "stream": "audio",
        "space_id": "space0",
        "video_id": [f"klasse/v_{first + i:03d}.mp4" for i in range(n)],
        "content_id": [f"{first + i:064x}" for i in range(n)],
        "present": present,
        "reason": ["" if p else "no_audio" for p in present],
        "start_seconds": np.zeros(n),
        "stop_seconds": np.where(present, np.arange(n) + 0.25, np.nan),
        "embedding": embedding,
        "lineage": {"seed": 3, "encoder": "añb"},
    }
    return EmbeddingTable(**(values | changes))


def same(a: EmbeddingTable, b: EmbeddingTable) -> bool:
    lists = all(
        getattr(a, name) == getattr(b, name)
        for name in ("video_id", "content_id", "reason", "lineage")
    )
    arrays = all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
        for name in ("start_seconds", "stop_seconds", "embedding")
    )
    return (
        lists
        and arrays
        and np.array_equal(a.present, b.present)
        and (a.stream, a.space_id) == (b.stream, b.space_id)
    )


def test_a_table_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = write(table(), tmp_path)
    for place in (path, tmp_path, str(tmp_path)):
        again = read(place)
        assert same(again, table())
        assert again.embedding.dtype == np.float32
        assert np.isnan(again.embedding[1]).all()


def test_an_absent_embedding_is_null_on_disk_and_the_schema_is_the_documented_one(
    tmp_path: Path,
) -> None:
    arrow = pq.read_table(write(table(), tmp_path))
    assert arrow.column_names == [
        "video_id",
        "content_id",
        "space_id",
        "stream",
        "present",
        "reason",
        "start_seconds",
        "stop_seconds",
        "embedding",
    ]
    assert arrow.schema.field("embedding").type.list_size == 3
    assert arrow.column("embedding").null_count == 2
    assert arrow.column("stop_seconds").to_pylist() == [0.25, None, 2.25, 3.25, None]
    about = json.loads(arrow.schema.metadata[b"tristream"])
    assert about["schema_version"] == 1
    assert about["lineage"] == {"seed": 3, "encoder": "añb"}


def test_the_same_table_is_the_same_file_and_another_table_another(tmp_path: Path) -> None:
    assert write(table(), tmp_path) == write(table(), tmp_path)
    write(table(first=50), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_parts_of_a_folder_are_one_table_and_equal_repeats_count_once(tmp_path: Path) -> None:
    whole = table(9)
    write(whole.take(range(5)), tmp_path)
    write(whole.take(range(3, 9)), tmp_path)
    together = read(tmp_path)
    order = np.argsort(together.video_id)
    assert same(together.take(order), whole)


def test_replace_leaves_the_new_part_alone(tmp_path: Path) -> None:
    write(table(), tmp_path)
    write(table(space_id="space1"), tmp_path, replace=True)
    assert read(tmp_path).space_id == "space1"
    write(table(space_id="space1"), tmp_path, replace=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_with_two_rows_of_a_video_is_refused_with_its_name(tmp_path: Path) -> None:
    names = table().video_id
    write(table(video_id=[*names[:4], names[3]]), tmp_path)
    with pytest.raises(
        EmbeddingsError, match=r"holds klasse/v_003.mp4 \(from 0 s\) twice with different contents"
    ):
        read(tmp_path)


def test_windows_of_one_video_are_different_rows(tmp_path: Path) -> None:
    windows = table(video_id=["v"] * 5, start_seconds=np.arange(5.0))
    write(windows, tmp_path)
    assert same(read(tmp_path), windows)


def test_two_spaces_in_one_folder_are_refused_with_both_names(tmp_path: Path) -> None:
    write(table(space_id="aaaa"), tmp_path)
    write(table(space_id="bbbb", first=50), tmp_path)
    with pytest.raises(
        EmbeddingsError,
        match=r"mixes space (aaaa|bbbb) of 'audio' .* and space (aaaa|bbbb) of 'audio'",
    ):
        read(tmp_path)


def test_two_spaces_in_one_file_are_refused(tmp_path: Path) -> None:
    arrow = table().to_arrow()
    spaces = pa.array(["aaaa"] * 4 + ["bbbb"])
    pq.write_table(arrow.set_column(2, "space_id", spaces), tmp_path / "x.parquet")
    with pytest.raises(EmbeddingsError, match=r"mixes space aaaa of 'audio' and space bbbb"):
        read(tmp_path / "x.parquet")


def test_two_widths_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(table(width=3), tmp_path)
    write(table(width=4, first=50), tmp_path)
    with pytest.raises(
        EmbeddingsError, match=r"holds (3|4)-D embeddings, part-\w+.parquet (3|4)-D"
    ):
        read(tmp_path)


def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    path = write(table(), tmp_path)
    data = bytearray(path.read_bytes())
    for position in range(0, len(data), 97):
        broken = bytes(data[:position]) + bytes([data[position] ^ 4]) + bytes(data[position + 1 :])
        path.write_bytes(broken)
        with pytest.raises(
            EmbeddingsError, match=rf"{path.name} is corrupt: its content is [0-9a-f]{{16}}…"
        ):
            read(path)


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" + b"\0" * 400 + b"PAR1", b"video_id,embedding\n"]
)
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "part-x.parquet").write_bytes(content)
    with pytest.raises(EmbeddingsError, match=r"part-x.parquet is not a readable Parquet file"):
        read(tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingsError, match=r"none.parquet does not exist; run `embed`"):
        read(tmp_path / "none.parquet")
    with pytest.raises(EmbeddingsError, match=rf"{tmp_path.name} holds no part-\*.parquet"):
        read(tmp_path)


def test_a_table_of_another_program_needs_only_the_columns(tmp_path: Path) -> None:
    pq.write_table(table().to_arrow().replace_schema_metadata(None), tmp_path / "theirs.parquet")
    assert same(read(tmp_path / "theirs.parquet"), table(lineage={}))


def test_an_embedding_that_is_marked_absent_is_not_used(tmp_path: Path) -> None:
    arrow = table().to_arrow()
    pq.write_table(arrow.set_column(4, "present", pa.array([False] * 5)), tmp_path / "x.parquet")
    assert np.isnan(read(tmp_path / "x.parquet").embedding).all()


def test_wrong_columns_are_named(tmp_path: Path) -> None:
    arrow, path = table().to_arrow(), tmp_path / "x.parquet"
    pq.write_table(arrow.drop_columns(["reason"]), path)
    with pytest.raises(EmbeddingsError, match=r"x.parquet has no column 'reason'"):
        read(path)
    pq.write_table(arrow.set_column(8, "embedding", pa.array([[1.0]] * 5)), path)
    with pytest.raises(
        EmbeddingsError, match=r"'embedding' is list<.*double>; it must be fixed_size_list<float32>"
    ):
        read(path)
    pq.write_table(arrow.set_column(4, "present", pa.array([True] * 5)), path)
    with pytest.raises(
        EmbeddingsError, match=r"klasse/v_001.mp4 is marked present but its embedding is null"
    ):
        read(path)


def test_another_schema_version_and_broken_lineage_are_named(tmp_path: Path) -> None:
    arrow, path = table().to_arrow(), tmp_path / "x.parquet"
    pq.write_table(arrow.replace_schema_metadata({"tristream": '{"schema_version": 7}'}), path)
    with pytest.raises(
        EmbeddingsError, match=r"x.parquet has schema version 7; this program reads 1"
    ):
        read(path)
    pq.write_table(arrow.replace_schema_metadata({"tristream": "{"}), path)
    with pytest.raises(EmbeddingsError, match=r"x.parquet: its lineage is not JSON"):
        read(path)


def test_a_table_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(
        EmbeddingsError, match=r"embeddings of 'audio': 5 video_ids and 4 values of reason"
    ):
        table(reason=[""] * 4)
    with pytest.raises(
        EmbeddingsError,
        match=r"v_001.mp4: its 'audio' embedding is marked present but is not finite",
    ):
        table(present=np.ones(5, dtype=bool))
    with pytest.raises(
        EmbeddingsError, match=r"v_001.mp4: its 'audio' embedding is marked absent but is not NaN"
    ):
        table(embedding=np.zeros((5, 3), dtype=np.float32))


def test_parts_of_different_lineage_keep_both(tmp_path: Path) -> None:
    write(table(lineage={"torch": "2.14"}), tmp_path)
    write(table(first=50, lineage={"torch": "2.15"}), tmp_path)
    versions = {part["torch"] for part in read(tmp_path).lineage["parts"]}
    assert versions == {"2.14", "2.15"}


def test_a_stream_that_no_video_has_is_a_table_too(tmp_path: Path) -> None:
    silent = table(
        present=np.zeros(5, dtype=bool), embedding=np.full((5, 8), np.nan, dtype=np.float32)
    )
    write(silent, tmp_path)
    assert same(read(tmp_path), silent)
    empty = table(0)
    write(empty, tmp_path, replace=True)
    assert len(read(tmp_path)) == 0
    assert read(tmp_path).space_id == "space0"
