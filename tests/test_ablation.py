from __future__ import annotations

import time

import numpy as np
import pytest

from tristream.fusion.action.ablation import SVMOptions, ablate
from tristream.fusion.action.rows import FusedRows
from tristream.fusion.action.svm import fit_svm

WIDTH = 24
COLUMNS = {
    "one": slice(0, WIDTH),
    "two": slice(WIDTH, 2 * WIDTH),
    "noise": slice(2 * WIDTH, 3 * WIDTH),
}


def complementary(n: int = 480, *, seed: int = 1) -> dict:
    """Eight classes: stream one tells which pair of classes (4), stream two which of the two; the third is noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 8
    blocks = [
        rng.normal(size=(4, WIDTH))[y // 2],
        rng.normal(size=(2, WIDTH))[y % 2],
        np.zeros((n, WIDTH)),
    ]
    splits = np.where(np.arange(n) // 8 % 3 == 0, "test", "train")
    return {
        "X": np.hstack(blocks) + 0.5 * rng.normal(size=(n, 3 * WIDTH)),
        "masks": np.ones((n, 3), dtype=bool),
        "columns": COLUMNS,
        "labels": np.array([f"class{k}" for k in y]),
        "splits": splits,
        "groups": np.array([f"g{i // 2}" for i in range(n)]),
    }


def run(data: dict, **options):
    return ablate(FusedRows(**data), SVMOptions(**options))


def test_streams_reach_what_each_can_tell_and_only_together_all_of_it() -> None:
    found = {result.streams: result for result in run(complementary()).subsets}
    assert len(found) == 7
    assert found["one",].test_top1.value == pytest.approx(1 / 2, abs=0.1)
    assert found["two",].test_top1.value == pytest.approx(1 / 4, abs=0.08)
    assert found["noise",].test_top1.value == pytest.approx(1 / 8, abs=0.08)
    assert found["one", "two"].test_top1.value >= 0.97
    assert list(found)[-1] == ("one", "two", "noise")
    for result in found.values():
        assert result.test_top1.low <= result.test_top1.value <= result.test_top1.high
        assert result.test_top5 is not None
        assert result.test_top5.value >= result.test_top1.value
        assert result.train_top1 >= result.test_top1.value - 0.1
        assert result.mean_class == pytest.approx(
            result.test_top1.value
        )  # classes are balanced here


def test_gains_name_what_each_stream_brings() -> None:
    ablation = run(complementary())
    gains = {gain.stream: gain for gain in ablation.gains}
    assert gains["one"].retrained.low > 0.5
    assert gains["two"].retrained.low > 0.3
    assert gains["two"].withheld.low > 0.3
    assert abs(gains["noise"].retrained.value) < 0.05


def test_a_stream_that_makes_it_worse_is_named_in_words() -> None:
    data = complementary()
    rng = np.random.default_rng(1)
    # a stream that tells the training videos' classes and lies about the test videos'
    lie = np.where(data["splits"] == "train", 0, 1)[:, None]
    data["X"][:, COLUMNS["noise"]] = (
        rng.normal(size=(8, WIDTH))[(np.arange(480) % 8 + lie[:, 0]) % 8] * 3
    )
    words = [sentence for sentence in run(data).words if "makes it worse" in sentence]
    assert len(words) == 1
    assert "the stream 'noise' makes it worse: an SVM without it names" in words[0]
    assert "includes 0" not in words[0]


def test_all_streams_equal_a_plain_fit() -> None:
    data = complementary()
    ablation = run(data)
    train = data["splits"] == "train"
    svm = fit_svm(data["X"][train], data["labels"][train], columns=COLUMNS)
    assert np.array_equal(ablation.svm.coef_, svm.coef_)
    assert np.array_equal(ablation.scores, svm.decision_function(data["X"][~train]))
    assert np.array_equal(ablation.test_rows, np.flatnonzero(~train))


def test_a_single_stream_equals_a_fit_on_its_columns_alone() -> None:
    data = complementary()
    train = data["splits"] == "train"
    alone = fit_svm(data["X"][train, :WIDTH], data["labels"][train])
    hits = alone.predict(data["X"][~train, :WIDTH]) == data["labels"][~train]
    assert run(data).subsets[0].test_top1.value == hits.mean()


def test_missing_streams_are_reported_with_and_without_them() -> None:
    data = complementary()
    absent = np.random.default_rng(0).random(480) < 0.5
    data["masks"][absent, 1] = False
    data["X"][absent, COLUMNS["two"]] = np.nan
    ablation = run(data)
    assert ablation.complete is not None
    assert ablation.complete.value > ablation.subsets[-1].test_top1.value + 0.05
    assert ablation.complete.n == int((~absent & (data["splits"] == "test")).sum())
    assert {result.streams: result.n_train for result in ablation.subsets}["two",] == int(
        (~absent & (data["splits"] == "train")).sum()
    )
    assert "does not tell its class" in ablation.presence.words


def test_a_stream_that_training_lacks_is_left_out_in_words() -> None:
    data = complementary()
    data["masks"][:, 2] = False
    data["X"][:, COLUMNS["noise"]] = np.nan
    ablation = run(data)
    assert [result.streams for result in ablation.subsets] == [("one",), ("two",), ("one", "two")]
    assert ablation.words[0] == "no training video has the stream 'noise'; it is left out"
    assert ablation.svm.predict(data["X"]).shape == (480,)


def test_a_stream_that_only_one_class_has_is_left_out_alone_but_used_with_others() -> None:
    data = complementary()
    data["masks"][:, 2] = data["labels"] == "class3"
    ablation = run(data)
    assert ("noise",) not in [result.streams for result in ablation.subsets]
    assert any(
        "training videos with 'noise' hold one class only" in sentence
        for sentence in ablation.words
    )
    assert ablation.subsets[-1].streams == ("one", "two", "noise")


def test_videos_without_a_label_or_outside_train_and_test_do_not_count() -> None:
    data = complementary()
    plain = run(data)
    rows = np.r_[np.arange(480), np.arange(40)]
    more = {key: (value if key == "columns" else value[rows].copy()) for key, value in data.items()}
    more["labels"][480:500] = ""
    more["splits"][500:] = "val"
    again = run(more)
    assert again.subsets == plain.subsets


def test_differences_are_those_of_every_two_subsets_that_one_stream_parts() -> None:
    data = complementary()
    ablation = run(data)
    test = data["splits"] == "test"
    found = {(d.more, d.less): d.gain for d in ablation.differences}
    assert len(found) == 9
    for (more, less), gain in found.items():
        assert len(more) == len(less) + 1
        hits = [
            np.mean(ablation.named[streams] == data["labels"][test]) for streams in (more, less)
        ]
        assert gain.value == pytest.approx(hits[0] - hits[1])
    assert found[("one", "two"), ("one",)].low > 0.2


def test_each_subset_may_choose_its_own_l2_by_cross_validation_over_groups() -> None:
    from tristream.fusion.action.svm import choose_l2

    data = complementary(160)
    data["columns"] = {name: COLUMNS[name] for name in ("one", "two")}
    data |= {"X": data["X"][:, : 2 * WIDTH], "masks": data["masks"][:, :2]}
    found = {result.streams: result for result in run(data, select="grouped_cv").subsets}
    train = data["splits"] == "train"
    groups = data["groups"][train]
    best, _ = choose_l2(data["X"][train, :WIDTH], data["labels"][train], groups)
    assert found["one",].l2 == best
    with pytest.raises(
        ValueError, match="unknown way to select l2 'luck'; available: fixed, grouped_cv"
    ):
        run(data, select="luck")
    with pytest.raises(ValueError, match="reading mean_hinge; reading is keras"):
        run(data, select="grouped_cv", reading="keras")


def test_one_training_class_or_no_test_video_is_refused() -> None:
    data = complementary()
    with pytest.raises(ValueError, match="training videos hold only 'same'"):
        run({**data, "labels": np.full(480, "same")})
    with pytest.raises(ValueError, match="320 labelled training and 0 test videos"):
        run({**data, "splits": np.where(data["splits"] == "test", "val", "train")})


def test_five_streams_are_not_taken_in_every_combination() -> None:
    data = complementary(240)
    width = 3 * WIDTH // 5
    columns = {f"s{i}": slice(i * width, (i + 1) * width) for i in range(5)}
    data |= {
        "X": data["X"][:, : 5 * width],
        "columns": columns,
        "masks": np.ones((240, 5), dtype=bool),
    }
    sizes = [len(result.streams) for result in run(data).subsets]
    assert [sizes.count(size) for size in range(1, 6)] == [5, 10, 0, 5, 1]


def test_seven_subsets_of_608_videos_take_under_ten_seconds() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(608) % 16
    X = rng.normal(size=(16, 384))[y] + 2 * rng.normal(size=(608, 384))
    start = time.perf_counter()
    rows = FusedRows(
        X,
        masks=np.ones((608, 3), dtype=bool),
        columns={"one": slice(0, 128), "two": slice(128, 256), "three": slice(256, 384)},
        labels=np.array([f"c{k:02d}" for k in y]),
        splits=np.where(np.arange(608) < 448, "train", "test"),
        groups=np.arange(608),
    )
    ablate(rows)
    assert time.perf_counter() - start < 10
