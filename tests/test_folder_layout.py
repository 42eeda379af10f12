"""Splits and classes from folder names: the true label of every video, or a refusal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tristream.dataset.folder_layout import read_layout
from tristream.dataset.listing import ManifestError, index_folder
from tristream.dataset.split_names import resembles_split, split_of
from tristream.errors import TristreamError

SPLIT_NAMES = {
    "train": "train",
    "Training": "train",
    "TRAIN": "train",
    "train_set": "train",
    "training_videos": "train",
    "val": "val",
    "valid": "val",
    "Validation": "val",
    "test": "test",
    "Testing": "test",
    "test-data": "test",
    "testset": "test",
    "unlabeled": "unlabelled",
}
CLASS_NAMES = ("walk", "sit", "Walk", "café", "test", "train", "valid", "test_drive", "fold", "bus")
JUNK_NAMES = ("extra", "eval", "dev", "fold1", "fold2", "public_test", "holdout", "data", "s01")


def folders(*texts: str) -> set[tuple[str, ...]]:
    return {tuple(text.split("/")) for text in texts}


def crossed(tops, subs) -> set[tuple[str, ...]]:
    return {(top, sub) for top in tops for sub in subs}


@pytest.mark.parametrize(("name", "split"), SPLIT_NAMES.items())
def test_usual_synonyms_in_any_case_mean_a_split(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    "name", ["walk", "trainer", "train_station", "contest", "dev", "eval", "fold1", "test2", ""]
)
def test_other_names_mean_no_split(name):
    assert split_of(name) == ""


def test_numbered_and_unclear_names_only_resemble_a_split():
    assert all(map(resembles_split, ("fold1", "split_2", "test2", "dev", "Evaluation", "valid")))
    assert not any(map(resembles_split, ("walk", "fold", "split", "train_station", "test_drive")))


def test_roboflows_folders_are_splits():
    layout = read_layout(crossed(("train", "valid", "test"), ("walk", "sit")))
    assert layout.place(("valid", "walk")) == ("val", "walk")
    assert layout.notes == ("splits by folder: 'valid' is val",)


def test_a_class_called_test_beside_other_classes_stays_a_class():
    assert read_layout(folders("test", "walk", "sit")).place(("test",)) == ("", "test")
    layout = read_layout(folders("test/s01", "walk/s02", "sit/s03"))
    assert layout.place(("test", "s01")) == ("", "test")


def test_flat_split_folders_have_splits_and_no_label():
    layout = read_layout(folders("training_videos", "testing_videos"))
    assert layout.place(("testing_videos",)) == ("test", "")


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        (
            crossed(("train", "eval"), ("walk", "sit")),
            "'eval' cannot be read as train, val or test",
        ),
        (crossed(("fold1", "fold2"), ("walk", "sit")), "'fold1', 'fold2' cannot be read"),
        (folders("fold1", "fold2"), "'fold1', 'fold2' cannot be read"),
        (folders("train", "public_test"), "'public_test' cannot be read"),
        (crossed(("valid", "test"), ("walk", "sit")), "none is named train"),
        (folders("test"), "none is named train"),
        (crossed(("train", "val", "valid"), ("walk",)), "'val', 'valid' all mean the split val"),
        (crossed(("train", "Train"), ("walk",)), "'Train', 'train' all mean the split train"),
        (crossed(("train", "test", "extra"), ("walk",)), "'extra' beside them is not"),
        (folders("train", "test", "extra"), "'extra' beside them is not"),
        (crossed(("test", "learn"), ("walk", "sit")), "sub-folders 'sit', 'walk' also exist"),
        (folders("walk", "sit", "test/walk"), "'test' is named like a split, and its sub-folders"),
        (crossed(("public_train", "public_test"), ("walk", "sit")), "'public_test' is named like"),
        (folders("data/train/walk", "data/test/walk"), "give --data with the folder 'data' itself"),
        (crossed(("walk", "sit"), ("train", "test")), r"(train/CLASS/…)"),
        (folders("walk/train", "sit/train"), "lie folders named like splits ('train')"),
        (folders("train/rgb/train/walk", "train/rgb/test/walk", "test/a"), "below 'train/rgb' lie"),
    ],
)
def test_ambiguous_folders_are_refused_by_name(tree, named):
    with pytest.raises(TristreamError, match=f"unclear_folders: .*{re.escape(named)}"):
        read_layout(tree)


def test_refusal_reaches_the_caller_of_index_folder(tmp_path):
    for name in ("train/walk/1.mp4", "eval/walk/2.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    with pytest.raises(ManifestError, match=r"unclear_folders: .*'eval' cannot be read"):
        index_folder(tmp_path)


def test_one_folder_above_the_classes_is_noted():
    (note,) = read_layout(folders("UCF-101/walk", "UCF-101/sit")).notes
    assert "one folder, 'UCF-101', which is the only class" in note


def test_one_folder_below_the_splits_is_noted():
    (note,) = read_layout(folders("train/videos", "test/videos")).notes
    assert note == "'videos' is the only folder below the splits, and so the only class"


def test_equal_sub_folders_below_every_class_are_noted():
    (note,) = read_layout(crossed(("walk", "sit"), ("s01", "s02"))).notes
    assert "the sub-folders 's01', 's02', which lie below each of them, are no labels" in note
    assert read_layout(folders("walk/s01", "walk/s02", "sit/s03", "sit/s04")).notes == ()


NAMES = st.sampled_from([*SPLIT_NAMES, *CLASS_NAMES, *JUNK_NAMES])


@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=8))
def test_a_label_of_any_tree_is_the_true_folder_or_the_tree_is_refused(tree):
    try:
        layout = read_layout(tree)
    except TristreamError:
        return
    tops = {folder[0] for folder in tree}
    for folder in tree:
        split, label = layout.place(folder)
        if layout.splits:
            assert split == SPLIT_NAMES.get(folder[0], split_of(folder[0])) != ""
            assert label == ("" if split == "unlabelled" else "".join(folder[1:2]))
        else:
            assert (split, label) == ("", folder[0])
            twins = {name for top in tops - {folder[0]} for name in _children(tree, top)}
            assert not (split_of(folder[0]) and _children(tree, folder[0]) & twins)


@given(
    st.sampled_from(["classes", "classes/subjects", "splits/classes", "split/class/subject"]),
    st.sets(st.sampled_from(CLASS_NAMES), min_size=1, max_size=4),
    st.sets(st.sampled_from([*SPLIT_NAMES, *JUNK_NAMES]), min_size=1, max_size=4),
    st.sets(st.sampled_from(["s01", "s02", "take"]), min_size=1, max_size=2),
)
def test_known_classes_and_splits_come_back_or_the_tree_is_refused(form, classes, splits, subjects):
    levels = {
        "classes": [classes],
        "classes/subjects": [classes, subjects],
        "splits/classes": [splits, classes],
        "split/class/subject": [splits, classes, subjects],
    }[form]
    tree: set[tuple[str, ...]] = {()}
    for names in levels:
        tree = {(*folder, name) for folder in tree for name in names}
    try:
        layout = read_layout(tree)
    except TristreamError:
        return
    if form.startswith("split") and len(splits) > 1 and any(map(split_of, splits)):
        for folder in tree:  # nothing called like a split becomes a class
            split, label = layout.place(folder)
            assert split == split_of(folder[0]) != ""
            assert label == ("" if split == "unlabelled" else folder[1])
    elif not form.startswith("split") and not all(map(split_of, classes)):
        assert all(layout.place(folder) == ("", folder[0]) for folder in tree)


def _children(tree: set[tuple[str, ...]], top: str) -> set[str]:
    return {folder[1].casefold() for folder in tree if len(folder) > 1 and folder[0] == top}
