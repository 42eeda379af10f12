"""Cache of results: content-addressed, checksummed, atomic, safe for several processes."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tristream.errors import TristreamError
from tristream.store import entry
from tristream.store.atomic import TEMPORARY, write_bytes
from tristream.store.lineage import digest

KINDS = ("plan", "motion", "flow", "segments", "compiled")
MAP_BYTES = (
    4 << 20
)  # larger entries are mapped, not read; smaller ones are many, and a process may map only 65,530
USE_SECONDS = 60.0  # how exactly the time of the last use is kept
LEFT_BEHIND_SECONDS = (
    3600.0  # a temporary file that nobody has written to for so long belongs to no process any more
)


@dataclass(frozen=True)
class Use:
    """Use of the cache by one kind of entries.

    Attributes:
        n_entries: number of entries.
        n_bytes: of all of them.
        oldest_use: seconds since the epoch; None without entries.
    """

    n_entries: int
    n_bytes: int
    oldest_use: float | None


class Cache:
    """A folder of entries `kind/<2 hex>/<key>`, each one safetensors file that carries its own sha256.

    Every file in the folder is an entry; there are no lock or side files. Two processes that miss the same entry both
    compute it and write the same bytes; the later rename wins. The time of a file is that of its last use.

    Args:
        root: the folder; made when the first entry is written.
        report: called with one sentence when an entry is found corrupt (it is removed, and recomputed by the caller).
        written: kinds that are written; the others are read where they are there.
    """

    def __init__(
        self,
        root: Path,
        *,
        report: Callable[[str], None] | None = None,
        written: Collection[str] = KINDS,
    ) -> None:
        self.root = root
        self._report = report or (lambda sentence: None)
        self._written = frozenset(written)
        self._verified: set[tuple[Path, int]] = (
            set()
        )  # with the file's number: another process may have put it anew

    def key(self, **what: Any) -> str:
        """Return the key of some inputs: sha256 of the canonical JSON of the arguments."""
        return digest(what)

    def path(self, kind: str, key: str) -> Path:
        """Return the path of the entry, present or not."""
        if kind not in KINDS:
            raise TristreamError(f"unknown cache kind '{kind}'; available: {', '.join(KINDS)}")
        return self.root / kind / key[:2] / key

    def get(self, kind: str, key: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of an entry; None if it is missing or was corrupt, in which case it is removed.

        Its checksum is verified once per process. The arrays of a large entry are mapped, and read-only: they cost no
        memory, and stay valid when the entry is removed.
        """
        path = self.path(kind, key)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                mapped = status.st_size >= MAP_BYTES
                data = (
                    mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
                    if mapped
                    else bytearray(file.read())
                )
        except FileNotFoundError:
            return None
        known = (path, status.st_ino)
        arrays = entry.unpack(data, verify=known not in self._verified)
        if arrays is None:
            self._report(f"cache entry is corrupt, removed and recomputed: {path}")
            path.unlink(missing_ok=True)
            return None
        self._verified.add(known)
        if abs(time.time() - status.st_mtime) > USE_SECONDS:
            with contextlib.suppress(
                OSError
            ):  # gone since, or the cache is read-only: nothing depends on it
                os.utime(path)
        return arrays

    def put(self, kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write an entry, completely or not at all."""
        path = self.path(kind, key)
        if kind in self._written:
            write_bytes(path, entry.pack(arrays))

    def entries(self) -> Iterator[tuple[str, Path]]:
        """Yield every entry as (kind, path)."""
        for kind in KINDS:
            for path in sorted((self.root / kind).glob("??/*")):
                if not path.name.startswith(TEMPORARY):
                    yield kind, path

    def info(self) -> dict[str, Use]:
        """Return the current use of the cache by each kind of entries."""
        sizes: dict[str, list[os.stat_result]] = {kind: [] for kind in KINDS}
        for kind, _, status in self._found():
            sizes[kind].append(status)
        return {
            kind: Use(
                len(all_),
                sum(f.st_size for f in all_),
                min((f.st_mtime for f in all_), default=None),
            )
            for kind, all_ in sizes.items()
        }

    def prune(self, max_bytes: int) -> Use:
        """Remove the least recently used entries until the rest take at most `max_bytes`; return the removed use.

        Other processes may be running: what they have read stays valid, what they miss is computed again.
        Files that killed processes left incomplete are removed too.
        """
        entries = sorted(self._found(), key=lambda each: (each[2].st_mtime, each[1]))
        surplus = sum(status.st_size for _, _, status in entries) - max_bytes
        n_entries = n_bytes = 0
        for _, path, status in entries:
            if surplus - n_bytes <= 0:
                break
            path.unlink(missing_ok=True)
            n_entries, n_bytes = n_entries + 1, n_bytes + status.st_size
        for path in self.root.glob(f"*/??/{TEMPORARY}*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > LEFT_BEHIND_SECONDS:
                    path.unlink()
        return Use(n_entries, n_bytes, entries[0][2].st_mtime if n_entries else None)

    def _found(self) -> Iterator[tuple[str, Path, os.stat_result]]:
        for kind, path in self.entries():
            with contextlib.suppress(FileNotFoundError):  # another process has pruned it
                yield kind, path, path.stat()
