"""Decode process: answers requests from a socket one by one; started by `media.sandbox.process`.

python -P -m tristream.media.sandbox.worker SOCKET_FD PARENT_PID LIMITS_JSON [ALLOWED_JSON]
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tristream.media.limits import Limits
from tristream.media.sandbox import isolation

PROGRESS_SECONDS = 0.25  # between two progress messages


def main(arguments: list[str]) -> None:
    """Serve until the socket closes."""
    limits = Limits(**json.loads(arguments[2]))
    # what a live source needs
    allowed = json.loads(arguments[3]) if arguments[3:] else {}
    achieved = isolation.isolate(
        memory_bytes=limits.memory_bytes, parent=int(arguments[1]), **allowed
    )
    connection = socket.socket(fileno=int(arguments[0]))
    # Imported after isolation, and before the first request so that it is not slow.
    import av

    from tristream.media.chunks import decode_chunks
    from tristream.media.decode import decode_video
    from tristream.media.live.source import LiveSource, decode_live
    from tristream.media.probe import probe
    from tristream.media.sandbox import protocol

    def follow(_: Path, *, source: dict[str, Any], root: None, **options: Any) -> Any:
        return decode_live(
            LiveSource(**{**source, "protocols": tuple(source["protocols"])}), **options
        )

    streaming: dict[str, Callable[..., Any]] = {"stream": decode_chunks, "follow": follow}
    work: dict[str, Callable[..., Any]] = {"decode": decode_video, "probe": probe}
    protocol.send(connection, {"ready": achieved, "ffmpeg": str(av.ffmpeg_version_info)})
    with contextlib.suppress(protocol.Closed, BrokenPipeError, ConnectionResetError):
        while True:
            request = protocol.receive_header(connection)
            if request["work"] in streaming:
                header, arrays = _stream(streaming[request["work"]], request, limits, connection)
            else:
                header, arrays = _answer(work[request["work"]], request, limits, connection)
            protocol.send(connection, header, arrays)
            if header.get("rejected") == "out_of_memory":
                return  # memory is fragmented; the next file gets a new process


def _answer(
    work: Callable[..., Any], request: dict[str, Any], limits: Limits, connection: socket.socket
) -> tuple[dict[str, Any], dict[str, Any]]:
    from tristream.media.reasons import Rejected

    isolation.limit_cpu_seconds(request["cpu_seconds"])
    options = _options(request, limits)
    if request["work"] == "decode":
        options["on_progress"] = _reporter(connection)
    try:
        fields = asdict_shallow(work(_path(request["path"]), **options))
    except Rejected as error:
        return {"rejected": error.reason, "sentence": error.sentence}, {}
    except MemoryError:
        return {
            "rejected": "out_of_memory",
            "sentence": "needs more memory than one decode process may use",
        }, {}
    return _parts(fields)


def _stream(
    work: Callable[..., Any], request: dict[str, Any], limits: Limits, connection: socket.socket
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send piece after piece, each with processor time of its own; return the header that ends them."""
    from tristream.media.reasons import Rejected
    from tristream.media.sandbox import protocol

    options = {**_options(request, limits), "on_progress": _reporter(connection)}
    isolation.limit_cpu_seconds(request["cpu_seconds"])
    try:
        for piece in work(_path(request["path"]), **options):
            header, arrays = _parts(asdict_shallow(piece))
            protocol.send(connection, {"piece": header["found"]}, arrays)
            isolation.limit_cpu_seconds(request["cpu_seconds"])
    except Rejected as error:
        return {"rejected": error.reason, "sentence": error.sentence}, {}
    except MemoryError:
        return {
            "rejected": "out_of_memory",
            "sentence": "needs more memory than one decode process may use",
        }, {}
    return {"found": {}}, {}


def _options(request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    root = request["root"]
    return {**request["options"], "limits": limits, "root": None if root is None else _path(root)}


def _parts(fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a result into header and arrays of a message."""
    arrays = {name: value for name, value in fields.items() if hasattr(value, "dtype")}
    return {"found": {name: value for name, value in fields.items() if name not in arrays}}, arrays


def asdict_shallow(result: Any) -> dict[str, Any]:
    """Return the fields of a dataclass without copying arrays."""
    return {name: getattr(result, name) for name in result.__dataclass_fields__}


def _path(text: str) -> Path:
    return Path(os.fsdecode(text.encode("latin-1")))  # names are bytes, one character each in JSON


def _reporter(connection: socket.socket) -> Callable[[float], None]:
    from tristream.media.sandbox import protocol

    last = time.monotonic()

    def report(seconds: float) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            protocol.send(connection, {"at": seconds})

    return report


if __name__ == "__main__":
    main(sys.argv[1:])
