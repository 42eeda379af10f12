from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tristream.bench.motion import N_FOLDS, Clip, hits, mirrored, split_of, table, wanted
from tristream.streams.segments import Footage
from tristream.streams.training import Example

CLIPS = [
    Clip(Path(f"{group}-{label}.avi"), label, "test" if group in ("s08", "s09") else "train", group)
    for group in (f"s{n:02d}" for n in range(10))
    for label in ("hug", "kick", "point")
]


def test_every_clip_is_once_the_test_of_a_fold_and_no_group_is_on_two_sides() -> None:
    tested: list[int] = []
    for split in ("given", *map(str, range(N_FOLDS))):
        parts = split_of(CLIPS, split)
        groups = [{CLIPS[i].group for i in parts[side]} for side in ("train", "val", "test")]
        assert all(groups)
        assert len(set.union(*groups)) == sum(map(len, groups)) == 10
        tested += parts["test"] if split != "given" else []
    assert sorted(tested) == list(range(len(CLIPS)))
    assert {CLIPS[i].group for i in split_of(CLIPS, "given")["test"]} == {"s08", "s09"}


def test_a_mirror_turns_fields_around_and_negates_x_alone() -> None:
    flow = np.random.default_rng(0).normal(size=(5, 2, 4, 6)).astype(np.float32)
    zeros = np.zeros(5)
    example = Example("a", Footage(flow, zeros, zeros, np.arange(5)), 0)
    once = mirrored(example).footage
    assert once is not None
    np.testing.assert_array_equal(once.array[:, 0], -flow[:, 0, :, ::-1])
    np.testing.assert_array_equal(once.array[:, 1], flow[:, 1, :, ::-1])
    again = mirrored(mirrored(example)).footage
    assert again is not None
    np.testing.assert_array_equal(again.array, flow)


def test_the_table_averages_seeds_and_pools_folds() -> None:
    def line(split: str, seed: int, test: list[int], right: list[int]) -> dict[str, object]:
        kinds = dict.fromkeys(("softmax", "svm", "stacks", "mirrored"), right)
        return {
            "row": "default",
            "split": split,
            "seed": seed,
            "test": test,
            "cpu_seconds": 1.0,
            **kinds,
        }

    lines = [
        line("given", 0, [24, 25, 26, 27], [1, 1, 1, 1]),
        line("given", 1, [24, 25, 26, 27], [1, 1, 0, 0]),
        *(
            line(str(fold), 0, [3 * fold, 3 * fold + 15], [1, int(fold < 2)])
            for fold in range(N_FOLDS)
        ),
    ]
    rows = table(lines, CLIPS).rows
    assert [row[:4] for row in rows] == [
        ("default", "given", 2, "75.0"),
        ("default", "folds", 5, "70.0"),
    ]
    agreed, gain = slice(-4, -2), slice(-2, None)
    assert rows[0][agreed] == ("–", "–")  # two seeds do not vote
    assert rows[0][gain] == ("–", "–")  # nothing is better than itself
    lines.append(line("given", 2, [24, 25, 26, 27], [0, 0, 1, 1]))
    assert (
        table(lines, CLIPS).rows[0][agreed][0] == "100.0"
    )  # each clip is named rightly by two of three
    other = {
        **line("0", 0, [0, 15], [0, 1]),
        "row": "L 5",
    }  # of the same clips "default" names both
    assert table([*lines, other], CLIPS).rows[-1][gain][0] == "-50.0"
    low, high = (float(end) for end in str(rows[0][6]).split("–"))
    assert 50 <= low <= 75 <= high <= 100


def test_hits_and_the_order_of_work() -> None:
    assert hits(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1])) == [1, 0]
    order = list(wanted(["a", "b"], ["given", "0"], range(2)))
    assert order[:3] == [("a", "given", 0), ("a", "0", 0), ("a", "given", 1)]
    with pytest.raises(ValueError, match="invalid literal"):
        split_of(CLIPS, "other")
