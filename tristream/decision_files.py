"""Artifacts of `fuse` in RUN/fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tristream.errors import UsageError


def load_decision(path: Path, run: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and configuration of an artifact of `fuse`.

    Raises:
        UsageError: it does not exist yet.
    """
    from tristream.store.checkpoint import load_artifact

    if not path.with_name(f"{path.name}.json").exists():
        raise UsageError(f"{path}.json does not exist; make it first: tristream fuse --run {run}")
    return load_artifact(path)
