"""Origin of a result: canonical hashes, library versions, identity of an embedding space."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

LIBRARIES = (
    "tristream",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scikit-learn",
    "opencv-python",
    "av",
    "safetensors",
)
OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
        allow_nan=False,
        default=str,
    )


def digest(value: Any) -> str:
    """sha256 (hex, 64 digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def space_id(definition: Mapping[str, Any]) -> str:
    """Sixteen hex digits that name an embedding space.

    Args:
        definition: what makes two embeddings comparable and nothing else: stream, sampler and preprocessing
            parameters, sha256 of the weights, precision, schema numbers. Library versions and threads do not belong
            here; they stand in `versions` and in the cache key.
    """
    return digest(definition)[:16]


def versions() -> dict[str, str]:
    """Return the versions of Python and of every library whose arithmetic can affect a result."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        versions[name] = version_of(name) or "absent"
    return versions


def version_of(name: str) -> str | None:
    """Return the version of an installed package; None if it is missing. OpenCV has four package names."""
    for package in OPENCVS if name in OPENCVS else (name,):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return None
