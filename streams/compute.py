"""Device and inference backend, chosen by name."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from tristream.errors import TristreamError
from tristream.streams.backend import Backend
from tristream.streams.torch_backend import TorchBackend

if TYPE_CHECKING:
    import torch

    from tristream.store.cache import Cache

BACKENDS = ("auto", "torch", "torch-compiled", "openvino")


def choose(name: str = "auto", *, device: torch.device, cache: Cache | None = None) -> Backend:
    """The engine called `name`; "auto" is OpenVINO on a CPU where it is installed, else torch.

    Args:
        device: where to run.
        cache: of converted networks; None: they are converted anew in every process.

    Raises:
        TristreamError: an unknown engine, OpenVINO that is not installed, or on another device than a CPU.
    """
    if name not in BACKENDS:
        raise TristreamError(f"unknown backend '{name}'; available: {', '.join(BACKENDS)}")
    is_installed = importlib.util.find_spec("openvino") is not None
    if name == "auto":
        name = "openvino" if device.type == "cpu" and is_installed else "torch"
    if name != "openvino":
        return TorchBackend(device, is_compiled=name == "torch-compiled")
    if not is_installed:
        raise TristreamError(
            "--backend openvino needs OpenVINO: pip install 'tristream[fast]', or take --backend torch"
        )
    if device.type != "cpu":
        raise TristreamError(
            f"--backend openvino runs on the CPU, not on {device}; take --backend torch or --device cpu"
        )
    from tristream.streams.openvino_backend import OpenVinoBackend

    return OpenVinoBackend(cache=cache)
