"""The audio stream: how it sounds, in examples of log-mel energies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, Field
from torch import nn

from streams.audio.logmel import HOP_SAMPLES, HOP_SECONDS, N_MELS, SAMPLE_RATE, WINDOW_SAMPLES, log_mel
from streams.audio.vggish import VGGish
from streams.config import ENCODE_BATCH_SIZE, AggregatorConfig, AggregatorPhase, EncoderPhase, SamplerConfig
from streams.segments import Absent, Footage, Segments
from streams.small_cnn import SegmentClassifier, SmallCNN
from streams.stream import Encoder
from streams.video import Video


class AudioConfig(BaseModel, extra="forbid", frozen=True):
    """Log-mel examples and their CNN (paper, section IV-D)."""

    encoder: Literal["vggish", "small"] = "vggish"
    n_frames: int = Field(96, ge=16, description="length of an example, in steps of 10 ms")
    hop_frames: int = Field(96, ge=1, description="from the start of one example to the next, in steps of 10 ms")
    width: float = Field(1.0, gt=0, description="scales the layers of VGGish")
    relu: bool = Field(True, description="ReLU on VGGish's embedding")
    widths: tuple[int, ...] = Field((16, 32, 64, 64), description="channels of the 'small' encoder's blocks")
    embedding_dim: int | None = Field(64, description="of the 'small' encoder; none: mean over time and bands")
    encoder_dropout: float = Field(0.0, ge=0, lt=1)
    shift_frames: int = Field(8, ge=0, description="training: the whole track moved by up to this, in steps of 10 ms")
    mask_bands: int = Field(0, ge=0, le=N_MELS, description="training: up to this many neighbouring bands are blanked")
    mask_frames: int = Field(0, ge=0, description="training: up to this many successive steps are blanked")
    encode_batch_size: int = Field(32, ge=8, multiple_of=8, description=ENCODE_BATCH_SIZE)
    encoder_training: EncoderPhase = EncoderPhase()
    aggregator: AggregatorConfig = AggregatorConfig()
    aggregator_training: AggregatorPhase = AggregatorPhase()


class AudioStream:
    """Examples of log-mel energies, (n_frames, 64)."""

    name = "audio"
    schema = 1
    needs_pictures = False
    needs_sound = True
    Config = AudioConfig

    def footage(self, video: Video, config: AudioConfig, sampler: SamplerConfig) -> Footage:
        """Log-mel energies of the whole track; the plan is where the examples start (they are few: no sampling)."""
        samples = video.decoded.samples
        if samples is None:
            raise Absent("no_audio")
        n_needed = (config.n_frames - 1) * HOP_SAMPLES + WINDOW_SAMPLES
        if len(samples) < n_needed:
            raise Absent("audio_too_short")
        rows = log_mel(samples, SAMPLE_RATE)  # (T, 64)
        start = video.decoded.samples_start_seconds + HOP_SECONDS * np.arange(len(rows))
        return Footage(
            array=rows,
            start_seconds=start,
            stop_seconds=start + HOP_SECONDS * config.n_frames,
            plan=np.arange(0, len(rows) - config.n_frames + 1, config.hop_frames),
        )

    def cut(self, footage: Footage, config: AudioConfig, generator: np.random.Generator | None = None) -> Segments:
        """One example for each planned start, (S, n_frames, 64)."""
        rows = footage.array if generator is None else _augment(footage.array, config, generator)
        starts = footage.plan

        def read(first: int, last: int) -> np.ndarray:
            return np.stack([rows[start : start + config.n_frames] for start in starts[first:last]])

        return Segments(footage.start_seconds[starts], footage.stop_seconds[starts], read)

    def training_segments(
        self, footages: Sequence[Footage], config: AudioConfig, generator: np.random.Generator
    ) -> torch.Tensor:
        """One example with a random start of each video, (B, n_frames, 64)."""
        examples = []
        for footage in footages:
            start = generator.integers(len(footage.array) - config.n_frames + 1)
            examples.append(_mask(footage.array[start : start + config.n_frames].copy(), config, generator))
        return torch.from_numpy(np.stack(examples))

    def build_encoder(self, config: AudioConfig, n_classes: int) -> Encoder:
        """VGGish, or a small CNN that learns from less."""
        network: nn.Module
        if config.encoder == "vggish":
            network = VGGish(n_frames=config.n_frames, width=config.width, relu=config.relu)
        else:
            network = _OneChannel(
                SmallCNN(
                    1,
                    config.widths,
                    input_size=(config.n_frames, N_MELS),
                    embedding_dim=config.embedding_dim,
                    dropout=config.encoder_dropout,
                )
            )
        return SegmentClassifier(network, network.embedding_dim, n_classes, dropout=config.encoder_dropout)


class _OneChannel(nn.Module):
    """A picture CNN on examples: they get a channel axis."""

    def __init__(self, network: SmallCNN) -> None:
        super().__init__()
        self.network = network
        self.embedding_dim = network.embedding_dim

    def forward(self, examples: Float[torch.Tensor, "B n_frames 64"]) -> Float[torch.Tensor, "B D"]:
        return self.network(examples[:, None])


def _augment(rows: np.ndarray, config: AudioConfig, generator: np.random.Generator) -> np.ndarray:
    """The track moved by a few steps (the edge repeated), one stretch of bands and one of time blanked."""
    shift = int(generator.integers(-config.shift_frames, config.shift_frames + 1))
    moved = rows[np.clip(np.arange(len(rows)) + shift, 0, len(rows) - 1)]
    return _mask(moved, config, generator)


def _mask(rows: np.ndarray, config: AudioConfig, generator: np.random.Generator) -> np.ndarray:
    """Blanks with the track's own mean, in place (SpecAugment, Park et al. 2019, without its warp)."""
    blank = rows.mean()
    for axis, most in ((1, config.mask_bands), (0, config.mask_frames)):
        n = int(generator.integers(most + 1))
        start = int(generator.integers(max(1, rows.shape[axis] - n + 1)))
        rows[(slice(None),) * axis + (slice(start, start + n),)] = blank
    return rows


STREAM = AudioStream()
