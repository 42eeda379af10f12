"""Default folders, and expansion of `~`."""

from __future__ import annotations

import os
from pathlib import Path

from tristream.errors import UsageError

RUN = Path("runs/default")
CACHE = Path("cache")


def expanded(path: str | Path) -> Path:
    """Return the path with `~` and `~user` expanded.

    Raises:
        UsageError: HOME is not set, or there is no such user.
    """
    path = Path(path)
    first = path.parts[0] if path.parts else ""
    if first == "~" and os.name == "posix" and not os.environ.get("HOME"):
        raise UsageError(
            f"{path}: the home folder is not known (HOME is not set); give a full path"
        )
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{path}: the home folder of {first} is not known; give a full path"
        ) from error
