"""One odd group moves no other; equal files and classes without test or val are named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tristream.dataset.listing import index_folder
from tristream.dataset.manifest import ListedVideo, complete
from tristream.dataset.splits import held_out_groups


def listed(name: str, label: str, group: str, split: str = "") -> ListedVideo:
    return ListedVideo(
        video_id=name, path=Path("/data") / name, label=label, group=group, split=split, where=name
    )


def five_classes(root: Path) -> None:
    for n in range(20):
        path = root / "abcde"[n // 4] / f"v{n % 4}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(n))


def test_one_copied_file_leaves_every_class_its_test_and_val_video(tmp_path):
    five_classes(tmp_path)
    (tmp_path / "b/copy_of_a.wav").write_text((tmp_path / "a/v0.wav").read_text())
    manifest = complete(index_folder(tmp_path))
    for label in "abcde":
        assert {row.split for row in manifest.rows if row.label == label} == {
            "train",
            "val",
            "test",
        }
    (warning,) = manifest.warnings
    assert warning == (
        "a/v0.wav ('a') and b/copy_of_a.wav ('b') have the same bytes under two labels; keep one of"
        " them"
    )


def test_classes_without_the_copied_file_are_split_as_before(tmp_path):
    five_classes(tmp_path)
    before = {row.video_id: row.split for row in complete(index_folder(tmp_path)).rows}
    (tmp_path / "b/copy_of_a.wav").write_text((tmp_path / "a/v0.wav").read_text())
    after = {row.video_id: row.split for row in complete(index_folder(tmp_path)).rows}
    assert after["a/v0.wav"] == after["b/copy_of_a.wav"]
    for name, split in before.items():
        if name[0] in "cde":
            assert after[name] == split


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(0, 5),
    st.integers(0, 99),
    st.booleans(),
)
def test_a_group_that_spans_classes_changes_no_other_place(sizes, n_spanning, seed, pure_is_odd):
    pure = [
        listed(f"{label}{g}", f"class {label}", f"{label}{g}")
        for label, n in enumerate(sizes)
        for g in range(n)
    ]
    spanning = [
        listed(f"s{g}{label}", f"class {label}", f"s{g}")
        for g in range(n_spanning)
        for label in range(2)
    ]
    base, odd = (spanning, pure) if pure_is_odd else (pure, spanning)
    alone = {row.video_id: row.split for row in complete(base, seed=seed).rows}
    together = complete([*base, *odd], seed=seed).rows
    assert alone.items() <= {row.video_id: row.split for row in together}.items()
    homes: dict[str, str] = {}
    assert all(homes.setdefault(row.group, row.split) == row.split for row in together)


def test_spanning_groups_alone_go_out_until_a_fifth_of_their_videos_is_out():
    rows = [listed(f"{g}{label}", label, f"g{g}") for g in range(10) for label in "ab"]
    pure = [listed(f"p{i}", "a", f"p{i}") for i in range(10)]
    out = held_out_groups([*rows, *pure], seed=0)
    assert len([group for group in out if group.startswith("g")]) == 2
    assert len([group for group in out if group.startswith("p")]) == 2


def test_groups_in_two_spellings_are_named_only_where_they_are_split():
    rows = [
        listed("a", "x", "Anna", "train"),
        listed("b", "x", "anna", "test"),
        listed("c", "x", "Bob", "val"),
        listed("d", "x", "bob", "val"),
    ]
    (warning,) = complete(rows).warnings
    assert "lie in different splits: 'Anna', 'anna'; give" in warning


def test_a_video_without_a_fold_does_not_keep_val_from_the_others():
    rows = [
        ListedVideo(
            video_id=f"{i}",
            path=Path(f"/data/{i}"),
            label="a",
            group=f"g{i}",
            fold=str(i % 4),
            where="",
        )
        for i in range(20)
    ]
    odd = ListedVideo(video_id="odd", path=Path("/data/odd"), label="a", group="odd", where="")
    manifest = complete([*rows, odd], test_fold=0)
    counts = Counter(row.split for row in manifest.rows)
    assert (counts["test"], counts["val"], counts["train"]) == (5, 3, 13)


def test_every_class_of_two_groups_without_test_or_val_is_named():
    rows = [
        *(listed(f"a{i}", "a", f"a{i}", split) for i, split in enumerate(("train", "val", "test"))),
        *(listed(f"b{i}", "b", f"b{i}", split) for i, split in enumerate(("train", "train"))),
        *(listed(f"c{i}", "c", f"c{i}", split) for i, split in enumerate(("val", "train"))),
        listed("d0", "d", "d0", "train"),
        listed("d1", "d", "d0", "train"),
    ]
    assert complete(rows).warnings == (
        "no test video in these classes of two groups or more: 'b' (2), 'c' (2)",
        "no val video in these classes of two groups or more: 'b' (2)",
    )


def test_equal_files_in_two_splits_are_named_where_a_list_gives_them_two_groups(tmp_path):
    rows = []
    for i, (split, content) in enumerate([("train", "x"), ("test", "x"), ("val", "y")]):
        path = tmp_path / f"{i}.mp4"
        path.write_text(content)
        rows.append(
            ListedVideo(video_id=path.name, path=path, label="a", split=split, group=f"g{i}")
        )
    (warning,) = complete(rows).warnings
    assert warning.startswith(
        "0.mp4 ('train') and 1.mp4 ('test') have the same bytes in two splits"
    )
