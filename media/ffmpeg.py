"""Which FFmpeg decodes here, and whether it is new enough to be given files that nobody trusts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

MIN_FFMPEG = (8, 1, 2)  # CVE-2026-8461 before


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version as FFmpeg writes it ("8.1.2", "n8.1.2-3ubuntu1"); () for a build without any."""
    found = re.match(r"n?(\d+(?:\.\d+)*)(?![\w.])", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def fault(version: str) -> str:
    """A sentence on why this version must not decode, "" where it may. Of a build without numbers nothing is known."""
    numbers = version_numbers(version)
    if not numbers or numbers >= MIN_FFMPEG:
        return ""
    wanted = ".".join(map(str, MIN_FFMPEG))
    return (
        f"PyAV decodes with FFmpeg {version}, which has known holes (CVE-2026-8461); it must be {wanted} or newer: "
        "pip install -U av"
    )


def bundled_copies(folders: Iterable[Path]) -> list[tuple[str, str]]:
    """Every FFmpeg that packages have brought with them: (its folder and file, version), the version "" if it hides it.

    Auditing tools look at versions of packages, not into the libraries in them.
    """
    found = []
    for folder in folders:
        for pattern in (
            "*.libs/*avcodec*",
            "*/*avcodec*",
            "*/.dylibs/*avcodec*",
            "*/lib/*avcodec*",
        ):
            found += [
                path
                for path in sorted(folder.glob(pattern))
                if re.search(r"\.(so|dylib|dll)(\.|$)", path.name)
            ]
    return [(f"{path.parent.name}/{path.name}", _version_in(path)) for path in dict.fromkeys(found)]


def _version_in(library: Path) -> str:
    match = re.search(rb"FFmpeg version ([\x21-\x7e]+)", library.read_bytes())
    return match[1].decode() if match else ""
