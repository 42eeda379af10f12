"""Device, inference backend and number of processes, chosen by name."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tristream.errors import TristreamError, UsageError
from tristream.media.machine import n_cores

if TYPE_CHECKING:
    import torch

    from tristream.store.cache import Cache
    from tristream.streams.backend import Backend

BACKENDS = ("auto", "torch", "torch-compiled", "openvino")
WORKERS = n_cores()


@dataclass(frozen=True)
class Compute:
    """Hardware and engine of a job, by name; torch is imported by the methods.

    Attributes:
        device: "auto" (a GPU if present), "cpu", "cuda", "cuda:1" or "mps".
        backend: engine of fixed networks: "auto" (OpenVINO on a CPU that has it), "torch",
            "torch-compiled" or "openvino".
        workers: videos decoded at the same time, each in its own process.
        deterministic: restrict torch to deterministic algorithms.
    """

    device: str = "auto"
    backend: str = "auto"
    workers: int = WORKERS
    deterministic: bool = False

    def torch_device(self) -> torch.device:
        """Return the torch device.

        Raises:
            UsageError: no such device on this machine.
        """
        import torch

        if self.deterministic:  # cuBLAS reads it before its first product
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if self.deterministic != torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(self.deterministic)  # imports torch's compiler: 3 s
        if self.device == "auto":
            has_mps = torch.backends.mps.is_available()
            name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
            return torch.device(name)
        try:
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0].split(". ")[0]
            raise UsageError(
                f"--device {self.device} cannot be used here ({why}); try auto"
            ) from error
        return torch.device(self.device)

    def engine(self, cache: Cache | None = None) -> Backend:
        """Return the inference backend on the device.

        Args:
            cache: of converted networks; None: converted anew in every process.

        Raises:
            TristreamError: an unknown engine, OpenVINO that is not installed or not on a CPU.
            UsageError: no such device.
        """
        return choose(self.backend, device=self.torch_device(), cache=cache)


def choose(name: str = "auto", *, device: torch.device, cache: Cache | None = None) -> Backend:
    """Return the engine called `name`; "auto": OpenVINO on a CPU if it is installed, else torch.

    Args:
        device: where to run.
        cache: of converted networks; None: converted anew in every process.

    Raises:
        TristreamError: an unknown engine, OpenVINO that is not installed or not on a CPU.
    """
    if name not in BACKENDS:
        raise TristreamError(f"unknown backend '{name}'; available: {', '.join(BACKENDS)}")
    is_installed = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        name = "openvino" if device.type == "cpu" and is_installed else "torch"
    if name != "openvino":
        from tristream.streams.torch_backend import TorchBackend

        return TorchBackend(device, is_compiled=name == "torch-compiled")
    if not is_installed:
        raise TristreamError(
            "--backend openvino needs OpenVINO: pip install 'tristream[fast]'; or --backend torch"
        )
    if device.type != "cpu":
        raise TristreamError(
            f"--backend openvino runs on the CPU, not on {device}; use --backend torch or "
            "--device cpu"
        )
    from tristream.streams.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(cache=cache)
