"""Bytes of a growing file or a pipe as FFmpeg reads them: never sought, and waited for."""

from __future__ import annotations

import os
import time
from pathlib import Path

_POLL_SECONDS = 0.05
_MAX_BOXES = 1000
# Annex B start codes of H.264 and H.265, and the start of a JPEG.
_BARE = (b"\x00\x00\x00\x01", b"\x00\x00\x01", b"\xff\xd8\xff")
_PROGRAM_STREAM = b"\x00\x00\x01\xba"  # a container, and it begins like a start code


class Arriving:
    """File object of a source that may not be complete.

    A file that shrinks or is replaced has ended: whoever follows it opens it again.

    Args:
        fd: open file descriptor; closed by `close`.
        growing: path of a regular file whose end is waited for; None for a pipe.
    """

    def __init__(self, fd: int, *, growing: str | None) -> None:
        self._fd = fd
        self._growing = growing
        self._boxes = BoxWatch()
        self._ahead = b""

    @property
    def index_is_late(self) -> bool:
        """True if this is an MP4 whose index comes after its frames: nothing more is read."""
        return self._boxes.index_is_late

    def is_bare(self) -> bool:
        """True if the first bytes are those of a video without a container, and so without time stamps."""
        while len(self._ahead) < 4 and (data := self._read(4 - len(self._ahead))):
            self._ahead += data
        return self._ahead.startswith(_BARE) and self._ahead != _PROGRAM_STREAM

    def read(self, n: int) -> bytes:
        """Return the next bytes; b"" at the end."""
        ahead, self._ahead = self._ahead[:n], self._ahead[n:]
        data = ahead or self._read(n)
        self._boxes.add(data)
        return b"" if self.index_is_late else data

    def close(self) -> None:
        """Close the descriptor; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self, n: int) -> bytes:
        while True:
            data = os.read(self._fd, n)
            if data or self._growing is None or self._was_replaced(self._growing):
                return data
            time.sleep(_POLL_SECONDS)

    def _was_replaced(self, path: str) -> bool:
        ours = os.fstat(self._fd)
        try:
            current = Path(path).stat()
        except OSError:
            return True
        position = os.lseek(self._fd, 0, os.SEEK_CUR)
        same = (current.st_ino, current.st_dev) == (ours.st_ino, ours.st_dev)
        return not same or current.st_size < position


class BoxWatch:
    """Top-level boxes of an MP4 that arrives in pieces, up to its index (`moov`) or its frames (`mdat`)."""

    def __init__(self) -> None:
        self.index_is_late = False
        self._header = b""
        self._skip = 0
        self._n_boxes = 0
        self._done = False

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        while data and not self._done:
            if self._skip:
                skipped = min(self._skip, len(data))
                self._skip -= skipped
                data = data[skipped:]
                continue
            missing = self._header_bytes() - len(self._header)
            self._header += data[:missing]
            data = data[missing:]
            if len(self._header) == self._header_bytes():
                self._box()

    def _header_bytes(self) -> int:
        return 16 if self._header[:4] == b"\x00\x00\x00\x01" else 8  # 1: a 64-bit size follows

    def _box(self) -> None:
        kind, n_header = self._header[4:8], len(self._header)
        size = int.from_bytes(self._header[8:16] or self._header[:4], "big")
        if self._n_boxes == 0 and kind != b"ftyp":
            self._done = True
        elif kind in (b"moov", b"moof", b"mdat"):
            self._done = True
            self.index_is_late = kind == b"mdat"
        elif size < n_header or self._n_boxes >= _MAX_BOXES:
            self._done = True
        self._skip = max(0, size - n_header)
        self._header = b""
        self._n_boxes += 1
