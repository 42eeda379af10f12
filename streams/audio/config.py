"""Settings of the audio stream."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from tristream.errors import TristreamError
from tristream.streams.audio.logmel import LOG_OFFSET, N_MELS
from tristream.streams.config import (
    ENCODE_BATCH_SIZE,
    AggregatorConfig,
    AggregatorPhase,
    EncoderPhase,
)


class AudioConfig(BaseModel, extra="forbid", frozen=True):
    """Log-mel examples and their CNN (paper, section IV-D)."""

    encoder: Literal["vggish", "yamnet", "small"] = Field("vggish", description="the CNN")
    encoder_weights: Path | None = Field(
        None, description="name of weights, or a safetensors file; none: from scratch"
    )
    weights_seed: int | None = Field(
        None, description="of random weights that replace them (--random-weights)"
    )
    n_frames: int = Field(96, ge=16, description="length of an example, in steps of 10 ms")
    hop_frames: int = Field(
        96, ge=1, description="from the start of one example to the next, in steps of 10 ms"
    )
    width: float = Field(1.0, gt=0, description="scales the layers of VGGish")
    relu: bool = Field(True, description="ReLU on VGGish's embedding")
    postprocess: bool = Field(
        False, description="VGGish's embedding as AudioSet's 8-bit codes, whitened; frozen only"
    )
    postprocess_weights: Path | None = Field(
        None, description="name of its PCA (vggish_pca), or a safetensors file"
    )
    rounded: bool = Field(
        False, description="codes are rounded as in torchvggish; TensorFlow truncates"
    )
    widths: tuple[int, ...] = Field(
        (16, 32, 64, 64), description="channels of the 'small' encoder's blocks"
    )
    embedding_dim: int | None = Field(
        64, description="of the 'small' encoder; none: mean over time and bands"
    )
    encoder_dropout: float = Field(
        0.0, ge=0, lt=1, description="dropout before the CNN's own softmax layer"
    )
    shift_frames: int = Field(
        8, ge=0, description="training: the whole track moved by up to this, in steps of 10 ms"
    )
    mask_bands: int = Field(
        0, ge=0, le=N_MELS, description="training: up to this many neighbouring bands are blanked"
    )
    mask_frames: int = Field(
        0, ge=0, description="training: up to this many successive steps are blanked"
    )
    encode_batch_size: int = Field(32, ge=8, multiple_of=8, description=ENCODE_BATCH_SIZE)
    encoder_training: EncoderPhase = EncoderPhase()
    aggregator: AggregatorConfig = AggregatorConfig()
    aggregator_training: AggregatorPhase = AggregatorPhase()

    @model_validator(mode="after")
    def _fits_together(self) -> AudioConfig:
        if self.postprocess and self.encoder != "vggish":
            raise TristreamError(
                f"postprocess = true is VGGish's, and the encoder is '{self.encoder}'; set it to false"
            )
        if self.postprocess and self.encoder_training.mode != "frozen":
            raise TristreamError(
                "postprocess = true gives 8-bit codes, and no gradient passes them in encoder_training.mode = "
                f"'{self.encoder_training.mode}'; it must be frozen"
            )
        return self

    @property
    def log_offset(self) -> float:
        """Offset before the logarithm, as the encoder was trained with."""
        from tristream.streams.audio.yamnet import LOG_OFFSET as YAMNET_LOG_OFFSET

        return YAMNET_LOG_OFFSET if self.encoder == "yamnet" else LOG_OFFSET


CONFIG = AudioConfig
