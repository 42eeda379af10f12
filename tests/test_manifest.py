"""Listed videos, their groups and hold-outs; every mistake is reported at once with its line."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
from collections import Counter, defaultdict
from concurrent.futures import Future
from pathlib import Path

import pytest

from tristream.dataset.manifest import (
    ListedVideo,
    Manifest,
    ManifestError,
    VideoRow,
    complete,
    content_id,
    index_csv,
    index_folder,
    index_hmdb51,
    index_ucf101,
    read_manifest,
    write_manifest,
)
from tristream.media.probe import Probe
from tristream.media.reasons import Rejected

DATA = Path(__file__).parents[2] / "shared" / "data"


def touch(path: Path, content: str | None = None) -> Path:
    """A file that holds its own name, or the given content: nothing here is decoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.as_posix() if content is None else content)
    return path


def lines(path: Path, *text: str, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((line + end).encode("utf-8", "surrogateescape") for line in text))
    return path


def listed(name: str, label: str = "a", **said) -> ListedVideo:
    return ListedVideo(video_id=name, path=Path("/data") / name, label=label, where=name, **said)


def splits(manifest: Manifest) -> dict[str, str]:
    return {row.video_id: row.split for row in manifest.rows}


# ---- folders


def test_a_folder_of_class_folders_gives_labels(tmp_path):
    for name in (
        "walk/1.mp4",
        "walk/deep/2.AVI",
        "run/1.mp4",
        "run/notes.txt",
        "run/.hidden.mp4",
        ".git/x.mp4",
    ):
        touch(tmp_path / name)
    rows = index_folder(tmp_path)
    assert [(row.video_id, row.label, row.split) for row in rows] == [
        ("run/1.mp4", "run", ""),
        ("walk/1.mp4", "walk", ""),
        ("walk/deep/2.AVI", "walk", ""),
    ]
    assert all(row.path == tmp_path / row.video_id for row in rows)


def test_folders_named_for_splits_are_taken_as_they_are(tmp_path):
    for name in ("train/walk/1.mp4", "val/walk/2.mp4", "test/walk/3.mp4", "unlabelled/any/4.mp4"):
        touch(tmp_path / name)
    rows = index_folder(tmp_path)
    assert [(row.split, row.label) for row in rows] == [
        ("test", "walk"),
        ("train", "walk"),
        ("unlabelled", ""),
        ("val", "walk"),
    ]
    assert splits(complete(rows))["train/walk/1.mp4"] == "train"


def test_a_class_called_test_is_a_class_where_there_is_no_train(tmp_path):
    touch(tmp_path / "test/1.mp4")
    touch(tmp_path / "walk/1.mp4")
    assert [row.label for row in index_folder(tmp_path)] == ["test", "walk"]


def test_a_flat_folder_is_one_unnamed_class(tmp_path):
    for i in range(10):
        touch(tmp_path / f"{i}.mp4")
    manifest = complete(index_folder(tmp_path))
    assert {row.label for row in manifest.rows} == {""}
    assert Counter(splits(manifest).values()) == {"train": 6, "test": 2, "val": 2}


def test_some_files_without_a_class_are_named(tmp_path):
    touch(tmp_path / "walk/1.mp4")
    touch(tmp_path / "stray.mp4")
    with pytest.raises(ManifestError, match=r"stray\.mp4: empty_label"):
        index_folder(tmp_path)


def test_linked_folders_are_followed_once(tmp_path):
    touch(tmp_path / "elsewhere/1.mp4")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/walk").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "root")
    assert [row.video_id for row in index_folder(tmp_path / "root")] == ["walk/1.mp4"]


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no_videos"):
        index_folder(tmp_path)
    with pytest.raises(ManifestError, match=r"nowhere: 1 problems\n.*no such folder"):
        index_folder(tmp_path / "nowhere")


# ---- CSV


