"""Protocols of a stream: the class that a folder offers, and the object that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from tristream.streams.config import SamplerConfig, StreamConfig

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tristream.streams.segments import Footage, Segments
    from tristream.streams.video import Video


@runtime_checkable
class Encoder(Protocol):
    """A torch module: segments in, segment embeddings out, with a classifier of its own for training."""

    embedding_dim: int

    def embed(self, segments: torch.Tensor) -> torch.Tensor:
        """(B, …) → (B, D)."""

    def __call__(self, segments: torch.Tensor) -> torch.Tensor:
        """(B, …) → logits (B, n_classes)."""


class StreamClass(Protocol):
    """A stream without a configuration. `streams/<name>/stream.py` holds one, called `STREAM`.

    Attributes:
        schema: raised by hand when `footage` or `cut` computes something else.
        needs_pictures: it reads frames.
        needs_sound: it reads audio.
        Config: pydantic model of its own configuration; unknown keys are refused.
    """

    name: str
    schema: int
    needs_pictures: bool
    needs_sound: bool
    Config: type[Any]

    def __call__(self, config: StreamConfig, sampler: SamplerConfig) -> Stream:
        """Return the stream with this configuration; it is only stored."""


@runtime_checkable
class Stream(Protocol):
    """One way of looking at a video, bound to its configuration.

    Attributes:
        name, schema, needs_pictures, needs_sound: as those of its class.
    """

    name: str
    schema: int
    needs_pictures: bool
    needs_sound: bool

    @property
    def config(self) -> StreamConfig:
        """The stream's own configuration."""

    @property
    def sampler(self) -> SamplerConfig:
        """Which segments it looks at."""

    def footage(self, video: Video) -> Footage:
        """Return what the stream keeps of a video.

        Raises:
            Absent: the video does not have this stream.
        """

    def cut(self, footage: Footage, generator: np.random.Generator | None = None) -> Segments:
        """Return the planned segments; with a generator, one random augmentation of the whole video."""

    def training_segments(
        self,
        footages: Sequence[Footage],
        generator: np.random.Generator,
        device: torch.device = ...,
    ) -> torch.Tensor:
        """Return one random augmented segment of each video, (B, …): one step of encoder training.

        They may be made on `device`, where training wants them; the CPU's, without one.
        """

    def build_encoder(self, n_classes: int) -> Encoder:
        """Return a new encoder with random weights, or with those of the file that the configuration names."""
