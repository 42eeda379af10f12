"""Learned estimator: a network from two frames to a flow field, its weights and its engine."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from tristream.errors import TristreamError

if TYPE_CHECKING:
    import torch

    # (network, example of its input) → what runs it on arrays of the example's shape.
    Compile = Callable[[torch.nn.Module, np.ndarray], Callable[[np.ndarray], np.ndarray]]

TOLERANCE_PX = 0.5


@dataclasses.dataclass(frozen=True)
class NetworkFlow:
    """Flow of a network, `batch_size` pairs of frames at a time.

    Attributes:
        name: of the architecture and its settings.
        identity: the name and the weights' sha256; the seed where they are random.
        make: builds the network.
        compile: another engine for the network, asked once for each size of pictures; None: torch, as it is.
        batch_size: of every batch; the last one is filled up. More than 1 gains nothing on a CPU.
    """

    name: str
    identity: str
    make: Callable[[], torch.nn.Module] = dataclasses.field(repr=False)
    compile: Compile | None = None
    batch_size: int = 1
    tolerance_px: float = TOLERANCE_PX
    _compiled: dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] = dataclasses.field(
        default_factory=dict, repr=False
    )
    _built: list[torch.nn.Module] = dataclasses.field(default_factory=list, repr=False)
    _lock: Any = dataclasses.field(default_factory=threading.Lock, repr=False)

    @property
    def network(self) -> torch.nn.Module:
        """Pairs (B, 2, H, W, 3) uint8 RGB → (B, 2, H, W) float32 px.

        Its `core` is the library's own network, which the weights are of. It is kept while torch runs it; another
        engine has the weights in a form of its own.
        """
        if not self._built:
            self._built.append(self.make())
        return self._built[0]

    def __call__(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float32[np.ndarray, "steps 2 H W"]:
        n_frames, height, width = frames.shape[:3]
        flow = np.empty((max(0, n_frames - 1), 2, height, width), np.float32)
        for first in range(0, n_frames - 1, self.batch_size):
            wanted = flow[first : first + self.batch_size]
            rows = np.minimum(np.arange(first, first + self.batch_size), n_frames - 2)
            pairs = np.stack([frames[rows], frames[rows + 1]], axis=1)  # (B, 2, H, W, 3)
            pairs = np.ascontiguousarray(pairs)  # the order of a view would change bits
            wanted[:] = self._engine(pairs)(pairs)[: len(wanted)]
        return flow

    def _engine(self, pairs: UInt8[np.ndarray, "B 2 H W 3"]) -> Callable[[np.ndarray], np.ndarray]:
        if self.compile is None:
            return self._run
        with self._lock:
            if pairs.shape not in self._compiled:
                self._compiled[pairs.shape] = self.compile(self.network, pairs)
                self._built.clear()  # FlowNet 2.0: 650 MB
            return self._compiled[pairs.shape]

    def _run(self, pairs: UInt8[np.ndarray, "B 2 H W 3"]) -> Float32[np.ndarray, "B 2 H W"]:
        import torch

        # One call at a time: torchvision's RAFT keeps its correlations on the module while it works.
        with self._lock, torch.inference_mode():
            return self.network(torch.from_numpy(pairs)).numpy()


def load(
    name: str,
    build: Callable[[], torch.nn.Module],
    *,
    weights: Path | int | None,
    compile: Compile | None = None,
    batch_size: int = 1,
) -> NetworkFlow:
    """Return the estimator of an architecture and its weights.

    Args:
        name: of the architecture.
        build: makes the network with random weights.
        weights: a safetensors file in the network's own layout, or the seed of random weights.
        compile, batch_size: see `NetworkFlow`.

    Raises:
        TristreamError: no weights, or a file that does not fit the network.
    """
    import torch

    if weights is None:
        raise TristreamError(
            f"flow estimator '{name}' has no weights; it needs a safetensors file of them, or a seed for random ones"
        )

    def make() -> tuple[torch.nn.Module, str]:
        if isinstance(weights, int):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(weights)
                network, what = build(), f"random weights {weights}"
        else:
            network = build()
            what = _load_weights(name, network, weights)
        return network.eval().requires_grad_(False), f"{name} {what}"

    network, identity = make()  # now: what does not fit is said before any work
    return NetworkFlow(name, identity, lambda: make()[0], compile, batch_size, _built=[network])


def _load_weights(name: str, network: torch.nn.Module, path: Path) -> str:
    """Load the weights of the core; return the file's sha256."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = path.read_bytes()
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise TristreamError(f"{path} is not a safetensors file ({error})") from error
    core: torch.nn.Module = network.core  # type: ignore[assignment]
    wanted = core.state_dict()
    missing, unknown = (
        sorted(wanted.keys() - tensors.keys()),
        sorted(tensors.keys() - wanted.keys()),
    )
    misfits = sorted(
        key for key in wanted.keys() & tensors.keys() if wanted[key].shape != tensors[key].shape
    )
    problems = {
        "lacks": missing,
        "has, unknown to the network,": unknown,
        "has in another shape": misfits,
    }
    for what, keys in problems.items():
        if keys:
            raise TristreamError(
                f"{path} does not fit '{name}': it {what} {len(keys)} tensors (first: {keys[0]})"
            )
    core.load_state_dict(tensors)
    return hashlib.sha256(data).hexdigest()