def test_a_csv_says_everything_it_has_columns_for(tmp_path):
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "sub/b.mp4")
    header = "path,label,split,group,anomaly,fold"
    one, two = index_csv(
        lines(tmp_path / "x.csv", header, "a.mp4,walk,train,g1,0,3", "sub/b.mp4,run,test,g2,1,4")
    )
    assert (one.video_id, one.label, one.split, one.group) == ("a.mp4", "walk", "train", "g1")
    assert (one.anomaly, one.fold, two.anomaly) == (0, "3", 1)
    assert (two.video_id, two.path, two.where) == ("sub/b.mp4", tmp_path / "sub/b.mp4", "line 3")


def test_paths_are_relative_to_the_csv_and_ids_to_the_root(tmp_path):
    touch(tmp_path / "sub/b.mp4")
    source = lines(tmp_path / "sub/list.csv", "path,label", "b.mp4,walk")
    assert index_csv(source, tmp_path)[0].video_id == "sub/b.mp4"


def test_quoted_names_and_windows_line_ends_are_read(tmp_path):
    touch(tmp_path / 'a,"b.mp4')
    touch(tmp_path / "cam1:12:00.mp4")
    source = lines(
        tmp_path / "l.csv",
        "\ufeffpath,label",
        '"a,""b.mp4",walk',
        "",
        "cam1:12:00.mp4,walk",
        end="\r\n",
    )
    assert [row.video_id for row in index_csv(source)] == ['a,"b.mp4', "cam1:12:00.mp4"]


def test_every_mistake_is_reported_at_once_with_its_line(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4", "f.mp4", "g.mp4", "folder/x.mp4"):
        touch(tmp_path / name)
    source = lines(
        tmp_path / "bad.csv",
        "path,label,split,group,anomaly",
        "a.mp4,walk,train,g1,",  # 2: fine
        "../outside.mp4,walk,train,,",
        "/etc/hostname,walk,train,,",
        "http://127.0.0.1/x.mp4,walk,train,,",
        "concat:a.mp4|b.mp4,walk,train,,",
        "nowhere.mp4,walk,train,,",
        "a.mp4,run,train,g1,",
        "b.mp4,,train,,",
        "c.mp4,walk,dev,,",
        "d.mp4,walk,train,,maybe",
        "e.mp4,walk,test,g1,",
        "f.mp4,walk,,,",
        "g.mp4,run,train,,,extra",
        "short",
        "\udcff\udcfe,walk,train,,",
        ",walk,train,,",
        "folder,walk,train,,",
        "a\0.mp4,walk,train,,",
    )
    with pytest.raises(ManifestError) as caught:
        index_csv(source)
    found = [problem.split(": ")[:2] for problem in caught.value.problems]
    assert found == [
        ["line 3", "outside_root"],
        ["line 4", "outside_root"],
        ["line 5", "not_a_local_path"],
        ["line 6", "not_a_local_path"],
        ["line 7", "not_found"],
        ["line 8", "contradicts line 2"],
        ["line 9", "empty_label"],
        ["line 10", "unknown_split"],
        ["line 11", "unknown_anomaly"],
        ["line 12", "group_in_two_splits"],
        ["line 13", "empty_split"],
        ["line 14", "wrong_field_count"],
        ["line 15", "wrong_field_count"],
        ["line 16", "not_utf8"],
        ["line 17", "empty_path"],
        ["line 18", "not_a_file"],
        ["line 19", "not_found"],
    ]
    assert "'dev'; must be one of train, val, test, unlabelled" in str(caught.value)
    assert "'g1' is in test here and in train at line 2" in str(caught.value)


def test_classes_of_one_video_are_said_beside_mistakes_and_stop_nothing_alone(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        touch(tmp_path / name)
    good = lines(tmp_path / "good.csv", "path,label", "a.mp4,walk", "b.mp4,walk", "c.mp4,rare")
    assert complete(index_csv(good)).warnings == (
        "class 'rare' has one video",
        "no val video in these classes of two groups or more: 'walk' (2)",
    )
    bad = lines(
        tmp_path / "bad.csv", "path,label", "a.mp4,walk", "b.mp4,walk", "c.mp4,rare", "no.mp4,walk"
    )
    with pytest.raises(ManifestError) as caught:
        index_csv(bad)
    assert caught.value.problems == [
        "line 4: one_video: class 'rare' has no other (warning)",
        "line 5: not_found: no.mp4",
    ]


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("path,lable", "unknown column 'lable'; columns are path, label"),
        ("label", "needs one column 'path'"),
    ],
)
def test_columns_that_are_not_known_are_refused(tmp_path, header, text):
    with pytest.raises(ManifestError, match=text):
        index_csv(lines(tmp_path / "x.csv", header, "a,b"))


