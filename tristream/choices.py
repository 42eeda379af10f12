"""Checks of option values that import neither torch nor another large library."""

from __future__ import annotations

import difflib
import importlib.util
import re
import sys
from pathlib import Path

from tristream.errors import UsageError
from tristream.streams.compute import BACKENDS

PRECISIONS = ("float32", "bf16")
DEVICES = "auto, cpu, cuda, cuda:1 or mps"
# NVIDIA and its Tegra boards, AMD, and the GPUs of WSL: Linux shows at least one where torch can use a GPU.
GPU_FILES = (
    "dev/nvidia*",
    "proc/driver/nvidia",
    "dev/nvhost*",
    "dev/nvmap",
    "dev/kfd",
    "dev/dxg",
)


def check_device(name: str, *, root: Path = Path("/"), platform: str = sys.platform) -> None:
    """Raise UsageError for a device that this machine cannot have.

    torch decides later whether a device that passes can be used.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1", "mps".
        root: of the file system.
        platform: as in `sys.platform`.
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name) is None:
        raise UsageError(f"--device {name} is unknown; it must be {DEVICES}")
    reason = ""
    if name == "mps" and platform != "darwin":
        reason = "mps is a device of Apple's computers"
    elif name.startswith("cuda") and platform == "darwin":
        reason = "macOS has no CUDA"
    elif name.startswith("cuda") and platform == "linux" and not _has_gpu(root):
        reason = "this machine has no GPU: no /dev/nvidia*, /dev/kfd or /dev/dxg"
    if reason:
        raise UsageError(f"--device {name} cannot be used here ({reason}); try auto")


def _has_gpu(root: Path) -> bool:
    """Return True if the file system shows a GPU."""
    return any(next(root.glob(pattern), None) for pattern in GPU_FILES)


def check_backend(name: str) -> None:
    """Raise UsageError for an unknown inference backend, or one that is not installed."""
    if name not in BACKENDS:
        raise UsageError(f"--backend {name} is unknown; available: {', '.join(BACKENDS)}")
    if name == "openvino" and importlib.util.find_spec("openvino") is None:
        raise UsageError(
            "--backend openvino needs OpenVINO: pip install 'tristream[fast]'; or --backend torch"
        )


def check_precision(name: str | None) -> None:
    """Raise UsageError for an unknown precision; None is none."""
    if name not in (None, *PRECISIONS):
        raise UsageError(f"--precision {name} is unknown; available: {', '.join(PRECISIONS)}")


def check_level(
    option: str, value: float | None, *, above: float, below: float | None = None
) -> None:
    """Raise UsageError for a number that is not above `above` (and below `below`); None is none."""
    if value is None or (value > above and (below is None or value < below)):
        return
    limits = f"above {above:g}" if below is None else f"between {above:g} and {below:g}"
    raise UsageError(f"{option} {value:g} is out of range; it must be {limits}")


def check_run(folder: Path) -> None:
    """Raise UsageError if there is no such run, with similar names beside it."""
    if folder.is_dir():
        return
    beside = folder.parent
    runs = [path.name for path in beside.iterdir() if path.is_dir()] if beside.is_dir() else []
    similar = difflib.get_close_matches(folder.name, sorted(runs), n=3)
    meant = (
        f"; did you mean {', '.join(str(beside / name) for name in similar)}?" if similar else ""
    )
    what = "is not a folder" if folder.exists() else "does not exist"
    raise UsageError(
        f"{folder} {what}; make it first: tristream index --run {folder} --data DIR{meant}"
    )
