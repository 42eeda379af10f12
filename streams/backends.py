"""Engines that run a network whose weights are fixed: torch on any device, OpenVINO on CPUs.

torch in float32 is the reference. Every engine gives a row that depends neither on its mates in the batch nor on what
else is in flight, and the same bits at every call.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from store.cache import Cache

Precision = Literal["float32", "bf16"]
BACKENDS = ("auto", "torch", "torch-compiled", "openvino")
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

    def compile(self, module: nn.Module, *example: np.ndarray, precision: Precision = "float32") -> Network:
        """A network that computes `module`'s forward of inputs shaped and typed as the example.

        Args:
            module: in eval mode; its weights must not change any more.
            example: real input: what an engine converts is compared with torch on it.
            precision: of the arithmetic inside; what comes out is float32.

        Raises:
            ValueError: this machine has no such precision.
        """


class Embedding(nn.Module):
    """An encoder as a network: segments in, segment embeddings out."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, segments: torch.Tensor) -> torch.Tensor:
        embed: Callable[[torch.Tensor], torch.Tensor] = self.encoder.embed  # type: ignore[assignment]
        return embed(segments)


def choose(name: str = "auto", *, device: torch.device, cache: Cache | None = None) -> Backend:
    """The engine called `name`; "auto" is OpenVINO on a CPU where it is installed, else torch.

    Args:
        device: where to run.
        cache: of converted networks; None: they are converted anew in every process.

    Raises:
        ValueError: an unknown engine, OpenVINO that is not installed, or on another device than a CPU.
    """
    if name not in BACKENDS:
        raise ValueError(f"unknown backend '{name}'; available: {', '.join(BACKENDS)}")
    is_installed = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        name = "openvino" if device.type == "cpu" and is_installed else "torch"
    if name != "openvino":
        return TorchBackend(device, is_compiled=name == "torch-compiled")
    if not is_installed:
        raise ValueError("--backend openvino needs OpenVINO: pip install 'tristream[fast]', or take --backend torch")
    if device.type != "cpu":
        raise ValueError(f"--backend openvino runs on the CPU, not on {device}; take --backend torch or --device cpu")
    from streams.openvino_engine import OpenVinoBackend

    return OpenVinoBackend(cache=cache)


class TorchBackend:
    """torch itself, eager or compiled (never frozen: inductor's freezing is wrong on InceptionResNetV2 by 13 %).

    bf16 is torch's autocast: convolutions and products in bf16, the rest in float32. See `full_float32` for GPUs.

    Args:
        device: where to run.
        is_compiled: through torch.compile; takes a minute and a C++ compiler for each network.
    """

    def __init__(self, device: torch.device, *, is_compiled: bool = False) -> None:
        self.name = "torch-compiled" if is_compiled else "torch"
        self.device = device
        self._is_compiled = is_compiled
        full_float32(device)
        if device.type == "cuda":
            torch.backends.cudnn.deterministic = True  # FlowNet's transposed convolutions are not, by default
        # One thread for all networks: they run one after the other, while the caller makes the next batch. A GPU has
        # two, each with a queue of its own: one batch is sent while the other is computed.
        self._n_threads = 2 if device.type == "cuda" else 1
        self._threads = ThreadPoolExecutor(
            self._n_threads, thread_name_prefix="torch", initializer=_take_own_queue, initargs=(device,)
        )

    def identity(self) -> dict[str, Any]:
        # On a CPU the bits follow from how the rows are shared among threads; on a GPU from its model.
        threads = torch.get_num_threads() if self.device.type == "cpu" else 0
        return {"backend": f"{self.name}-{_model_of(self.device)}", "n_threads": threads}

    def batch_size(self, configured: int) -> int:
        return configured

    def compile(self, module: nn.Module, *example: np.ndarray, precision: Precision = "float32") -> Network:
        network = module.to(self.device).eval().to(memory_format=torch.channels_last)  # half the time on a CPU
        forward: Callable[..., torch.Tensor] = network
        if self._is_compiled:
            forward = torch.compile(network, dynamic=False)  # type: ignore[assignment]
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # the weights are there before another queue reads them
        return TorchNetwork(forward, self.device, precision, self._threads, n_at_once=self._n_threads)


class TorchNetwork:
    """Runs batches in `threads`, while the caller makes the next one."""

    def __init__(
        self,
        forward: Callable[..., torch.Tensor],
        device: torch.device,
        precision: Precision,
        threads: ThreadPoolExecutor,
        *,
        n_at_once: int,
    ) -> None:
        self._forward = forward
        self._device = device
        self._precision = precision
        self._threads = threads
        self._room = threading.BoundedSemaphore(n_at_once + 1)  # those that run, and one that waits
        self._lock = threading.Lock()
        self.busy_seconds = 0.0

    def submit(self, *inputs: np.ndarray) -> Future[np.ndarray]:
        self._room.acquire()
        try:
            future = self._threads.submit(self._run, *inputs)
        except RuntimeError:  # the interpreter ends: who waits for room must not wait for ever
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _run(self, *inputs: np.ndarray) -> np.ndarray:
        begun = time.perf_counter()
        with torch.inference_mode(), autocast(self._device, self._precision):
            tensors = [to_device(torch.from_numpy(array), self._device) for array in inputs]
            with self._lock:  # torchvision's RAFT keeps its correlations on the module while it works
                rows = self._forward(*tensors)
            found = rows.float().cpu().numpy()
        with self._lock:
            self.busy_seconds += time.perf_counter() - begun
        return found


def _take_own_queue(device: torch.device) -> None:
    """What this thread starts on a GPU waits for nothing but what it started before."""
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on `device`; to a GPU by way of pinned memory, from where it takes it while the caller goes on."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def full_float32(device: torch.device) -> None:
    """Makes float32 on a GPU mean float32: by default cuDNN rounds what it convolves to TF32, 10 bits of 23."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def _model_of(device: torch.device) -> str:
    """Names what computes: "cpu", "mps", "cuda NVIDIA H100 80GB HBM3"."""
    if device.type == "cuda" and torch.cuda.is_available():
        return f"cuda {torch.cuda.get_device_name(device)}"
    return device.type


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Where convolutions and products are computed in this precision."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)  # threads would share the cache


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

    def compile(self, module: nn.Module, *example: np.ndarray, precision: Precision = "float32") -> Network:
        part = module.encoder if isinstance(module, Embedding) else module
        key = (id(part), precision, *((array.dtype, array.shape) for array in example))
        known = self._networks.get(key)
        if known is None or known[0]() is not part:  # a module that is gone may leave its id to another
            known = weakref.ref(part), self._backend.compile(module, *example, precision=precision)
            self._networks[key] = known
        return known[1]


def as_function(backend: Backend) -> Callable[[nn.Module, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """What `flow.estimators.load` takes as `compile`: flow networks on this engine.

    What it makes may be called from several threads at once; each waits for its own result.
    """

    def compile_flow(module: nn.Module, example: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        network = backend.compile(module, example)
        return lambda pairs: network.submit(pairs).result()

    return compile_flow
