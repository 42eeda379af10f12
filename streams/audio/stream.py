"""Audio stream: examples of log-mel energies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tristream.streams.audio.config import AudioConfig
from tristream.streams.audio.encoder import SmallShape, VGGishShape, build_encoder
from tristream.streams.audio.logmel import (
    HOP_SAMPLES,
    HOP_SECONDS,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    log_mel,
)
from tristream.streams.backend import CPU
from tristream.streams.config import SamplerConfig
from tristream.streams.segments import Absent, Footage, Segments
from tristream.streams.stream import Encoder
from tristream.streams.video import Video


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
            rows_per_segment=config.n_frames,
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
