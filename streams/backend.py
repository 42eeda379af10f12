"""Protocols of inference backends: a network whose weights are fixed, and the engine that runs it.

torch in float32 is the reference. Every engine computes a row that depends neither on its mates in the batch nor on
what else is in flight, and returns the same bits at every call.
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
    """A network that is ready to run on batches of the size it was made for.

    Attributes:
        busy_seconds: spent computing so far, summed over the batches, of which several may run at once.
    """

    busy_seconds: float

    def submit(self, *inputs: np.ndarray) -> Future[np.ndarray]:
        """Starts a batch; waits only while as many are under way as the engine can use.

        The inputs must not be changed before the result is there.
        """


@runtime_checkable
class Backend(Protocol):
    """An engine on a device.

    Attributes:
        name: as in `--backend`.
        device: where tensors that do not go through the engine belong.
    """

    name: str
    device: torch.device

    def identity(self) -> dict[str, Any]:
        """What decides the bits of a result beside the weights: part of cache keys."""

    def batch_size(self, configured: int) -> int:
        """The one number of rows of every batch, where the configuration says `configured`."""

    def compile(
        self, module: nn.Module, *example: np.ndarray, precision: Precision = "float32"
    ) -> Network:
        """A network that computes `module`'s forward of inputs shaped and typed as the example.

        Args:
            module: in eval mode; its weights must not change any more.
            example: real input: what an engine converts is compared with torch on it.
            precision: of the arithmetic inside; what comes out is float32.

        Raises:
            TristreamError: this machine has no such precision.
        """


class Embedding(nn.Module):
    """An encoder as a network: segments in, segment embeddings out."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, segments: torch.Tensor) -> torch.Tensor:
        embed: Callable[[torch.Tensor], torch.Tensor] = self.encoder.embed  # type: ignore[assignment]
        return embed(segments)


class Kept:
    """A backend that prepares a network once, however often it is asked; for several runs over the same weights."""

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
        if (
            known is None or known[0]() is not part
        ):  # a module that is gone may leave its id to another
            known = weakref.ref(part), self._backend.compile(module, *example, precision=precision)
            self._networks[key] = known
        return known[1]


def as_function(
    backend: Backend,
) -> Callable[[nn.Module, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """What `flow.estimators.load` takes as `compile`: flow networks on this engine.

    What it makes may be called from several threads at once; each waits for its own result.
    """

    def compile_flow(module: nn.Module, example: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        network = backend.compile(module, example)
        return lambda pairs: network.submit(pairs).result()

    return compile_flow
