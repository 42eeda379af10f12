"""Results that need not be computed twice: content-addressed, checksummed, atomic, safe under several processes."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from store.atomic import write_bytes
from store.lineage import digest

KINDS = ("plan", "motion", "flow", "segments")


class Cache:
    """A folder of entries `kind/<2 hex>/<key>`, each one safetensors file that carries its own sha256.

    Every file in the folder is an entry; there are no lock or side files. Two processes that miss the same entry both
    compute it and write the same bytes; the later rename wins.

    Args:
        root: the folder; made when the first entry is written.
        report: called with one sentence when an entry is found corrupt (it is removed, and recomputed by the caller).
    """

    def __init__(self, root: Path, *, report: Callable[[str], None] | None = None) -> None:
        self.root = root
        self._report = report or (lambda sentence: None)
        self._verified: set[Path] = set()

    def key(self, **what: Any) -> str:
        """The key of what went in: sha256 of the canonical JSON of the arguments."""
        return digest(what)

    def path(self, kind: str, key: str) -> Path:
        """Where the entry stands or would stand."""
        if kind not in KINDS:
            raise ValueError(f"unknown cache kind '{kind}'; available: {', '.join(KINDS)}")
        return self.root / kind / key[:2] / key

    def get(self, kind: str, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of an entry, or None where there is none or it was corrupt (then it is gone now)."""
        path = self.path(kind, key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        arrays = _unpack(data, verify=path not in self._verified)
        if arrays is None:
            self._report(f"cache entry is corrupt, removed and recomputed: {path}")
            path.unlink(missing_ok=True)
            return None
        self._verified.add(path)
        return arrays

    def put(self, kind: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes an entry, whole or not at all."""
        write_bytes(self.path(kind, key), _pack(arrays))

    def entries(self) -> Iterator[tuple[str, Path]]:
        """Every entry as (kind, path)."""
        for kind in KINDS:
            for path in sorted((self.root / kind).glob("??/*")):
                if not path.name.startswith(".tmp-"):
                    yield kind, path


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, dtypes, shapes and bytes: a flipped bit anywhere, header included, is seen."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        sha.update(np.ascontiguousarray(array).data if array.size else b"")
    return sha.hexdigest()


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(arrays, metadata={"sha256": _checksum(arrays)})


def _unpack(data: bytes, *, verify: bool) -> dict[str, np.ndarray] | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        (n_header,) = struct.unpack("<Q", data[:8])
        expected = json.loads(data[8 : 8 + n_header])["__metadata__"]["sha256"]
    except (SafetensorError, ValueError, KeyError, TypeError, struct.error):
        return None
    return arrays if not verify or _checksum(arrays) == expected else None