def test_a_csv_without_lines_or_without_a_file_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no line after the header"):
        index_csv(lines(tmp_path / "x.csv", "path"))
    with pytest.raises(ManifestError, match=r"no\.csv: 1 problems\n  line 1: not_readable"):
        index_csv(tmp_path / "no.csv")
    with pytest.raises(ManifestError, match="line 2: not_csv: field larger than field limit"):
        index_csv(lines(tmp_path / "x.csv", "path", "x" * 200_000))


def test_unlabelled_videos_need_no_label_and_cross_no_split(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        touch(tmp_path / name)
    source = lines(
        tmp_path / "x.csv", "path,label,split,group", "a.mp4,walk,train,g", "b.mp4,,unlabelled,g"
    )
    assert splits(complete(index_csv(source))) == {"a.mp4": "train", "b.mp4": "unlabelled"}


def test_all_labels_may_be_empty(tmp_path):
    for i in range(5):
        touch(tmp_path / f"{i}.mp4")
    source = lines(tmp_path / "x.csv", "path,anomaly", *(f"{i}.mp4,{i % 2}" for i in range(5)))
    assert [row.anomaly for row in complete(index_csv(source)).rows] == [0, 1, 0, 1, 0]


# ---- UCF101 and HMDB51


def ucf101(folder: Path, *, with_labels: bool) -> tuple[Path, Path]:
    """Two classes, 25 groups of two clips, split like UCF101 split 1: test groups 1–7, CR LF."""
    names = {"ApplyEyeMakeup": "ApplyEyeMakeup", "HandstandPushups": "HandStandPushups"}
    root, splits_ = folder / "videos", folder / "lists"
    train, test = [], []
    for number, (label, spelling) in enumerate(names.items(), 1):
        for group in range(1, 26):
            for clip in (1, 2):
                name = f"{label}/v_{spelling}_g{group:02d}_c{clip:02d}.avi"
                touch(root / name)
                (test if group < 8 else train).append((name, number))
    lines(
        splits_ / "classInd.txt", *(f"{i} {label}" for i, label in enumerate(names, 1)), end="\r\n"
    )
    lines(splits_ / "trainlist01.txt", *(f"{name} {number}" for name, number in train), end="\r\n")
    lines(
        splits_ / "testlist01.txt",
        *(f"{name} {i}" if with_labels else name for name, i in test),
        end="\r\n",
    )
    return root, splits_


@pytest.mark.parametrize("with_labels", [False, True])
def test_ucf101s_official_lists_are_read(tmp_path, with_labels):
    rows = index_ucf101(*ucf101(tmp_path, with_labels=with_labels))
    assert Counter((row.label, row.split) for row in rows) == {
        ("ApplyEyeMakeup", "train"): 36,
        ("ApplyEyeMakeup", "test"): 14,
        ("HandstandPushups", "train"): 36,
        ("HandstandPushups", "test"): 14,
    }
    last = next(row for row in rows if row.path.name == "v_HandStandPushups_g25_c02.avi")
    assert (last.label, last.group, last.where) == (
        "HandstandPushups",
        "HandstandPushups/g25",
        "trainlist01.txt line 72",
    )


def test_val_of_ucf101_is_whole_groups_of_its_training_list(tmp_path):
    manifest = complete(index_ucf101(*ucf101(tmp_path, with_labels=False)))
    groups = defaultdict(set)
    for row in manifest.rows:
        groups[row.split].add(row.group)
    assert {split: len(found) for split, found in groups.items()} == {
        "train": 28,
        "val": 8,
        "test": 14,
    }
    assert not groups["train"] & groups["val"]
    assert {group.split("/g")[1] for group in groups["test"]} == {f"{i:02d}" for i in range(1, 8)}


def test_files_are_found_whatever_their_capitals(tmp_path):
    root, lists = ucf101(tmp_path, with_labels=False)
    for path in (root / "HandstandPushups").iterdir():
        path.rename(path.with_name(path.name.replace("HandStand", "Handstand")))
    (root / "HandstandPushups").rename(root / "HandStandPushups")
    row = index_ucf101(root, lists)[-1]
    assert row.label == "HandstandPushups"
    assert row.path.exists()


def test_mistakes_in_ucf101s_lists_are_reported_together(tmp_path):
    root, lists = ucf101(tmp_path, with_labels=False)
    (root / "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi").unlink()
    with (lists / "trainlist01.txt").open("a") as handle:
        handle.write(
            "Juggling/v_Juggling_g08_c01.avi 3\nApplyEyeMakeup/v_ApplyEyeMakeup_g09_c01.avi 2\n"
        )
        handle.write(
            "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02.avi 1\nApplyEyeMakeup/../../etc/passwd 1\n"
        )
        handle.write("ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c09.avi 1\n")
    touch(root / "ApplyEyeMakeup/clip.avi")
    touch(root / "ApplyEyeMakeup/v_ApplyEyeMakeup_g03_c09.avi")
    with (lists / "testlist01.txt").open("a") as handle:
        handle.write("ApplyEyeMakeup/clip.avi\n")
    with (lists / "classInd.txt").open("a") as handle:
        handle.write("nonsense\n")
    with pytest.raises(ManifestError) as caught:
        index_ucf101(root, lists)
    text = str(caught.value)
    for expected in (
        "classInd.txt line 3: no_class: 'nonsense'",
        "trainlist01.txt line 73: unknown_class: Juggling",
        "trainlist01.txt line 74: wrong_class_number: 2 for ApplyEyeMakeup, which is 1",
        "trainlist01.txt line 76: not_found: ApplyEyeMakeup/../../etc/passwd",
        "testlist01.txt line 1: not_found: ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        "testlist01.txt line 29: no_group: clip.avi",
        "contradicts trainlist01.txt line 75: ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02.avi",
        "group_in_two_splits: 'ApplyEyeMakeup/g03' is in test here and in train at trainlist01.txt line 77",
    ):
        assert expected in text


def test_there_are_three_official_splits(tmp_path):
    root, lists = ucf101(tmp_path, with_labels=False)
    for index in (index_ucf101, index_hmdb51):
        with pytest.raises(ValueError, match="no official split 4"):
            index(root, lists, 4)
    with pytest.raises(ManifestError, match=r"trainlist02\.txt: 1 problems\n  not_found"):
        index_ucf101(root, lists, 2)


def test_hmdb51s_official_lists_are_read(tmp_path):
    for name in ("a_0.avi", "#b_1.avi", "c_2.avi"):
        touch(tmp_path / "videos/brush_hair" / name)
    lines(tmp_path / "lists/brush_hair_test_split2.txt", "a_0.avi 1 ", "#b_1.avi 2 ", "c_2.avi 0 ")
    lines(tmp_path / "lists/brush_hair_test_split1.txt", "a_0.avi 2 ")
    rows = index_hmdb51(tmp_path / "videos", tmp_path / "lists", 2)
    assert [(row.video_id, row.label, row.split) for row in rows] == [
        ("brush_hair/a_0.avi", "brush_hair", "train"),
        ("brush_hair/#b_1.avi", "brush_hair", "test"),
    ]


def test_mistakes_in_hmdb51s_lists_are_reported_together(tmp_path):
    touch(tmp_path / "videos/cart/a.avi")
    lines(tmp_path / "lists/cart_test_split1.txt", "a.avi 1", "b.avi 1", "a.avi 3", "c.avi 0")
    with pytest.raises(ManifestError) as caught:
        index_hmdb51(tmp_path / "videos", tmp_path / "lists")
    assert [problem.split(" is not below")[0] for problem in caught.value.problems] == [
        "cart_test_split1.txt line 2: not_found: cart/b.avi",
        "cart_test_split1.txt line 3: unknown_use: 'a.avi 3'; must be a file name, then 0, 1 or 2",
    ]
    with pytest.raises(ManifestError, match=r"no file <class>_test_split3\.txt"):
        index_hmdb51(tmp_path / "videos", tmp_path / "lists", 3)
    with pytest.raises(ManifestError, match="give the folder of the class folders"):
        index_hmdb51(tmp_path / "nowhere", tmp_path / "lists")


# ---- hold-outs


def by_hash(groups: list[str], seed: int) -> list[str]:
    return sorted(groups, key=lambda group: hashlib.blake2b(f"{seed}:{group}".encode()).hexdigest())


@pytest.mark.parametrize("seed", [0, 7])
def test_the_lowest_fifth_of_each_classs_groups_is_held_out(seed):
    rows = [
        listed(f"{label}{g}{clip}", label, group=f"{label}{g}")
        for label in "ab"
        for g in range(25)
        for clip in "xy"
    ]
    manifest = complete(rows, seed=seed)
    for label in "ab":
        order = by_hash([f"{label}{g}" for g in range(25)], seed)
        expected = {"test": set(order[:5]), "val": set(order[5:9]), "train": set(order[9:])}
        for split, groups in expected.items():
            assert {
                row.group for row in manifest.rows if row.label == label and row.split == split
            } == groups


def test_groups_that_span_classes_go_out_whole_until_a_fifth_of_the_videos_is_out():
    rows = [listed(f"{g}{label}", label, group=f"g{g}") for g in range(10) for label in "abcd"]
    manifest = complete(rows)
    order = by_hash([f"g{g}" for g in range(10)], 0)
    found = {
        split: {row.group for row in manifest.rows if row.split == split}
        for split in ("test", "val", "train")
    }
    assert found == {"test": set(order[:2]), "val": set(order[2:4]), "train": set(order[4:])}


@pytest.mark.parametrize("n_groups", range(1, 12))
def test_both_sides_of_a_hold_out_get_a_group_where_there_are_two(n_groups):
    rows = [listed(f"a{g}", group=f"a{g}") for g in range(n_groups)]
    counts = Counter(splits(complete(rows)).values())
    assert counts["train"] >= 1
    assert counts["test"] >= (n_groups > 1)
    assert counts["val"] >= (n_groups > 2)


def test_val_alone_is_held_out_where_the_list_has_a_test():
    rows = [listed(f"a{i}", group=f"a{i}", split="train" if i < 10 else "test") for i in range(15)]
    manifest = complete(rows)
    assert Counter(splits(manifest).values()) == {"train": 8, "val": 2, "test": 5}
    assert all(row.split == "test" for row in manifest.rows[10:])


def test_a_list_that_has_everything_stays_as_it_is():
    rows = [
        listed(f"a{i}", group=f"a{i}", split=split)
        for i, split in enumerate(("train", "train", "val", "test"))
    ]
    assert list(splits(complete(rows)).values()) == ["train", "train", "val", "test"]


def test_without_a_group_the_bytes_are_the_group(tmp_path):
    for i in range(20):
        touch(tmp_path / f"walk/{i}.mp4", content=str(i % 10))  # every content twice
    manifest = complete(index_folder(tmp_path))
    homes = defaultdict(set)
    for row in manifest.rows:
        assert row.group == row.content_id
        homes[row.content_id].add(row.split)
    assert len(homes) == 10
    assert all(len(split) == 1 for split in homes.values())


def test_the_same_bytes_in_two_splits_are_refused(tmp_path):
    touch(tmp_path / "train/walk/1.mp4", content="same")
    touch(tmp_path / "test/walk/2.mp4", content="same")
    with pytest.raises(
        ManifestError, match=r"1\.mp4 \(train\) has the same bytes as test/walk/2\.mp4 \(test\)"
    ):
        complete(index_folder(tmp_path))


def test_a_fold_becomes_test():
    rows = [listed(f"a{i}", group=f"f{i % 5}_{i}", fold=str(i % 5)) for i in range(50)]
    manifest = complete(rows, test_fold=3)
    assert {row.fold for row in manifest.rows if row.split == "test"} == {"3"}
    assert Counter(splits(manifest).values()) == {"train": 32, "val": 8, "test": 10}
    again = complete(rows, test_fold="4", previous=manifest)
    assert {row.fold for row in again.rows if row.split == "test"} == {"4"}
    with pytest.raises(ManifestError, match="unknown_fold: '9'; there are 0, 1, 2, 3, 4"):
        complete(rows, test_fold=9)
    with pytest.raises(ManifestError, match="group_in_two_splits: a1 "):
        complete([listed(f"a{i}", group="g", fold=str(i)) for i in range(2)], test_fold=0)


# ---- a later index


def test_a_later_index_keeps_every_old_place_and_ranks_only_new_groups():
    old = [listed(f"a{i}", group=f"a{i}") for i in range(20)]
    first = complete(old, seed=0)
    new = [listed(f"b{i}", group=f"b{i}") for i in range(10)]
    second = complete([*new, *old], seed=0, previous=first)
    assert {
        name: split for name, split in splits(second).items() if name.startswith("a")
    } == splits(first)
    order = by_hash([row.group for row in new], 0)
    assert {row.group for row in second.rows if row.split == "test"} - {
        row.group for row in first.rows
    } == set(order[:2])


def test_a_new_video_of_a_known_group_joins_it():
    first = complete([listed(f"a{i}", group=f"a{i}") for i in range(20)])
    more = [listed(f"a{i}", group=f"a{i}") for i in range(20)] + [
        listed(f"b{i}", group=f"a{i}") for i in range(5, 20)
    ]
    for row in complete(more, previous=first).rows:
        assert row.split == splits(first)[row.group]


def test_a_second_video_of_a_class_of_one_is_held_out():
    first = complete([listed("a", group="a")])
    second = complete([listed("a", group="a"), listed("b", group="b")], previous=first)
    assert splits(second) == {"a": "train", "b": "test"}


def test_what_videos_csv_says_stays_and_the_difference_is_said():
    first = complete([listed(f"a{i}", group=f"a{i}") for i in range(5)])
    rows = [dataclasses.replace(row, label="corrected", anomaly=1) for row in first.rows]
    edited = Manifest(first.root, tuple(rows))
    second = complete([listed(f"a{i}", group=f"a{i}") for i in range(4)], previous=edited)
    assert {row.label for row in second.rows} == {"corrected"}
    assert {row.anomaly for row in second.rows} == {1}
    assert "a0: label is 'corrected' in the earlier index and 'a' in the list" in second.warnings[0]
    assert second.warnings[-1] == "1 videos of the earlier index are gone (first: a4)"


def test_a_renamed_video_keeps_its_place(tmp_path):
    for i in range(10):
        touch(tmp_path / f"walk/{i}.mp4", content=str(i))
    first = complete(index_folder(tmp_path), seed=0)
    (tmp_path / "walk").rename(tmp_path / "stroll")
    second = complete(index_folder(tmp_path), seed=99, previous=first)
    assert {row.content_id: row.split for row in second.rows} == {
        row.content_id: row.split for row in first.rows
    }
    assert {row.label for row in second.rows} == {"stroll"}


def test_val_from_an_official_training_list_stays_val(tmp_path):
    root, lists = ucf101(tmp_path, with_labels=False)
    first = complete(index_ucf101(root, lists), seed=0)
    second = complete(index_ucf101(root, lists), seed=5, previous=first)
    assert splits(second) == splits(first)
    assert second.warnings == ()


# ---- content and facts


def test_the_content_id_is_the_sha256_of_the_bytes(tmp_path):
    path = touch(tmp_path / "x.mp4", content="abc" * 1_000_000)
    assert content_id(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_cannot_be_read_stays_in_the_table_without_one(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/link.mp4").symlink_to(tmp_path / "secret")
    with pytest.raises(Rejected, match=r"pipe\.mp4 is a pipe"):
        content_id(tmp_path / "pipe.mp4")
    rows = index_folder(tmp_path / "data")
    assert [row.content_id for row in complete(rows).rows] == [""]
    assert [len(row.content_id) for row in complete(rows, follow_links=True).rows] == [64]


def test_found_facts_come_from_the_probe(tmp_path):
    touch(tmp_path / "walk/good.mp4")
    touch(tmp_path / "walk/bad.mp4")
    facts = {
        "n_frames": 50,
        "fps": 25.0,
        "duration_seconds": 2.0,
        "height": 96,
        "width": 128,
        "has_audio": True,
    }

    def look(path: Path) -> Future[Probe]:
        future: Future[Probe] = Future()
        if path.stem == "bad":
            future.set_exception(Rejected("empty_file", path, "is empty"))
        else:
            future.set_result(
                Probe(**facts, has_video=True, container="x", video_codec="y", audio_codec="z")
            )
        return future

    bad, good = complete(index_folder(tmp_path), probe=look).rows
    assert {name: getattr(good, name) for name in facts} == facts
    assert all(getattr(bad, name) is None for name in facts)


# ---- videos.csv

ODD = [
    "a,b\"c'.mp4",
    "new\nline.mp4",
    "=cmd|' /C calc'!A0.mp4",
    "-i.mp4",
    "bad_\udcff.mp4",
    "ünï 日本語.mp4",
    "back\\slash\\x41.mp4",
]


def test_a_table_comes_back_as_it_was_whatever_the_names(tmp_path):
    rows = [
        listed(name, label=label, group=name, fold="1")
        for name, label in zip(ODD, [*ODD[1:], "@x"])
    ]
    manifest = complete(rows, root=Path("/data"))
    write_manifest(manifest, tmp_path / "run" / "videos.csv")
    again = read_manifest(tmp_path / "run" / "videos.csv")
    assert again.rows == manifest.rows
    assert again.root == Path("/data")


def test_the_table_is_utf8_with_one_line_per_video_and_no_formula(tmp_path):
    manifest = complete([listed(name, group=name) for name in ODD], root=Path("/data"))
    write_manifest(manifest, tmp_path / "videos.csv")
    text = (tmp_path / "videos.csv").read_bytes().decode("utf-8")  # raises where it is not
    assert text.count("\n") == len(ODD) + 1
    with (tmp_path / "videos.csv").open(newline="") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in cells)


def test_facts_come_back_with_their_types(tmp_path):
    said = {
        "label": "a",
        "split": "train",
        "group": "g",
        "anomaly": 1,
        "fold": "",
        "content_id": "ff",
    }
    facts = {
        "n_frames": 50,
        "fps": 29.97,
        "duration_seconds": 1.0,
        "height": 96,
        "width": 128,
        "has_audio": False,
    }
    row = VideoRow(video_id="a.mp4", path=tmp_path / "a.mp4", **said, **facts)
    write_manifest(Manifest(tmp_path, (row,)), tmp_path / "videos.csv")
    assert read_manifest(tmp_path / "videos.csv").rows == (row,)


def test_a_table_that_lies_with_its_videos_may_move_with_them(tmp_path):
    (tmp_path / "old").mkdir()
    row = complete([ListedVideo(video_id="x.mp4", path=tmp_path / "old/x.mp4")]).rows[0]
    write_manifest(Manifest(tmp_path / "old", (row,)), tmp_path / "old/videos.csv")
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_manifest(tmp_path / "new/videos.csv").rows[0].path == tmp_path / "new/x.mp4"


def test_the_data_root_can_be_given_anew(tmp_path):
    write_manifest(complete([listed("x.mp4")], root=Path("/data")), tmp_path / "videos.csv")
    again = read_manifest(tmp_path / "videos.csv", root=Path("/moved"))
    assert (again.root, again.rows[0].path) == (Path("/moved"), Path("/moved/x.mp4"))


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    manifest = complete([listed("x.mp4")], root=Path("/data"))
    write_manifest(manifest, tmp_path / "videos.csv")
    before = (tmp_path / "videos.csv").read_bytes()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_manifest(Manifest(manifest.root, ()), tmp_path / "videos.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["videos.csv"]
    assert (tmp_path / "videos.csv").read_bytes() == before


def test_mistakes_of_an_edited_table_are_reported_together(tmp_path):
    lines(
        tmp_path / "videos.csv",
        "video_id,path,label,split,group,anomaly,n_frames,root",
        "a,a,walk,train,g,,,/data",
        "b,b,walk,holdout,g,,,/data",
        "c,c,walk,train,g,2,,/data",
        "d,d,walk,train,g,,many,/data",
        "e,../e,walk,train,g,,,/data",
        "f,/etc/passwd,walk,train,g,,,/data",
        "a,a,walk,train,g,,,/data",
        "g,g,,train,g,,,/data",
        "h,h,walk,test,g,,,/data",
        "short",
    )
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "videos.csv")
    assert caught.value.problems == [
        "line 3: unknown_split: 'holdout'; must be one of train, val, test, unlabelled",
        "line 4: unknown_anomaly: 2; must be 0 (normal), 1 (abnormal) or empty",
        "line 5: wrong_value: n_frames is 'many'",
        "line 6: outside_root: ../e is not inside /data",
        "line 7: outside_root: /etc/passwd is not inside /data",
        "line 8: repeats line 2: a is listed there already",
        "line 9: empty_label: g; give it one, or say split = unlabelled",
        "line 10: group_in_two_splits: g is in test here and in train at line 2",
        "line 11: wrong_field_count: 1 fields; the header has 8",
    ]


def test_another_csv_is_no_table(tmp_path):
    with pytest.raises(ManifestError, match="no 'video_id'; make this file with `tristream index`"):
        read_manifest(lines(tmp_path / "x.csv", "path,label", "a,b"))


# ---- real sets


@pytest.mark.skipif(
    not (DATA / "ut_interaction").is_dir(), reason="needs shared/data/ut_interaction"
)
def test_ut_interaction_is_indexed_by_its_sequences():
    manifest = complete(index_csv(DATA / "ut_interaction/videos.csv"))
    homes = defaultdict(set)
    for row in manifest.rows:
        homes[row.group].add(row.split)
    assert Counter(splits(manifest).values())["test"] == 37
    assert len(manifest.rows) == 120
    assert all(len(split) == 1 for split in homes.values())
    assert {row.label for row in manifest.rows if row.split == "val"} == {
        row.label for row in manifest.rows
    }


@pytest.mark.skipif(not (DATA / "esc10").is_dir(), reason="needs shared/data/esc10")
def test_esc10s_folds_are_kept():
    manifest = complete(index_csv(DATA / "esc10/videos.csv"), test_fold=2)
    assert {row.fold for row in manifest.rows if row.split == "test"} == {"2"}
    assert len({row.label for row in manifest.rows if row.split == "val"}) == 10
