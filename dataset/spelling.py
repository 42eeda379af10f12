"""Names that people and systems spell differently: Unicode forms, capitals, separators."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path


def composed(text: str) -> str:
    """The text in Unicode form NFC: macOS writes names as NFD, most other systems as NFC."""
    return unicodedata.normalize("NFC", text)


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ only in capitals, spaces, `_` and `-`: [["WALK", "walk"]]."""
    groups = defaultdict(set)
    for name in names:
        groups[re.sub(r"[\s_-]+", " ", composed(name).casefold()).strip()].add(name)
    return [sorted(groups[key]) for key in sorted(groups) if len(groups[key]) > 1]


class NameForms:
    """Paths on disk for listed paths in another Unicode form; each folder is read once."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: Path, root: Path) -> Path:
        """Return the existing path that equals `path` up to Unicode form, else `path` itself.

        Args:
            path: absolute and inside `root`; taken as it is if it exists, or if several files match
                it.
            root: its own name is not changed.
        """
        if os.path.lexists(path):
            return path
        place = root
        for part in path.relative_to(root).parts:
            if os.path.lexists(place / part):
                place = place / part
                continue
            matches = self._read(place).get(composed(part), [])
            if len(matches) != 1:
                return path
            place = place / matches[0]
        return place

    def _read(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names = defaultdict(list)
            try:
                for entry in folder.iterdir():
                    names[composed(entry.name)].append(entry.name)
            except OSError:  # no folder: the file is reported as not found
                pass
            self._names[folder] = names
        return self._names[folder]
