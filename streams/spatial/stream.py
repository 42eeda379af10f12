"""Spatial stream: single RGB frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tristream.flow.sampling import sample_indices, uniform_indices
from tristream.streams.augment import apply_views, draw_views
from tristream.streams.backend import CPU
from tristream.streams.config import SamplerConfig
from tristream.streams.segments import Footage, Segments
from tristream.streams.spatial.config import SpatialConfig
from tristream.streams.spatial.encoder import build_encoder, pool_by_max
from tristream.streams.stream import Encoder
from tristream.streams.torch_backend import to_device
from tristream.streams.video import Video, squash


class SpatialStream:
    """Sampled RGB frames, squashed to one size."""

    name = "spatial"
    schema = 1
    needs_pictures = True
    needs_sound = False
    Config = SpatialConfig

    def __init__(self, config: SpatialConfig, sampler: SamplerConfig) -> None:
        self.config = config
        self.sampler = sampler

    def footage(self, video: Video) -> Footage:
        """Return the sampled frames alone."""
        frames, sampler = video.frames(), self.sampler
        if sampler.method == "adaptive" and len(frames) > sampler.n_samples:
            indices = sample_indices(
                video.motion, n_samples=sampler.n_samples, n_segments=sampler.n_segments
            )
        else:
            indices = uniform_indices(len(frames), sampler.n_samples)
        decoded = video.decoded
        return Footage(
            array=_prepared(frames[indices], self.config),
            start_seconds=decoded.start_seconds[indices],
            stop_seconds=decoded.stop_seconds[indices],
            plan=np.arange(len(indices)),
        )

    def cut(self, footage: Footage, generator: np.random.Generator | None = None) -> Segments:
        """Return one segment for each frame, (S, H, W, 3) uint8."""
        array = footage.array
        if generator is not None:
            array = _augment(array, self.config, generator, same_view=True).numpy()
        return Segments(
            footage.start_seconds, footage.stop_seconds, lambda first, last: array[first:last]
        )

    def training_segments(
        self,
        footages: Sequence[Footage],
        generator: np.random.Generator,
        device: torch.device = CPU,
    ) -> torch.Tensor:
        """Return one random frame of each video, (B, H, W, 3) uint8."""
        chosen = np.stack(
            [footage.array[generator.integers(len(footage.array))] for footage in footages]
        )
        return _augment(chosen, self.config, generator, same_view=False, device=device)

    def build_encoder(self, n_classes: int) -> Encoder:
        """Return a CNN of uint8 frames; normalisation is part of it."""
        config = self.config
        encoder = build_encoder(
            config.encoder,
            n_classes,
            weights=config.encoder_weights,
            widths=config.widths,
            embedding_dim=config.embedding_dim,
            input_size=config.input_size,
            dropout=config.encoder_dropout,
            trainable_blocks=config.encoder_training.trainable_blocks,
        )
        if config.pool == "max":
            pool_by_max(encoder, config.encoder)
        return encoder


def _prepared(frames: np.ndarray, config: SpatialConfig) -> np.ndarray:
    if config.preprocess == "squash":
        return squash(frames, *config.input_size)
    from tristream.streams.spatial.preprocessing import own_preprocessing

    return own_preprocessing(config.encoder, frames, config.input_size)


def _augment(
    frames: np.ndarray,
    config: SpatialConfig,
    generator: np.random.Generator,
    *,
    same_view: bool,
    device: torch.device = CPU,
) -> torch.Tensor:
    """Return random views of (B, H, W, 3) uint8 frames; `same_view`: one view for all of them."""
    n = 1 if same_view else len(frames)
    views = draw_views(n, config.augment, generator)
    gain = generator.uniform(1 - config.brightness, 1 + config.brightness, n)
    if same_view:
        views, gain = views.repeat(len(frames)), gain.repeat(len(frames))
    batch = to_device(torch.from_numpy(np.array(frames)), device).permute(0, 3, 1, 2).float()
    gains = torch.from_numpy(gain).float().to(device)[:, None, None, None]
    batch = apply_views(batch, views, padding="reflection") * gains
    return batch.clamp(0, 255).round().byte().permute(0, 2, 3, 1)


STREAM = SpatialStream
