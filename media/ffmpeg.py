"""Version of the FFmpeg that decodes, and the oldest one that may decode untrusted files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

MIN_FFMPEG = (8, 1, 2)  # CVE-2026-8461 before


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of an FFmpeg version ("8.1.2", "n8.1.2-3ubuntu1"); () for a build without any."""
    match = re.match(r"n?(\d+(?:\.\d+)*)(?![\w.])", version)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def fault(version: str) -> str:
    """Return why this version must not decode, "" if it may; a build without version numbers may."""
    numbers = version_numbers(version)
    if not numbers or numbers >= MIN_FFMPEG:
        return ""
    wanted = ".".join(map(str, MIN_FFMPEG))
    return (
        f"PyAV decodes with FFmpeg {version}, which has known vulnerabilities (CVE-2026-8461); "
        f"it must be {wanted} or newer: pip install -U av"
    )


def bundled_copies(folders: Iterable[Path]) -> list[tuple[str, str]]:
    """List the FFmpeg libraries inside installed packages as (folder/file, version); version "" if unknown.

    Audit tools compare versions of packages, not of the libraries inside them.
    """
    libraries = []
    for folder in folders:
        for pattern in (
            "*.libs/*avcodec*",
            "*/*avcodec*",
            "*/.dylibs/*avcodec*",
            "*/lib/*avcodec*",
        ):
            libraries += [
                path
                for path in sorted(folder.glob(pattern))
                if re.search(r"\.(so|dylib|dll)(\.|$)", path.name)
            ]
    return [
        (f"{path.parent.name}/{path.name}", _version_in(path)) for path in dict.fromkeys(libraries)
    ]


def _version_in(library: Path) -> str:
    match = re.search(rb"FFmpeg version ([\x21-\x7e]+)", library.read_bytes())
    return match[1].decode() if match else ""
