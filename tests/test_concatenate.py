from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.concatenate import check_spaces, fuse_tables
from tristream.store.embeddings import EmbeddingTable


def table(
    stream: str, videos: list[str], width: int, *, absent: tuple[str, ...] = (), starts=None
) -> EmbeddingTable:
    """Embedding of video v in column d: the number in v's name + d / 10."""
    present = np.array([video not in absent for video in videos], dtype=bool)
    value = np.array(
        [int("".join(c for c in video if c.isdigit())) for video in videos], dtype=float
    )
    starts = np.zeros(len(videos)) if starts is None else np.asarray(starts, dtype=float)
    embedding = (value[:, None] + starts[:, None] * 100 + np.arange(width) / 10).astype(np.float32)
    embedding[~present] = np.nan
    n = len(videos)
    return EmbeddingTable(
        stream,
        f"{stream}-space",
        videos,
        [""] * n,
        present,
        [""] * n,
        starts,
        starts + 1,
        embedding,
    )


def test_rows_follow_the_first_table_and_blocks_the_mapping() -> None:
    X, masks, columns = fuse_tables(
        {
            "two": table("two", ["v3", "v1", "v2"], 2),
            "one": table("one", ["v1", "v2", "v3"], 3, absent=("v2",)),
        }
    )
    assert columns == {"two": slice(0, 2), "one": slice(2, 5)}
    assert list(columns) == ["two", "one"]
    assert X[:, 0].tolist() == [3, 1, 2]
    np.testing.assert_allclose(X[1, 2:], [1, 1.1, 1.2], rtol=1e-6)
    assert masks.tolist() == [[True, True], [True, True], [True, False]]
    assert np.isnan(X[2, 2:]).all()
    assert not np.isnan(X[:2]).any()
    assert X.dtype == np.float64


def test_windows_are_told_apart_by_their_start() -> None:
    X, _, _ = fuse_tables(
        {
            "one": table("one", ["v1", "v1", "v2"], 1, starts=[0, 1, 0]),
            "two": table("two", ["v2", "v1", "v1"], 1, starts=[0, 1, 0]),
        }
    )
    assert X.tolist() == [[1, 1], [101, 101], [2, 2]]


def test_a_whole_video_is_the_same_video_wherever_its_streams_start() -> None:
    X, _, _ = fuse_tables(
        {"one": table("one", ["v1"], 1), "two": table("two", ["v1"], 1, starts=[0.5])}
    )
    assert X.tolist() == [[1, 51]]


def test_tables_over_different_videos_are_refused_with_count_and_first() -> None:
    videos = [f"v_{i:03d}" for i in range(120)]
    short = [video for video in videos if video not in ("v_014", "v_050", "v_077")]
    with pytest.raises(ValueError) as refused:
        fuse_tables({"spatial": table("spatial", short, 2), "audio": table("audio", videos, 2)})
    assert str(refused.value) == (
        "embeddings disagree on videos: 3 of 120 only in 'audio' (first: v_014); "
        "embed every stream on the same videos.csv"
    )
    three = {"a": table("a", videos, 1), "b": table("b", short, 1), "c": table("c", videos, 1)}
    with pytest.raises(
        ValueError, match=r"videos: 3 of 120 missing from 'b' \(first: v_014\); embed"
    ):
        fuse_tables(three)


def test_other_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="there is no embedding table to fuse"):
        fuse_tables({})
    with pytest.raises(ValueError, match=r"table of 'one' holds v1 from 5 s twice"):
        fuse_tables({"one": table("one", ["v1", "v1"], 1, starts=[5, 5])})


def test_embeddings_of_another_space_are_refused_with_both_names() -> None:
    tables = {"one": table("one", ["v1"], 1)}
    check_spaces(tables, {"one": "one-space"})
    with pytest.raises(
        ValueError,
        match=r"'one' are of space one-space, `fuse` has seen old; run `embed`, then `fuse`",
    ):
        check_spaces(tables, {"one": "old"})
    with pytest.raises(
        ValueError,
        match=r"no embeddings of 'two', which `fuse` has used; run `embed --streams two`",
    ):
        check_spaces(tables, {"two": "x"})
