"""Default folders, and paths as people type them."""

from __future__ import annotations

from pathlib import Path

from tristream.errors import UsageError

RUN = Path("runs/default")
CACHE = Path("cache")


def expanded(path: str | Path) -> Path:
    """Return the path with `~` and `~user` expanded.

    Raises:
        UsageError: the home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: the home folder is not known; give a full path") from error
