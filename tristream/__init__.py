"""Per-stream video embeddings, action classification and anomaly detection.

    import tristream as ts

    run = ts.Run("runs/default")
    run.index("my_videos")
    run.train_stream("temporal")
    run.embed()
    run.fuse()
    run.predict(["clip.mp4"])

Names are imported when they are first used. In a checkout the rooms (`media/`, `streams/`, …) lie
beside this folder; installed, they lie in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tristream.client import Client as Client
    from tristream.decision import Decision as Decision
    from tristream.embedder import StreamEmbedder as StreamEmbedder
    from tristream.embedder import VideoEmbedder as VideoEmbedder
    from tristream.embeddings import Embeddings as Embeddings
    from tristream.embeddings import fuse_tables as fuse_tables
    from tristream.errors import MachineError as MachineError
    from tristream.errors import TristreamError as TristreamError
    from tristream.errors import UsageError as UsageError
    from tristream.live import follow as follow
    from tristream.progress import Notebook as Notebook
    from tristream.progress import Progress as Progress
    from tristream.run import Run as Run
    from tristream.streams.compute import Compute as Compute
    from tristream.streams.reading import Reading as Reading

_CHECKOUT = Path(__file__).resolve().parents[1]
if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "orchestrate.py").is_file():
    __path__.append(str(_CHECKOUT))

_NAMES = {
    "Client": "client",
    "Compute": "streams.compute",
    "Decision": "decision",
    "Embeddings": "embeddings",
    "MachineError": "errors",
    "Notebook": "progress",
    "Progress": "progress",
    "Reading": "streams.reading",
    "Run": "run",
    "StreamEmbedder": "embedder",
    "TristreamError": "errors",
    "UsageError": "errors",
    "VideoEmbedder": "embedder",
    "follow": "live",
    "fuse_tables": "embeddings",
}
__all__ = [*_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("tristream")
        except PackageNotFoundError:  # a checkout that is not installed
            return "0+checkout"
    if name not in _NAMES:
        raise AttributeError(f"module 'tristream' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"tristream.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
