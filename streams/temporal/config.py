"""Settings of the temporal stream."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from tristream.streams.config import (
    ENCODE_BATCH_SIZE,
    AggregatorConfig,
    AggregatorPhase,
    AugmentConfig,
    EncoderPhase,
)


class TemporalConfig(BaseModel, extra="forbid", frozen=True):
    """Optical flow, its stacks and the motion CNN (paper, sections III-B and IV-C)."""

    estimator: str = Field("dis", description="a name of flow.estimators; --flow-from replaces it")
    weights_seed: int | None = Field(
        None, description="of random weights of a learned estimator (--random-weights)"
    )
    estimate_size: tuple[int, int] = Field(
        (240, 320), description="height and width frames are squashed to, px"
    )
    input_size: tuple[int, int] = Field(
        (240, 320), description="height and width flow is averaged down to, px"
    )
    stack_length: int = Field(10, ge=1, description="L: fields in a stack")
    stack_step: int = Field(1, ge=1, description="steps between the fields of a stack")
    mean_removed: bool = Field(
        True, description="subtract each field's own mean: the camera's motion"
    )
    encoder: str = Field(
        "motion_cnn",
        description="the paper's, or a CNN of timm, initialised across modalities (TSN)",
    )
    encoder_weights: Path | None = Field(
        None, description="of timm's CNN: name of weights, or a safetensors file"
    )
    partial_batch_norm: bool = Field(True, description="timm: only the first batch norm learns")
    width: float = Field(1.0, gt=0, description="scales every layer of the motion CNN")
    pool2: bool = Field(True, description="pooling after conv2; false: for small input sizes")
    full6: int | None = Field(None, description="width of full6; none: 4096 · width")
    full7: int | None = Field(None, description="width of full7; none: 2048 · width")
    batch_norm: Literal["conv1", "all"] = Field(
        "conv1", description="after the first convolution (the paper) or all"
    )
    encoder_dropout: float = Field(
        0.5, ge=0, lt=1, description="dropout on the fully connected layers"
    )
    augment: AugmentConfig = AugmentConfig()
    encode_batch_size: int = Field(32, ge=8, multiple_of=8, description=ENCODE_BATCH_SIZE)
    encoder_training: EncoderPhase = EncoderPhase(optimizer="adam", learning_rate=1e-3)
    aggregator: AggregatorConfig = AggregatorConfig()
    aggregator_training: AggregatorPhase = AggregatorPhase()


CONFIG = TemporalConfig
