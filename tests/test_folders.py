"""Files that are listed, files that are skipped, and the account of both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tristream.dataset.folders import SUFFIXES, scan_folder
from tristream.dataset.listing import ManifestError, index_folder


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.mark.parametrize(
    "suffix",
    [
        "dav",
        "divx",
        "f4v",
        "mpeg4",
        "lrv",
        "insv",
        "mxf",
        "m2v",
        "amr",
        "ac3",
        "caf",
        "mka",
        "h264",
        "qt",
        "MP4",
        "DAV",
    ],
)
def test_suffixes_of_cameras_and_old_programs_are_candidates(tmp_path, suffix):
    touch(tmp_path, f"walk/a.{suffix}")
    assert [row.label for row in index_folder(tmp_path)] == ["walk"]


@pytest.mark.parametrize(
    "suffix", ["txt", "csv", "jpg", "png", "json", "srt", "safetensors", "zip"]
)
def test_pictures_texts_and_archives_are_no_candidates(suffix):
    assert f".{suffix}" not in SUFFIXES


def test_every_entry_is_either_listed_or_counted_by_kind(tmp_path):
    names = ["a/1.mp4", "a/2.txt", "a/3.TXT", "b/4.xyz", "b/noext", ".DS_Store", "a/.hidden.mp4"]
    touch(tmp_path, *names, ".git/1.mp4", ".git/2.mp4")
    (tmp_path / "again").symlink_to(tmp_path / "a")
    scan = scan_folder(tmp_path)
    assert [path.name for path in scan.files] == ["1.mp4"]
    assert scan.skipped == {
        ".txt": 2,
        ".xyz": 1,
        "file without a suffix": 1,
        "hidden file": 2,
        "hidden folder": 1,
        "folder linked twice": 1,
    }
    assert scan.account().startswith("skipped 8 entries that are no media files: 2 .txt, 2 hidden")


def test_nothing_skipped_is_no_sentence(tmp_path):
    assert scan_folder(touch(tmp_path, "a/1.mp4")).account() == ""


def test_a_folder_that_cannot_be_read_is_counted(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert scan_folder(tmp_path).skipped == {"unreadable folder": 1}


def test_a_class_folder_that_loses_all_its_files_is_named(tmp_path):
    touch(tmp_path, "walk/1.mp4", "sit/2.xyz", "sit/deep/3.xyz")
    (tmp_path / "empty").mkdir()
    notes: list[str] = []
    index_folder(tmp_path, notes=notes)
    assert notes == [
        "folder 'empty' holds no video or audio file (it is empty)",
        "folder 'sit' holds no video or audio file (skipped 2 .xyz)",
    ]


def test_a_class_folder_of_a_split_that_loses_all_its_files_is_named(tmp_path):
    touch(tmp_path, "train/walk/1.mp4", "train/sit/2.xyz", "test/walk/3.mp4", "val/walk/4.xyz")
    notes: list[str] = []
    index_folder(tmp_path, notes=notes)
    assert notes[1:] == [
        "folder 'train/sit' holds no video or audio file (skipped 1 .xyz)",
        "folder 'val' holds no video or audio file (skipped 1 .xyz)",
    ]


def test_files_that_differ_only_by_the_suffix_are_noted(tmp_path):
    touch(tmp_path, "walk/1.mp4", "walk/1.lrv", "walk/2.mp4", "sit/1.mp4")
    notes: list[str] = []
    assert len(index_folder(tmp_path, notes=notes)) == 4
    (note,) = notes
    assert note.startswith("1 file differs from another file only by the suffix (first: walk/1.lrv")


def test_a_folder_without_media_says_what_it_holds_instead(tmp_path):
    with pytest.raises(ManifestError, match=r"no_videos: .*skipped 2 entries.*: 2 \.xyz"):
        index_folder(touch(tmp_path, "walk/1.xyz", "walk/2.xyz"))
