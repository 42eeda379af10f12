"""Bytes of one cache entry: a safetensors file with a sha256 of its content, read without a copy."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from tristream.errors import TristreamError

_NAMES = {"BOOL": "bool", "U": "uint", "I": "int", "F": "float"}
_DTYPES = {
    name: np.dtype(_NAMES[name.rstrip("0123456789")] + name.lstrip("ABLOUIF"))
    for name in ("BOOL", "U8", "I8", "U16", "I16", "F16", "U32", "I32", "F32", "U64", "I64", "F64")
}
_LENGTH = struct.Struct("<Q")


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the arrays as a safetensors file whose metadata holds their sha256."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(arrays, metadata={"sha256": checksum(arrays)})


def unpack(data: bytearray | mmap.mmap, *, verify: bool) -> dict[str, np.ndarray] | None:
    """Return the arrays in `data` as views; None if `pack` did not write it."""
    try:
        (n_header,) = _LENGTH.unpack_from(data)
        start = _LENGTH.size + n_header
        header = json.loads(data[_LENGTH.size : start].decode())
        expected = header.pop("__metadata__")["sha256"]
        arrays = {name: _view(data, start, **layout) for name, layout in header.items()}
        spans = sorted(tuple(layout["data_offsets"]) for layout in header.values())
        # every byte belongs to one array
        ends = [0, *(stop for _, stop in spans)]
        if [first for first, _ in spans] != ends[:-1] or start + ends[-1] != len(data):
            return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        return None
    return arrays if not verify or checksum(arrays) == expected else None


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes: it detects any flipped bit."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        sha.update(np.ascontiguousarray(array).data if array.size else b"")
    return sha.hexdigest()


def _view(
    data: bytearray | mmap.mmap, start: int, *, dtype: str, shape: Any, data_offsets: Any
) -> np.ndarray:
    first, stop = data_offsets
    kind, n = _DTYPES[dtype], math.prod(shape)
    if stop - first != n * kind.itemsize or not all(
        isinstance(size, int) and size >= 0 for size in shape
    ):
        raise TristreamError("shape and bytes disagree")
    if n == 0:
        return np.empty(shape, kind)
    return np.frombuffer(data, kind, n, start + first).reshape(shape)
