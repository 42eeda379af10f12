"""Messages to and from a decode process: a JSON header, then the bytes of arrays; reading them runs no code.

    4 bytes length · JSON header · array bytes, one array after the other, as "arrays" in the header lists them

Messages of a decode process are as untrusted as the file it read: sizes are checked before allocation, and types come
from a short list.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from tristream.media import paged

_LENGTH = struct.Struct(">I")
_MAX_HEADER_BYTES = 1 << 20
_DTYPES = {"uint8": np.uint8, "bool": np.bool_, "float32": np.float32, "float64": np.float64}


class Closed(ConnectionError):
    """The other side has closed, or sent an invalid message."""


def send(
    to: socket.socket, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
) -> None:
    """Send one message."""
    arrays = arrays or {}
    listed = [[name, array.dtype.name, array.shape] for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": listed}).encode()
    to.sendall(_LENGTH.pack(len(text)) + text)
    for array in arrays.values():
        if array.size:
            to.sendall(np.ascontiguousarray(array).data.cast("B"))


def receive_header(source: socket.socket, *, deadline: float | None = None) -> dict[str, Any]:
    """Return the header of the next message.

    Raises:
        Closed: no more messages, or an invalid one.
        TimeoutError: `deadline` (time.monotonic) has passed.
    """
    length = _LENGTH.unpack(_receive_exactly(source, bytearray(_LENGTH.size), deadline))[0]
    if length > _MAX_HEADER_BYTES:
        raise Closed(f"header of {length} bytes; at most {_MAX_HEADER_BYTES}")
    try:
        header = json.loads(bytes(_receive_exactly(source, bytearray(length), deadline)))
    except ValueError as error:
        raise Closed("header is not JSON") from error
    if not isinstance(header, dict):
        raise Closed("header is not a JSON object")
    return header


def receive_arrays(
    source: socket.socket,
    header: Mapping[str, Any],
    *,
    max_bytes: int,
    deadline: float | None = None,
) -> dict[str, np.ndarray]:
    """Return the arrays that follow `header`.

    Raises:
        Closed: more than `max_bytes`, or invalid shapes or types.
        TimeoutError: `deadline` has passed.
    """
    arrays = {}
    for name, dtype, shape in header.get("arrays", []):
        if dtype not in _DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise Closed(f"array {name!r} of type {dtype!r} and shape {shape!r}")
        max_bytes -= math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        if max_bytes < 0:
            raise Closed(f"array {name!r} of shape {shape} is larger than allowed")
        array = paged.empty(
            tuple(shape), _DTYPES[dtype]
        )  # frames of a long video do not stay in memory
        if array.size:
            _receive_exactly(source, array.data.cast("B"), deadline)
            paged.release(array)
        arrays[name] = array
    return arrays


def _receive_exactly(
    source: socket.socket, into: bytearray | memoryview, deadline: float | None
) -> bytearray | memoryview:
    view = memoryview(into)
    while len(view):
        source.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
        n = source.recv_into(view)
        if not n:
            raise Closed("the other side has closed")
        view = view[n:]
    return into
