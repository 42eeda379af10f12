"""Archives of videos: safe ones come out byte for byte, nothing comes out of the others."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import typer

from tristream.commands.unpack import run as unpack_command
from tristream.dataset import archive
from tristream.media.reasons import Rejected

FILES = {"walk/a.mp4": b"\x00" * 10 + bytes(range(256)), "run/ü b.mp4": b"x", "notes.txt": b""}


def tar_of(path: Path, entries: list[tuple[str, object]], mode: str = "w") -> Path:
    """A tar archive of entries (name, bytes), or (name, tarfile type or prepared TarInfo)."""
    with tarfile.open(path, mode) as tar:
        for name, what in entries:
            info = what if isinstance(what, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = what if isinstance(what, bytes) else b""
            if (
                isinstance(what, bytes)
                and len(what) == 1
                and what in b"1234567"
                and name.startswith("!")
            ):
                info, data = tarfile.TarInfo(name[1:]), b""
                info.type, info.linkname = what, "/etc/passwd"
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def zip_of(path: Path, entries: list[tuple[str, bytes]], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            zipped.writestr(info, data)
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_a_safe_archive_comes_out_byte_for_byte(tmp_path, name):
    entries = list(FILES.items())
    if name == "a.zip":
        path = zip_of(tmp_path / name, entries)
    else:
        path = tar_of(
            tmp_path / name, entries, f"w:{name.split('.')[2]}" if name.count(".") > 1 else "w"
        )
    assert archive.unpack(path, tmp_path / "out") == len(FILES)
    found = {
        file.relative_to(tmp_path / "out").as_posix(): file
        for file in (tmp_path / "out").rglob("*")
    }
    assert {name: file.read_bytes() for name, file in found.items() if file.is_file()} == FILES
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([name, "out"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../out.mp4", "leads out of the folder"),
        ("a/../../out.mp4", "leads out of the folder"),
        ("/tmp/out.mp4", "is an absolute path"),
        ("a\\..\\..\\out.mp4", "no name of a file"),
        ("!link.mp4", "no plain file"),
    ],
)
def test_one_member_that_leads_out_and_nothing_is_unpacked(tmp_path, name, said):
    path = tar_of(
        tmp_path / "a.tar",
        [("good.mp4", b"good"), (name, tarfile.SYMTYPE if name[0] == "!" else b"evil")],
    )
    with pytest.raises(Rejected, match=said) as caught:
        archive.unpack(path, tmp_path / "out")
    assert caught.value.reason == "unsafe_archive"
    if name[0] != "!":
        with pytest.raises(Rejected, match=said):
            archive.unpack(
                zip_of(tmp_path / "a.zip", [("good.mp4", b"good"), (name, b"evil")]),
                tmp_path / "out",
            )
    assert {each.suffix for each in tmp_path.iterdir()} <= {".tar", ".zip"}


@pytest.mark.parametrize(
    "kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    path = tar_of(tmp_path / "a.tar", [("!strange.mp4", kind)])
    with pytest.raises(Rejected, match=r"holds 'strange\.mp4', which is no plain file"):
        archive.inspect(path)


def test_a_link_in_a_zip_archive_is_refused(tmp_path):
    path = zip_of(tmp_path / "a.zip", [("link.mp4", b"/etc/passwd")], mode=stat.S_IFLNK | 0o777)
    with pytest.raises(Rejected, match=r"holds 'link\.mp4', which is no plain file \(link\)"):
        archive.inspect(path)


def test_one_name_twice_is_refused(tmp_path):
    path = tar_of(tmp_path / "a.tar", [("a.mp4", b"one"), ("./a.mp4", b"two")])
    with pytest.raises(Rejected, match=r"holds '\./a\.mp4', twice"):
        archive.inspect(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, name):
    zeros = [("big.mp4", bytes(50 << 20))]
    path = (
        zip_of(tmp_path / name, zeros)
        if name == "a.zip"
        else tar_of(tmp_path / name, zeros, "w:gz")
    )
    with pytest.raises(
        Rejected, match=r"unpacks to 52428800 bytes or more from \d+, .*100 times its size"
    ):
        archive.unpack(path, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_zip_archive_that_lies_about_a_size_is_refused(tmp_path):
    path = zip_of(tmp_path / "a.zip", [("a.mp4", bytes(1 << 20))])
    data = path.read_bytes()
    path.write_bytes(data.replace((1 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    with pytest.raises(Rejected, match="damaged archive"):
        archive.unpack(path, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_damaged_archives_are_refused_and_no_other_error_comes_out(tmp_path, name):
    rng = np.random.default_rng(0)
    entries = [(f"{index}.mp4", rng.bytes(3000)) for index in range(5)]
    path = (
        zip_of(tmp_path / name, entries)
        if name == "a.zip"
        else tar_of(tmp_path / name, entries, f"w:{name[6:]}")
    )
    data = path.read_bytes()
    reasons, left = [], 0
    for index in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged if index % 2 else damaged[: int(rng.integers(1, len(data)))])
        try:
            archive.unpack(path, tmp_path / f"out{index}")
        except Rejected as error:
            reasons.append(error.reason)
            left += (tmp_path / f"out{index}").exists()
    assert len(reasons) > 50
    assert (set(reasons), left) == ({"unsafe_archive"}, 0)


def test_the_command_unpacks_into_new_folders_only(tmp_path, capsys):
    path = zip_of(tmp_path / "a.zip", list(FILES.items()))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.mp4").write_bytes(b"mine")
    for folder, code in (("full", 2), ("new", 0)):
        with pytest.raises(typer.Exit) as stopped:
            unpack_command(path, tmp_path / folder)
        assert stopped.value.exit_code == code
    said = capsys.readouterr().err
    assert "is not an empty folder; name a new one" in said.replace("\n", " ")
    assert "unpacked 3 files" in said
    with pytest.raises(FileExistsError, match="full is not empty"):
        archive.unpack(path, tmp_path / "full")
    assert [each.name for each in (tmp_path / "full").iterdir()] == ["mine.mp4"]
