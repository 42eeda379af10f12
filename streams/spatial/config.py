"""Settings of the spatial stream."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from tristream.streams.config import (
    ENCODE_BATCH_SIZE,
    LATER,
    AggregatorConfig,
    AggregatorPhase,
    AugmentConfig,
    EncoderPhase,
)


class SpatialPhase(EncoderPhase, extra="forbid", frozen=True):
    """Training of the CNN."""

    trainable_blocks: int | None = Field(
        None, ge=1, description="number of its last blocks that learn; none: all"
    )


class SpatialConfig(BaseModel, extra="forbid", frozen=True):
    """Frames and their CNN."""

    encoder: str = Field(
        "small", description="'small', 'mobilenet_v2', or the name of any 2-D CNN of timm"
    )
    encoder_weights: Path | None = Field(
        None, description="name of weights, or a safetensors file; none: from scratch"
    )
    weights_seed: int | None = Field(
        None, description="of random weights that replace them (--random-weights)"
    )
    widths: tuple[int, ...] = Field(
        (16, 32, 64, 64), description="channels of the 'small' encoder's blocks"
    )
    embedding_dim: int | None = Field(
        None, description="of the 'small' encoder; none: mean over space"
    )
    input_size: tuple[int, int] = Field(
        (96, 96), description="height and width of frames for the CNN, px"
    )
    preprocess: Literal["squash", "own"] = Field(
        "squash",
        description="the whole frame squashed to input_size, or the network's own resize and centre crop",
    )
    pool: Literal["avg", "max"] = Field(
        "avg",
        description="of the CNN's last map; avg: the network's own, which is the mean of most",
        json_schema_extra=LATER,
    )
    encoder_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout before the CNN's own softmax layer"
    )
    brightness: float = Field(
        0.0, ge=0, description="training: brightness changed by up to this part"
    )
    augment: AugmentConfig = AugmentConfig()
    encode_batch_size: int = Field(32, ge=8, multiple_of=8, description=ENCODE_BATCH_SIZE)
    encoder_training: SpatialPhase = SpatialPhase()
    aggregator: AggregatorConfig = AggregatorConfig()
    aggregator_training: AggregatorPhase = AggregatorPhase()


CONFIG = SpatialConfig
