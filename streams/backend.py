"""Protocols of inference backends: a network whose weights are fixed, and the engine that runs it.

torch in float32 is the reference. A row depends neither on the other rows of its batch nor on concurrent batches, and
has the same bits at every call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

Precision = Literal["float32", "bf16"]
CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")


@runtime_checkable
class Network(Protocol):
    """Network that is ready to run on batches of the size it was compiled for.

    Attributes:
        busy_seconds: seconds of computing so far, summed over batches, several of which may run at once.
    """

    busy_seconds: float

    def submit(self, *inputs: np.ndarray) -> Future[np.ndarray]:
        """Start a batch; wait only while the engine is fully used.

        The inputs must not be changed before the result is available.
        """


@runtime_checkable
class Backend(Protocol):
    """Engine on a device.

    Attributes:
        name: as in `--backend`.
        device: of tensors that do not pass through the engine.
    """

    name: str
    device: torch.device

    def identity(self) -> dict[str, Any]:
        """Return everything but the weights that determines the bits of a result: part of cache keys."""

    def batch_size(self, configured: int) -> int:
        """Return the number of rows of every batch, given the configured one."""

    def compile(
        self, module: nn.Module, *example: np.ndarray, precision: Precision = "float32"
    ) -> Network:
        """Return a network that computes `module`'s forward on inputs shaped and typed as the example.

        Args:
            module: in eval mode; its weights must not change afterwards.
            example: real input, on which a converted network is compared with torch.
            precision: of the arithmetic inside; the result is float32.

        Raises:
            TristreamError: the machine does not support the precision.
        """


class Embedding(nn.Module):
    """Encoder as a module whose forward returns segment embeddings."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, segments: torch.Tensor) -> torch.Tensor:
        embed: Callable[[torch.Tensor], torch.Tensor] = self.encoder.embed  # type: ignore[assignment]
        return embed(segments)


class Kept:
    """Backend that compiles each network once; for several runs over the same weights."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._networks: dict[tuple[Any, ...], tuple[weakref.ref[nn.Module], Network]] = {}
        self.name, self.device = backend.name, backend.device

    def identity(self) -> dict[str, Any]:
        return self._backend.identity()

    def batch_size(self, configured: int) -> int:
        return self._backend.batch_size(configured)

    def compile(
        self, module: nn.Module, *example: np.ndarray, precision: Precision = "float32"
    ) -> Network:
        part = module.encoder if isinstance(module, Embedding) else module
        key = (id(part), precision, *((array.dtype, array.shape) for array in example))
        known = self._networks.get(key)
        # the id of a collected module may be reused by another
        if known is None or known[0]() is not part:
            known = weakref.ref(part), self._backend.compile(module, *example, precision=precision)
            self._networks[key] = known
        return known[1]


def as_function(
    backend: Backend,
) -> Callable[[nn.Module, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Return the `compile` argument of `flow.estimators.load`: it runs flow networks on this engine.

    The compiled functions may be called from several threads at once; each waits for its own result.
    """

    def compile_flow(module: nn.Module, example: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        network = backend.compile(module, example)
        return lambda pairs: network.submit(pairs).result()

    return compile_flow
