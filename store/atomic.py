"""Atomic writes: a file is complete or absent."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

TEMPORARY = ".tmp-"  # names that begin so are no files yet, or what a crash has left of one


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` if the block succeeds and leaves no trace if it fails.

    The bytes are synced to disk before the rename: a reader sees the old file or the new one, never half of
    either, whatever moment the process is killed at. Where the file system can, they have no name at all until then, so
    that a killed process leaves nothing behind; elsewhere it leaves a file that begins with `TEMPORARY`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _nameless(path.parent) or _named(path.parent)
    name = None if isinstance(handle.name, int) else handle.name
    try:
        with handle:
            yield handle
            handle.flush()
            os.fchmod(
                handle.fileno(), 0o644
            )  # tempfile makes 0600; what is shared must be readable
            os.fsync(handle.fileno())
            name = name or _give_name(handle, path.parent)
        os.replace(name, path)  # noqa: PTH105
    except BaseException:
        if name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)  # noqa: PTH108
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, completely or not at all."""
    with replace_file(path) as handle:
        handle.write(data)


def _nameless(folder: Path) -> IO[bytes] | None:
    """Return an unnamed open file on the file system of `folder`; None if it does not support them."""
    if not (hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").exists()):
        return None
    try:
        return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b")
    except OSError:  # the other way says what is wrong, or works
        return None


def _named(folder: Path) -> IO[bytes]:
    return tempfile.NamedTemporaryFile(dir=folder, prefix=TEMPORARY, delete=False)  # type: ignore[return-value]


def _give_name(handle: IO[bytes], folder: Path) -> str:
    """Link an unnamed file under a new name, because a link replaces nothing."""
    name = str(folder / f"{TEMPORARY}{secrets.token_hex(8)}")
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:  # with a folder given, Python follows the link in /proc to the file itself
        os.link(f"/proc/self/fd/{handle.fileno()}", name, src_dir_fd=here, follow_symlinks=True)
    finally:
        os.close(here)
    return name
