"""Uploads on disk while they are worked on: private, limited, and gone afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request

from tristream.errors import UsageError

_LOCK = "in-use"


class Spool:
    """Folder of uploads, of mode 0700, for one process.

    Args:
        folder: emptied now; None: a new one, removed at the end.
        max_bytes: of one upload.
        total_bytes: of all uploads at once.

    Raises:
        UsageError: another process uses the folder, or it holds files of somebody else.
    """

    def __init__(self, folder: Path | None, *, max_bytes: int, total_bytes: int) -> None:
        self._is_ours = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="tristream-")) if folder is None else folder
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._lock = (self.folder / _LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"{self.folder} is the spool of another process that runs; give each its own"
            ) from error
        for left in self.folder.iterdir():
            if left.name.startswith("upload-"):
                left.unlink()
            elif left.name != _LOCK:
                raise UsageError(
                    f"{self.folder} holds {left.name}, which is no upload; give an empty folder"
                )
        self._max_bytes, self._total_bytes = max_bytes, total_bytes
        self._used = 0

    @contextlib.asynccontextmanager
    async def upload(self, request: Request) -> AsyncIterator[Path]:
        """Receive the body of a request, raw or the file of a form; the file lives as long as the block.

        Raises:
            HTTPException: 413 above the limit of one, 503 above that of all, 400 without a file.
        """
        declared = request.headers.get("content-length")
        if declared is not None and (
            not declared.isdigit() or int(declared) > self._max_bytes + 65536
        ):
            raise HTTPException(413, f"the upload is larger than {self._max_bytes} bytes")
        path = self.folder / f"upload-{secrets.token_hex(16)}"
        size = 0
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                async for data in _file_bytes(request):
                    size += len(data)
                    self._used += len(data)
                    if size > self._max_bytes:
                        raise HTTPException(
                            413, f"the upload is larger than {self._max_bytes} bytes"
                        )
                    if self._used > self._total_bytes:
                        raise HTTPException(503, "too many uploads at once; try again later")
                    try:
                        file.write(data)
                    except OSError as error:
                        raise HTTPException(
                            503, f"the upload cannot be stored ({error.strerror})"
                        ) from error
            if size == 0:
                raise HTTPException(400, "the request has no file: send its bytes as the body")
            yield path
        finally:
            self._used -= size
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove what is left."""
        self._lock.close()
        if self._is_ours:
            shutil.rmtree(self.folder, ignore_errors=True)


async def _file_bytes(request: Request) -> AsyncIterator[bytes]:
    """Yield the bytes of a body, or of the first file in a multipart form."""
    kind = request.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        async for data in request.stream():
            yield data
        return
    from python_multipart.multipart import MultipartParser, parse_options_header

    boundary = parse_options_header(kind)[1].get(b"boundary")
    if not boundary:
        raise HTTPException(400, "the form has no boundary")
    part = _FirstFile()
    parser = MultipartParser(boundary, part.callbacks())  # type: ignore[arg-type]
    try:
        async for data in request.stream():
            parser.write(data)
            yield part.take()
        parser.finalize()
    except ValueError as error:
        raise HTTPException(400, f"the form cannot be read ({error})") from error
    yield part.take()


class _FirstFile:
    """Bytes of the first part of a form that has a file name."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._header = bytearray()
        self._state = "before"  # before, inside or after the file
        self._is_file = False

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_value": self._value,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def take(self) -> bytes:
        data = bytes(self._bytes)
        self._bytes.clear()
        return data

    def _begin(self) -> None:
        self._header.clear()

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _headers(self) -> None:
        if self._state == "before" and b"filename" in self._header:
            self._state = "inside"

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._state == "inside":
            self._bytes += data[start:end]

    def _end(self) -> None:
        if self._state == "inside":
            self._state = "after"
