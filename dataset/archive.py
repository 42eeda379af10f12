"""Untrusted archives of videos: every member is checked before any is written.

An archive is unpacked completely or not at all: one member outside the folder, one link or one bomb
refuses all of it.
"""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tristream.media.limits import Limits
from tristream.media.opening import open_file
from tristream.media.reasons import Rejected, printable

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_BYTES = 1 << 40  # of all members together
MAX_RATIO = 100  # of members to the archive itself: videos are compressed already, and give 1
MAX_MEMBERS = 1_000_000
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: as stored in the archive.
        n_bytes: declared size after unpacking; no more than that is ever written.
        kind: "file", "folder", or the name of any other kind.
    """

    name: str
    n_bytes: int
    kind: str


def inspect(path: Path) -> list[Member]:
    """Return the members of an archive that may be unpacked.

    Raises:
        Rejected: no file, no archive, or one that must not be unpacked (`unsafe_archive`).
    """
    open_file(path, limits=Limits(max_bytes=1 << 62), root=None, follow_links=True).close()
    members: list[Member] = []
    seen: set[str] = set()
    n_bytes, n_packed = 0, path.stat().st_size
    try:
        for member in _members(path):
            n_bytes += member.n_bytes
            if fault := _fault(member, seen):
                sentence = f"holds {printable(member.name)!r}, {fault}; nothing is unpacked"
                raise Rejected("unsafe_archive", path, sentence)
            if (
                n_bytes > MAX_BYTES
                or n_bytes > MAX_RATIO * max(n_packed, 1 << 16)
                or len(members) >= MAX_MEMBERS
            ):
                raise Rejected(
                    "unsafe_archive",
                    path,
                    f"unpacks to {n_bytes} bytes or more from {n_packed}, in {len(members) + 1} members or more; "
                    f"{MAX_RATIO} times its size, {MAX_BYTES >> 40} TiB and {MAX_MEMBERS} members may be unpacked",
                )
            members.append(member)
    except (*_BROKEN, UnicodeDecodeError) as error:
        raise Rejected(
            "unsafe_archive", path, f"is a damaged archive ({error}); download it again"
        ) from error
    return members


def unpack(path: Path, target: Path) -> int:
    """Unpack an archive completely or not at all and return the number of files.

    Args:
        path: the archive.
        target: a new or empty folder.

    Raises:
        Rejected: as `inspect`, or its content differs from its declarations.
        FileExistsError: `target` is not empty.
    """
    members = inspect(path)
    if target.exists() and any(target.iterdir()):
        raise FileExistsError(f"{target} is not empty")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tmp-") as name:
        folder = Path(name) / "unpacked"
        folder.mkdir()
        try:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as zipped:
                    zipped.extractall(folder)
            else:
                with tarfile.open(path) as tar:
                    tar.extractall(folder, filter="data")
        except _BROKEN as error:
            raise Rejected(
                "unsafe_archive", path, f"is a damaged archive ({error}); download it again"
            ) from error
        if target.exists():
            target.rmdir()
        shutil.move(folder, target)
    return sum(member.kind == "file" for member in members)


def _members(path: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            for info in zipped.infolist():
                yield Member(info.filename, info.file_size, _zip_kind(info))
        return
    with tarfile.open(path) as tar:
        for entry in tar:
            kind = (
                "file"
                if entry.isreg()
                else "folder"
                if entry.isdir()
                else "link"
                if entry.issym()
                else "other"
            )
            yield Member(entry.name, max(0, entry.size), kind)


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if info.flag_bits & 1:
        return "encrypted"
    if info.is_dir():
        return "folder"
    return (
        "file"
        if stat.S_ISREG(mode) or not stat.S_IFMT(mode)
        else "link"
        if stat.S_ISLNK(mode)
        else "other"
    )


def _fault(member: Member, seen: set[str]) -> str:
    """Return the reason this member gives to refuse the archive, "" if none."""
    if member.kind not in ("file", "folder"):
        return f"which is no plain file ({member.kind})"
    name = member.name
    if "\0" in name or "\\" in name or not name.strip("/"):
        return "which is no name of a file"
    if name.startswith("/"):
        return "which is an absolute path"
    if ".." in name.split("/"):
        return "which leads out of the folder"
    place = os.path.normpath(name)
    if member.kind == "file" and place in seen:
        return "twice"
    seen.add(place)
    return ""
