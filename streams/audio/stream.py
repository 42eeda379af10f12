"""Audio stream: examples of log-mel energies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, Field, model_validator

from tristream.errors import TristreamError
from tristream.streams.audio.encoder import SmallShape, VGGishShape, build_encoder
from tristream.streams.audio.logmel import (
    HOP_SAMPLES,
    HOP_SECONDS,
    LOG_OFFSET,
    N_MELS,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    log_mel,
)
from tristream.streams.audio.yamnet import LOG_OFFSET as YAMNET_LOG_OFFSET
from tristream.streams.backend import CPU
from tristream.streams.config import (
    ENCODE_BATCH_SIZE,
    AggregatorConfig,
    AggregatorPhase,
    EncoderPhase,
    SamplerConfig,
)
from tristream.streams.segments import Absent, Footage, Segments
from tristream.streams.stream import Encoder
from tristream.streams.video import Video


class AudioConfig(BaseModel, extra="forbid", frozen=True):
    """Log-mel examples and their CNN (paper, section IV-D)."""

    encoder: Literal["vggish", "yamnet", "small"] = "vggish"
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
    encoder_dropout: float = Field(0.0, ge=0, lt=1)
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
        return YAMNET_LOG_OFFSET if self.encoder == "yamnet" else LOG_OFFSET


class AudioStream:
    """Examples of log-mel energies, (n_frames, 64)."""

    name = "audio"
    schema = 4  # 2: mono is the mean of the channels; 3: log-mel of sparse weights; 4: resampling
    needs_pictures = False
    needs_sound = True
    Config = AudioConfig

    def __init__(self, config: AudioConfig, sampler: SamplerConfig) -> None:
        self.config = config
        self.sampler = sampler

    def footage(self, video: Video) -> Footage:
        """Return log-mel energies of the whole track; the plan has all examples (they are few: no sampling)."""
        config = self.config
        samples = video.decoded.samples
        if samples is None:
            reasons = video.decoded.reasons
            raise Absent("silent_audio" if "silent_audio" in reasons else "no_audio")
        n_needed = (config.n_frames - 1) * HOP_SAMPLES + WINDOW_SAMPLES
        if len(samples) < n_needed:
            raise Absent("audio_too_short")
        rows = log_mel(samples, SAMPLE_RATE, log_offset=config.log_offset)  # (T, 64)
        start = video.decoded.samples_start_seconds + HOP_SECONDS * np.arange(len(rows))
        return Footage(
            array=rows,
            start_seconds=start,
            stop_seconds=start + HOP_SECONDS * config.n_frames,
            plan=np.arange(0, len(rows) - config.n_frames + 1, config.hop_frames),
        )

    def cut(self, footage: Footage, generator: np.random.Generator | None = None) -> Segments:
        """Return one example for each planned start, (S, n_frames, 64)."""
        config = self.config
        rows = footage.array if generator is None else _augment(footage.array, config, generator)
        starts = footage.plan

        def read(first: int, last: int) -> np.ndarray:
            return np.stack([rows[start : start + config.n_frames] for start in starts[first:last]])

        return Segments(footage.start_seconds[starts], footage.stop_seconds[starts], read)

    def training_segments(
        self,
        footages: Sequence[Footage],
        generator: np.random.Generator,
        device: torch.device = CPU,
    ) -> torch.Tensor:
        """Return one example with a random start of each video, (B, n_frames, 64), on the CPU: they are small."""
        config, examples = self.config, []
        for footage in footages:
            start = generator.integers(len(footage.array) - config.n_frames + 1)
            examples.append(
                _mask(footage.array[start : start + config.n_frames].copy(), config, generator)
            )
        return torch.from_numpy(np.stack(examples))

    def build_encoder(self, n_classes: int) -> Encoder:
        """Return VGGish, YAMNet, or a small CNN that learns from less data."""
        config = self.config
        return build_encoder(
            config.encoder,
            n_classes,
            weights=config.encoder_weights,
            small=SmallShape(config.widths, config.embedding_dim),
            vggish=VGGishShape(
                width=config.width,
                relu=config.relu,
                postprocess=config.postprocess,
                postprocess_weights=config.postprocess_weights,
                rounded=config.rounded,
            ),
            n_frames=config.n_frames,
            dropout=config.encoder_dropout,
        )


def _augment(rows: np.ndarray, config: AudioConfig, generator: np.random.Generator) -> np.ndarray:
    """Shift the track by a few steps (repeating its edge); blank one range of bands and one of time."""
    shift = int(generator.integers(-config.shift_frames, config.shift_frames + 1))
    moved = rows[np.clip(np.arange(len(rows)) + shift, 0, len(rows) - 1)]
    return _mask(moved, config, generator)


def _mask(rows: np.ndarray, config: AudioConfig, generator: np.random.Generator) -> np.ndarray:
    """Blank with the track's mean, in place (SpecAugment, Park et al. 2019, without its warp)."""
    blank = rows.mean()
    for axis, most in ((1, config.mask_bands), (0, config.mask_frames)):
        n = int(generator.integers(most + 1))
        start = int(generator.integers(max(1, rows.shape[axis] - n + 1)))
        rows[(slice(None),) * axis + (slice(start, start + n),)] = blank
    return rows


STREAM = AudioStream
