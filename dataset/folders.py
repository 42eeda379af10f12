"""Media files below a folder, chosen by suffix, with an account of everything that is skipped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tristream.media.reasons import printable

_VIDEO = (
    "mp4 m4v mp4v mpeg4 mov qt mkv mk3d webm avi divx xvid mpg mpeg mpe mpv m1v m2v m2p ts "
    "m2ts mts m2t mod tod vob vro evo flv f4v wmv asf dvr-ms wtv 3gp 3g2 ogv ogm ogx rm rmvb "
    "mxf gxf nut ivf y4m dv dif dav lrv insv 360 h264 264 h265 265 hevc mjpg mjpeg"
)
_AUDIO = (
    "ogg oga opus spx wav w64 rf64 bwf flac mp3 mp2 mpa m4a m4b f4a aac adts aiff aif aifc "
    "wma mka amr awb ac3 eac3 dts caf au snd ape wv tta"
)
# A suffix only makes a file a candidate: decoding its content decides, and rejects with a reason.
SUFFIXES = frozenset(f".{suffix}" for suffix in f"{_VIDEO} {_AUDIO}".split())
_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class FolderScan:
    """Everything below a folder: the media files, and the number of skipped entries by kind.

    Attributes:
        root: absolute.
        files: media files, sorted by the bytes of their paths.
        skipped: number of skipped entries by kind: a suffix such as ".txt", or a phrase.
        skipped_in: the same for each visited folder, given by its parts relative to `root`.
    """

    root: Path
    files: tuple[Path, ...]
    skipped: Mapping[str, int]
    skipped_in: Mapping[tuple[str, ...], Mapping[str, int]]

    def account(self) -> str:
        """One sentence that counts the skipped entries; "" if nothing was skipped."""
        return account_of(self.skipped)

    def barren(self, depth: int) -> dict[tuple[str, ...], Counter[str]]:
        """Folders at this depth without a media file, with the number of skipped files by kind."""
        full = {path.relative_to(self.root).parts[:depth] for path in self.files}
        folders: dict[tuple[str, ...], Counter[str]] = {}
        for parts, kinds in self.skipped_in.items():
            if len(parts) >= depth and parts[:depth] not in full:
                folders.setdefault(parts[:depth], Counter()).update(kinds)
        return folders


def scan_folder(root: Path) -> FolderScan:
    """Find the media files below a folder by their suffixes and count everything else.

    Hidden files and folders are skipped. Links to folders are followed, each folder once;
    permission to use the files is checked when they are opened.
    """
    # not resolve(), which would follow links and change every video_id
    root = Path(os.path.abspath(root))  # noqa: PTH100
    files: list[Path] = []
    skipped_in: dict[tuple[str, ...], Counter[str]] = {}
    refused: list[OSError] = []
    visited = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refused.append):
        parts = Path(folder).relative_to(root).parts
        facts = Path(folder).stat()
        if (
            facts.st_dev,
            facts.st_ino,
        ) in visited:  # a link back to a folder above, or a second one
            folders.clear()
            skipped_in.setdefault(parts[:-1], Counter())["folder linked twice"] += 1
            continue
        visited.add((facts.st_dev, facts.st_ino))
        kinds = skipped_in.setdefault(parts, Counter())
        kinds["hidden folder"] += sum(name.startswith(".") for name in folders)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if kind := _kind_of_skipped(name):
                kinds[kind] += 1
            else:
                files.append(Path(folder, name))
    for error in refused:
        parts = Path(error.filename).relative_to(root).parts
        skipped_in.setdefault(parts, Counter())["unreadable folder"] += 1
    total: Counter[str] = Counter()
    for kinds in skipped_in.values():
        total.update(kinds)
    return FolderScan(
        root=root,
        files=tuple(sorted(files, key=os.fsencode)),
        skipped=+total,
        skipped_in=skipped_in,
    )


def media_files(root: Path) -> Iterator[Path]:
    """Files below `root` with the suffix of a video or audio file, hidden ones excepted."""
    yield from scan_folder(root).files


def account_of(skipped: Mapping[str, int]) -> str:
    """One sentence that counts skipped entries by kind; "" if nothing was skipped."""
    n = sum(skipped.values())
    entries = "entry that is no media file" if n == 1 else "entries that are no media files"
    return f"skipped {n} {entries}: {counted(skipped)}" if n else ""


def counted(kinds: Mapping[str, int]) -> str:
    """Numbers with their kinds, most frequent first: `3 .txt, 1 hidden file`."""
    order = sorted(
        ((n, kind) for kind, n in kinds.items() if n), key=lambda pair: (-pair[0], pair[1])
    )
    shown = [f"{n} {printable(kind)}" for n, kind in order[:_SHOWN]]
    rest = sum(n for n, _ in order[_SHOWN:])
    return ", ".join([*shown, *([f"{rest} of other kinds"] if rest else [])])


def quoted(names: Collection[str]) -> str:
    """Names in quotes in alphabetical order, at most ten of them: `'a', 'b' and 3 more`."""
    shown = ", ".join(f"'{printable(name)}'" for name in sorted(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _kind_of_skipped(name: str) -> str:
    if name.startswith("."):
        return "hidden file"
    suffix = Path(name).suffix.lower()
    return "" if suffix in SUFFIXES else suffix or "file without a suffix"
