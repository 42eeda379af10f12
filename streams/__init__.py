"""Streams: every file of this folder is shared by all of them, every folder is one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream.errors import TristreamError

if TYPE_CHECKING:
    from tristream.streams.config import SamplerConfig, StreamConfig
    from tristream.streams.stream import Stream, StreamClass


def names() -> list[str]:
    """Return the names of the streams, sorted; none of them is imported."""
    return sorted(folder.parent.name for folder in Path(__file__).parent.glob("*/__init__.py"))


def load(name: str, config: StreamConfig, sampler: SamplerConfig) -> Stream:
    """Return the stream called `name`, bound to its configuration.

    Args:
        name: a folder of `streams/`.
        config: an instance of `stream_class(name).Config`.
        sampler: rule that chooses the segments of a video.

    Raises:
        TristreamError: no such stream; the message lists those that exist.
    """
    return stream_class(name)(config, sampler)


def stream_class(name: str) -> StreamClass:
    """Return the class of the stream called `name`, which needs no configuration.

    Raises:
        TristreamError: no such stream; the message lists those that exist.
    """
    if name not in names():
        raise TristreamError(f"unknown stream '{name}'; available: {', '.join(names())}")
    import importlib

    stream: StreamClass = importlib.import_module(f"tristream.streams.{name}.stream").STREAM
    return stream


def config_class(name: str) -> type[Any]:
    """Return the pydantic model of the settings of the stream called `name`; torch is not imported.

    Raises:
        TristreamError: no such folder; the message lists those there are.
    """
    if name not in names():
        raise TristreamError(f"unknown stream '{name}'; available: {', '.join(names())}")
    import importlib

    config: type[Any] = importlib.import_module(f"tristream.streams.{name}.config").CONFIG
    return config
