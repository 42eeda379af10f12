"""Protocols of a stream: the class in its folder, and its instances."""

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
    """torch module from segments to segment embeddings, with a classifier for training."""

    embedding_dim: int

    def embed(self, segments: torch.Tensor) -> torch.Tensor:
        """Return segment embeddings: (B, …) → (B, D)."""

    def __call__(self, segments: torch.Tensor) -> torch.Tensor:
        """Return logits: (B, …) → (B, n_classes)."""


class StreamClass(Protocol):
    """Stream without a configuration. `streams/<name>/stream.py` holds one, called `STREAM`.

    Attributes:
        schema: raised by hand when the result of `footage` or `cut` changes.
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
    """Kind of information in a video, bound to its configuration.

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
        """Rule that chooses its segments."""

    def footage(self, video: Video) -> Footage:
        """Return the stream's uncut data of a video.

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

        They may be made on `device`, where the training runs; by default on the CPU.
        """

    def build_encoder(self, n_classes: int) -> Encoder:
        """Return a new encoder with random weights, or with those of the file that the configuration names."""
