"""What a folder must offer to be a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tristream.streams.config import (
        AggregatorConfig,
        AggregatorPhase,
        EncoderPhase,
        SamplerConfig,
    )
    from tristream.streams.segments import Footage, Segments
    from tristream.streams.video import Video


@runtime_checkable
class StreamConfig(Protocol):
    """The parts of a stream's `Config` that shared code reads; a folder adds its own."""

    encode_batch_size: int
    encoder_training: EncoderPhase
    aggregator: AggregatorConfig
    aggregator_training: AggregatorPhase

    def model_dump(self, *, mode: str = ..., exclude: Any = ...) -> dict[str, Any]: ...


@runtime_checkable
class Encoder(Protocol):
    """A torch module: segments in, segment embeddings out, with a classifier of its own for training."""

    embedding_dim: int

    def embed(self, segments: torch.Tensor) -> torch.Tensor:
        """(B, …) → (B, D)."""

    def __call__(self, segments: torch.Tensor) -> torch.Tensor:
        """(B, …) → logits (B, n_classes)."""


@runtime_checkable
class Stream(Protocol):
    """One way of looking at a video. `streams/<name>/stream.py` holds one, called `STREAM`."""

    name: str
    schema: int  # raised by hand when `footage` or `cut` computes something else
    needs_pictures: bool
    needs_sound: bool
    Config: type[Any]

    def footage(self, video: Video, config: Any, sampler: SamplerConfig) -> Footage:
        """What the stream keeps of a video.

        Raises:
            Absent: the video does not have this stream.
        """

    def cut(
        self, footage: Footage, config: Any, generator: np.random.Generator | None = None
    ) -> Segments:
        """The planned segments; with a generator, one random augmentation of the whole video."""

    def training_segments(
        self,
        footages: Sequence[Footage],
        config: Any,
        generator: np.random.Generator,
        device: torch.device = ...,
    ) -> torch.Tensor:
        """One random augmented segment of each video, (B, …): what one step of encoder training sees.

        They may be made on `device`, where training wants them; the CPU's, without one.
        """

    def build_encoder(self, config: Any, n_classes: int) -> Encoder:
        """A new encoder with random weights, or with those of the file that `config` names."""
