from __future__ import annotations

import numpy as np
import pytest

from tristream.fusion.action.leaks import check_splits, presence_gauge


def splits_of(n: int) -> np.ndarray:
    return np.array(["train", "train", "test"])[np.arange(n) % 3]


def test_sound_that_only_one_class_has_is_a_leak_and_is_said() -> None:
    labels = np.array(["fight", "walk"])[np.arange(120) // 60]
    masks = np.column_stack([np.ones(120, bool), labels == "fight"])
    gauge = presence_gauge(masks, labels=labels, splits=splits_of(120), groups=np.arange(120))
    assert gauge.accuracy.value == 1
    assert gauge.majority == 0.5
    assert gauge.gain.low > 0
    assert gauge.words.startswith(
        "which streams a video has already tells its class: 100.0 % against 50.0 %"
    )


def test_sound_that_is_missing_at_random_is_none() -> None:
    labels = np.array(["fight", "walk"])[np.arange(600) // 300]
    masks = np.random.default_rng(0).random((600, 2)) < 0.5
    gauge = presence_gauge(masks, labels=labels, splits=splits_of(600), groups=np.arange(600))
    assert gauge.accuracy.value == pytest.approx(0.5, abs=0.1)
    assert gauge.gain.low < 0 < gauge.gain.high
    assert "already tells" not in gauge.words
    assert gauge.train_gain.low < 0


def test_a_test_split_where_every_video_has_every_stream_measures_no_leak() -> None:
    """37 of 49 silent training videos are of one class; every test video has audio."""
    labels = np.array(["fight", "walk"])[np.arange(200) % 2]
    splits = np.where(np.arange(200) < 150, "train", "test")
    masks = np.ones((200, 2), bool)
    silent = np.flatnonzero((labels == "fight") & (splits == "train"))[:37]
    also = np.flatnonzero((labels == "walk") & (splits == "train"))[:12]
    masks[np.r_[silent, also], 1] = False
    gauge = presence_gauge(masks, labels=labels, splits=splits, groups=np.arange(200))
    assert "cannot be measured on this test split" in gauge.words
    assert "in training videos it tells its class" in gauge.words
    assert gauge.train_gain.low > 0


def test_a_pattern_that_training_never_saw_falls_back_on_the_commonest_class() -> None:
    gauge = presence_gauge(
        np.array([[True], [True], [False]]),
        labels=["b", "b", "b"],
        splits=["train", "train", "test"],
        groups=[1, 2, 3],
    )
    assert gauge.accuracy.value == 1


def test_the_gauge_never_looks_at_test_labels() -> None:
    labels, splits = (
        np.array(["a", "b", "b", "a", "a"]),
        np.array(["train", "train", "train", "test", "test"]),
    )
    masks = np.array([[False], [True], [True], [True], [True]])
    assert presence_gauge(masks, labels=labels, splits=splits, groups=range(5)).accuracy.value == 0


def test_videos_are_needed_on_both_sides() -> None:
    with pytest.raises(ValueError, match="there are 0 labelled training and 1 test videos"):
        presence_gauge(
            np.ones((2, 1), bool), labels=["", "a"], splits=["train", "test"], groups=[1, 2]
        )


def rows(n: int = 6, **changes) -> dict:
    values = {
        "video_ids": [f"v{i}" for i in range(n)],
        "splits": ["train", "val", "test"] * (n // 3),
        "labels": ["a"] * n,
        "groups": [f"g{i}" for i in range(n)],
        "content_ids": [f"c{i}" for i in range(n)],
    }
    return values | changes


def test_clean_splits_have_nothing_to_say() -> None:
    embeddings = np.random.default_rng(0).normal(size=(6, 40))
    assert check_splits(**rows(), embeddings=embeddings) == []


def test_shared_groups_and_identical_content_are_named_with_both_videos() -> None:
    shared = check_splits(**rows(groups=["g", "x", "g", "y", "z", "w"]))
    assert [(leak.kind, leak.n) for leak in shared] == [("shared_group", 1)]
    assert "v0 in train, v2 in test" in shared[0].words
    same = check_splits(**rows(content_ids=["c", "d", "e", "f", "c", "d"]))
    assert [(leak.kind, leak.n) for leak in same] == [("identical_content", 2)]
    assert "v0 in train, v4 in val" in same[0].words
    within = rows(groups=["g", "x", "y", "g", "x", "y"])
    assert check_splits(**within) == []


def test_a_near_copy_in_another_split_is_found_and_one_in_the_same_split_is_not() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(
        loc=100, size=(30, 20)
    )  # without standardisation every cosine would be .99
    embeddings[4] = embeddings[0] + 0.01 * rng.normal(size=20)  # train, val
    embeddings[6] = embeddings[9]  # both train
    embeddings[2] = np.nan
    leaks = check_splits(**rows(30), embeddings=embeddings)
    assert [(leak.kind, leak.n) for leak in leaks] == [("near_duplicate", 1)]
    assert "v0 in train, v4 in val" in leaks[0].words or "v4 in val, v0 in train" in leaks[0].words


def test_videos_of_one_class_are_not_copies_however_close_training_has_brought_them() -> None:
    rng = np.random.default_rng(0)
    labels = ["a", "b", "c"] * 20
    splits = ["train", "train", "val", "test"] * 15
    classes = dict(zip("abc", rng.normal(size=(3, 40)), strict=True))
    embeddings = np.array([classes[label] for label in labels]) + 0.01 * rng.normal(size=(60, 40))
    assert check_splits(**rows(60, labels=labels, splits=splits), embeddings=embeddings) == []
    embeddings[3] = embeddings[0] + 1e-5  # test, train
    [leak] = check_splits(**rows(60, labels=labels, splits=splits), embeddings=embeddings)
    assert (leak.kind, leak.n) == ("near_duplicate", 1)
    assert "v0 in train, v3 in test" in leak.words


def test_a_pair_with_one_stream_in_common_must_be_closer_still() -> None:
    rng = np.random.default_rng(0)
    columns = {"one": slice(0, 20), "two": slice(20, 40)}
    embeddings = rng.normal(size=(30, 40))
    embeddings[1] = embeddings[0] + 0.1 * rng.normal(size=40)  # train, val: cosine about .995
    found = check_splits(**rows(30), embeddings=embeddings, columns=columns)
    assert [leak.n for leak in found] == [1]
    embeddings[1, columns["two"]] = np.nan
    assert check_splits(**rows(30), embeddings=embeddings, columns=columns) == []
    embeddings[1, columns["one"]] = embeddings[0, columns["one"]] + 1e-3
    assert [
        leak.n for leak in check_splits(**rows(30), embeddings=embeddings, columns=columns)
    ] == [1]
    embeddings[1] = np.nan
    assert check_splits(**rows(30), embeddings=embeddings, columns=columns) == []


def test_the_threshold_is_the_one_that_is_given() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(30, 40))
    embeddings[1] = embeddings[0] + 0.05 * rng.normal(size=40)  # cosine about .998
    assert check_splits(**rows(30), embeddings=embeddings, min_cosine=0.99) == []
    [leak] = check_splits(**rows(30), embeddings=embeddings, min_cosine=0.8)  # alone: .996
    assert (
        "similar to a cosine of 0.996 or more (closest: v0 in train, v1 in val, 0.9" in leak.words
    )


def test_one_stream_alone_makes_no_duplicates_of_unrelated_videos() -> None:
    """Embeddings of a trained stream lie near a few directions: many pairs are similar to .97."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 64))
    embeddings += 0.05 * rng.normal(size=embeddings.shape)
    copy = embeddings[:1] + 1e-3 * rng.normal(size=(1, 64))
    leaks = check_splits(**rows(300), embeddings=embeddings)
    assert sum(leak.n for leak in leaks) <= 2
    embeddings[1] = copy
    leaks = check_splits(**rows(300), embeddings=embeddings)
    assert any("v0 in train, v1 in val" in leak.words for leak in leaks)


def test_a_class_in_one_split_only_is_named() -> None:
    leaks = check_splits(**rows(labels=["a", "a", "b", "c", "a", "b"]))
    assert [leak.words for leak in leaks] == [
        "1 class(es) are in test but not in train: always missed: b",
        "2 class(es) are in train but not in test: never measured: a",
    ]


def test_unlabelled_videos_are_in_no_split() -> None:
    assert (
        check_splits(
            **rows(
                splits=["train", "unlabelled", "test"] * 2,
                groups=["g0", "g", "g2", "g3", "g", "g5"],
            )
        )
        == []
    )
