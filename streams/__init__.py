"""The streams: every file in here is shared by all of them, every folder in here is one of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tristream.errors import TristreamError

if TYPE_CHECKING:
    from tristream.streams.stream import Stream


def names() -> list[str]:
    """Names of the streams, sorted: the folders beside this file. Nothing is imported."""
    return sorted(folder.parent.name for folder in Path(__file__).parent.glob("*/__init__.py"))


def load(name: str) -> Stream:
    """The stream called `name`.

    Raises:
        TristreamError: there is no such folder; the message lists those there are.
    """
    if name not in names():
        raise TristreamError(f"unknown stream '{name}'; available: {', '.join(names())}")
    import importlib

    stream: Stream = importlib.import_module(f"{__name__}.{name}.stream").STREAM
    return stream
