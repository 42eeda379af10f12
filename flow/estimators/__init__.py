"""Optical flow estimators: pictures in, displacements in px out. One file per method; this folder is the list.

A file of this folder offers `NAMES`, the estimators in it, and `build(name)`. Asking for the names imports no heavy
library; those are imported when they are used.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8


@runtime_checkable
class FlowEstimator(Protocol):
    """What `load` returns.

    Called with RGB pictures it gives the displacement of every pixel from each picture to the next: px at the size of
    the pictures, x (to the right) then y (down). One picture gives (0, 2, H, W). It may be called from several threads
    at once, and the result depends on nothing but the pictures.
    """

    @property
    def name(self) -> str:
        """Identifies the method and all its settings: part of cache keys."""

    @property
    def tolerance_px(self) -> float:
        """How far the mean flow of a planted translation of textured pictures may be off, per axis."""

    def __call__(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float32[np.ndarray, "steps 2 H W"]: ...


def names() -> list[str]:
    """Every estimator there is, sorted."""
    return sorted(name for module in _modules() for name in module.NAMES)


def load(name: str) -> FlowEstimator:
    """The estimator of this name.

    Raises:
        ValueError: an unknown name.
    """
    for module in _modules():
        if name in module.NAMES:
            return module.build(name)
    raise ValueError(f"unknown flow estimator {name!r}; available: {', '.join(names())}")


def _modules() -> list[ModuleType]:
    return [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
