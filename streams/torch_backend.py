"""Inference with torch on any device, eager or compiled."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import nn

from tristream.streams.backend import Network, Precision


class TorchBackend:
    """torch, eager or compiled (never frozen: inductor's freezing is wrong on InceptionResNetV2 by 13 %).

    bf16 is torch's autocast: convolutions and products in bf16, the rest in float32. See `full_float32` for GPUs.

    Args:
        device: where to run.
        is_compiled: use torch.compile; it needs a C++ compiler and a minute for each network.
    """

    def __init__(self, device: torch.device, *, is_compiled: bool = False) -> None:
        self.name = "torch-compiled" if is_compiled else "torch"
        self.device = device
        self._is_compiled = is_compiled
        full_float32(device)
        if device.type == "cuda":
            # FlowNet's transposed convolutions are not, by default
            torch.backends.cudnn.deterministic = True
        # One thread for all networks: they run in turn while the caller makes the next batch. A GPU has two, each with
        # its own CUDA stream: one batch is transferred while the other is computed.
        self._n_threads = 2 if device.type == "cuda" else 1
        self._threads = ThreadPoolExecutor(
            self._n_threads,
            thread_name_prefix="torch",
            initializer=_take_own_queue,
            initargs=(device,),
        )

    def identity(self) -> dict[str, Any]:
        # On a CPU the bits depend on the sharing of rows among threads; on a GPU on its model.
        threads = torch.get_num_threads() if self.device.type == "cpu" else 0
        return {"backend": f"{self.name}-{_model_of(self.device)}", "n_threads": threads}

    def batch_size(self, configured: int) -> int:
        return configured

    def compile(
        self, module: nn.Module, *example: np.ndarray, precision: Precision = "float32"
    ) -> Network:
        network = channels_last(module.to(self.device).eval())
        forward: Callable[..., torch.Tensor] = network
        if self._is_compiled:
            forward = torch.compile(network, dynamic=False)  # type: ignore[assignment]
        if self.device.type == "cuda":
            # the weights must have arrived before another CUDA stream reads them
            torch.cuda.synchronize(self.device)
        return TorchNetwork(
            forward, self.device, precision, self._threads, n_at_once=self._n_threads
        )


class TorchNetwork:
    """Network that runs batches in threads while the caller makes the next one."""

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
        self._room = threading.BoundedSemaphore(n_at_once + 1)  # running batches and one that waits
        self._lock = threading.Lock()
        self.busy_seconds = 0.0

    def submit(self, *inputs: np.ndarray) -> Future[np.ndarray]:
        self._room.acquire()
        try:
            future = self._threads.submit(self._run, *inputs)
        except RuntimeError:  # the interpreter is shutting down: nobody may wait for ever
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _run(self, *inputs: np.ndarray) -> np.ndarray:
        begun = time.perf_counter()
        with torch.inference_mode(), autocast(self._device, self._precision):
            tensors = [to_device(torch.from_numpy(array), self._device) for array in inputs]
            with self._lock:  # torchvision's RAFT keeps its correlations on the module
                rows = self._forward(*tensors)
            result = rows.float().cpu().numpy()
        with self._lock:
            self.busy_seconds += time.perf_counter() - begun
        return result


def _take_own_queue(device: torch.device) -> None:
    """Give this thread its own CUDA stream: its work waits only for its own earlier work."""
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device))


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on `device`; to a GPU it is copied asynchronously from pinned memory."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def full_float32(device: torch.device) -> None:
    """Compute float32 on a GPU in full precision: by default cuDNN rounds inputs to TF32, 10 bits of 23."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def _model_of(device: torch.device) -> str:
    """Return the name of the hardware: "cpu", "mps", "cuda NVIDIA H100 80GB HBM3"."""
    if device.type == "cuda" and torch.cuda.is_available():
        return f"cuda {torch.cuda.get_device_name(device)}"
    return device.type


def autocast(
    device: torch.device, precision: Precision
) -> contextlib.AbstractContextManager[object]:
    """Return a context in which convolutions and products use this precision."""
    if precision == "float32":
        return contextlib.nullcontext()
    # threads would share the cache
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def channels_last(module: nn.Module) -> nn.Module:
    """Store the weights of 2-D convolutions channels last, in place: half their time on a CPU.

    `Module.to(memory_format=…)` raises on the 5-D weights of 3-D convolutions; those stay as they are.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    return module
