"""Names in two Unicode forms, and labels that differ in capitals."""

from __future__ import annotations

import dataclasses
import unicodedata
from pathlib import Path

import pytest

from tristream.dataset.listing import ManifestError, index_csv, index_folder
from tristream.dataset.manifest import complete, index_hmdb51
from tristream.dataset.spelling import similar_names

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.as_posix())
    return path


def test_class_folders_in_two_unicode_forms_are_one_class(tmp_path):
    for name in (f"{NFC}/1.mp4", f"{NFD}/2.mp4", "sit/3.mp4"):
        touch(tmp_path / name)
    notes: list[str] = []
    rows = index_folder(tmp_path, notes=notes)
    assert {row.label for row in rows} == {NFC, "sit"}
    assert {row.video_id for row in rows} == {f"{NFC}/1.mp4", f"{NFD}/2.mp4", "sit/3.mp4"}
    assert notes == [
        "the folders of class 'café' are written in 2 Unicode forms; they are one class"
    ]


@pytest.mark.parametrize(("listed", "stored"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])
def test_a_list_finds_files_in_the_other_unicode_form(tmp_path, listed, stored):
    touch(tmp_path / stored / f"{stored}.mp4")
    source = tmp_path / "list.csv"
    source.write_text(f"path,label,group\n{listed}/{listed}.mp4,{listed},{listed}\n")
    (row,) = index_csv(source)
    assert (row.video_id, row.label, row.group) == (f"{stored}/{stored}.mp4", NFC, NFC)
    assert row.path.exists()


def test_a_name_in_both_forms_means_its_own_file(tmp_path):
    for form in (NFC, NFD):
        touch(tmp_path / f"{form}.mp4")
    source = tmp_path / "list.csv"
    source.write_text(f"path\n{NFC}.mp4\n{NFD}.mp4\n")
    assert [row.video_id for row in index_csv(source)] == [f"{NFC}.mp4", f"{NFD}.mp4"]


def test_another_form_leads_nowhere_outside_the_root(tmp_path):
    touch(tmp_path / "outside" / f"{NFD}.mp4")
    (tmp_path / "root").mkdir()
    source = tmp_path / "root/list.csv"
    source.write_text(f"path\n../outside/{NFC}.mp4\n")
    with pytest.raises(ManifestError, match="line 2: outside_root"):
        index_csv(source)


def test_official_lists_find_files_in_the_other_form_and_refuse_two_candidates(tmp_path):
    touch(tmp_path / "videos" / NFD / f"{NFD}.avi")
    (tmp_path / "lists").mkdir()
    (tmp_path / f"lists/{NFC}_test_split1.txt").write_text(f"{NFC}.avi 1\n")
    (row,) = index_hmdb51(tmp_path / "videos", tmp_path / "lists")
    assert (row.label, row.path.name) == (NFC, f"{NFD}.avi")
    touch(tmp_path / "videos" / NFD / f"{NFD.upper()}.avi")
    with pytest.raises(ManifestError, match=r"ambiguous_name: café\.avi may be any of"):
        index_hmdb51(tmp_path / "videos", tmp_path / "lists")


def test_an_earlier_index_in_the_other_form_is_continued(tmp_path):
    for i in range(4):
        touch(tmp_path / NFC / f"{i}.mp4")
    first = complete(index_folder(tmp_path))
    earlier = dataclasses.replace(
        first, rows=tuple(dataclasses.replace(row, label=NFD) for row in first.rows)
    )
    touch(tmp_path / NFC / "4.mp4")
    second = complete(index_folder(tmp_path), previous=earlier)
    assert {row.label for row in second.rows} == {NFC}
    assert second.warnings == ()


def test_names_that_differ_in_capitals_and_separators_are_grouped():
    names = ["Walk", "walk", "WALK", "sit down", "sit_down", "Sit-Down", "run", NFC, "wal k"]
    assert similar_names(names) == [["Sit-Down", "sit down", "sit_down"], ["WALK", "Walk", "walk"]]


def test_labels_typed_by_several_people_stay_apart_with_one_warning(tmp_path):
    labels = ["Walk", "walk", "walk ", "WALK", "sit", "Sit"] * 3
    source = tmp_path / "list.csv"
    for i in range(len(labels)):
        touch(tmp_path / f"{i}.mp4")
    source.write_text(
        "path,label\n" + "".join(f"{i}.mp4,{label}\n" for i, label in enumerate(labels))
    )
    manifest = complete(index_csv(source))
    assert {row.label for row in manifest.rows} == {"Walk", "walk", "WALK", "sit", "Sit"}
    (warning,) = [text for text in manifest.warnings if "capitals" in text]
    assert "'Sit', 'sit'; 'WALK', 'Walk', 'walk'" in warning
