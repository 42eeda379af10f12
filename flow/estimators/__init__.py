"""Optical flow estimators: frames in, displacements in px out. One file per method; this folder is the list.

A file of this folder offers `NAMES`, the estimators in it, and either `build(name)`, which returns one, or
`network(name)` for a learned one, which returns its network (see `flow.network`). Listing the names imports no heavy
library; libraries are imported when they are used.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from tristream.errors import TristreamError

if TYPE_CHECKING:
    from tristream.flow.network import Compile

PTLFLOW = "ptlflow:"  # before the name of one of its networks that is not listed here, or that another library has too


@runtime_checkable
class FlowEstimator(Protocol):
    """A flow estimator, as returned by `load`.

    Called with RGB frames it returns the displacement of every pixel from each frame to the next: px at the size of
    the frames, x (to the right) then y (down). One frame returns (0, 2, H, W). It is thread-safe, and the result
    depends on the frames alone.
    """

    @property
    def name(self) -> str:
        """The method and all its settings."""

    @property
    def identity(self) -> str:
        """Name and weights (their sha256), which determine the result; part of cache keys."""

    @property
    def tolerance_px(self) -> float:
        """Return the tolerance in px, per axis, of the mean flow of a planted translation.

        Of a learned estimator: with trained weights.
        """

    def __call__(
        self, frames: UInt8[np.ndarray, "T H W 3"]
    ) -> Float32[np.ndarray, "steps 2 H W"]: ...


def names() -> list[str]:
    """Return the names of all estimators, sorted; "ptlflow:NAME" is any other network of ptlflow."""
    return sorted(name for module in _modules() for name in module.NAMES)


def is_learned(name: str) -> bool:
    """True if `load` needs weights for this estimator.

    Raises:
        TristreamError: an unknown name.
    """
    return hasattr(_module(name), "network")


def weights_name(name: str) -> str:
    """Return the name of a learned estimator's published weights: its library's name of the network."""
    canonical = getattr(_module(name), "ALIASES", {}).get(name, name)
    return canonical.removeprefix(PTLFLOW)


def load(
    name: str,
    *,
    weights: Path | int | None = None,
    compile: Compile | None = None,
    batch_size: int = 1,
) -> FlowEstimator:
    """Return the estimator of this name.

    Args:
        name: one of `names()`, or "ptlflow:" and a name of ptlflow.
        weights: of a learned one: a safetensors file in its library's own layout, or the seed of random ones.
        compile: (network, example pairs) → what runs it, another engine than torch; of a learned one.
        batch_size: pairs that a learned one gets at once.

    Raises:
        TristreamError: an unknown name, missing or superfluous weights, or weights that do not fit.
    """
    module = _module(name)
    if hasattr(module, "network"):
        from tristream.flow import network

        canonical = getattr(module, "ALIASES", {}).get(name, name)
        build = canonical.removeprefix(PTLFLOW)
        return network.load(
            canonical,
            lambda: module.network(build),
            weights=weights,
            compile=compile,
            batch_size=batch_size,
        )
    if weights is not None:
        raise TristreamError(
            f"flow estimator '{name}' learned nothing; it takes no weights, and {weights} were given"
        )
    return module.build(name)


def _module(name: str) -> ModuleType:
    if name.startswith(PTLFLOW):
        return importlib.import_module(f"{__name__}.flownet")
    for module in _modules():
        if name in module.NAMES:
            return module
    raise TristreamError(
        f"unknown flow estimator {name!r}; available: {', '.join(names())}, and with the extra 'flow' "
        f"any network of ptlflow as '{PTLFLOW}NAME'"
    )


def _modules() -> list[ModuleType]:
    return [
        importlib.import_module(f"{__name__}.{info.name}")
        for info in pkgutil.iter_modules(__path__)
    ]
