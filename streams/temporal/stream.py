"""Temporal stream: stacks of optical flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tristream.flow.sampling import sample_indices, stack_motion, uniform_indices
from tristream.streams.augment import apply_views_to_flow, draw_views
from tristream.streams.backend import CPU
from tristream.streams.config import SamplerConfig
from tristream.streams.segments import Footage, Segments
from tristream.streams.stream import Encoder
from tristream.streams.temporal.config import TemporalConfig
from tristream.streams.temporal.cross_modality import build_cross_modality
from tristream.streams.temporal.motion_cnn import MotionCNN
from tristream.streams.temporal.stacks import remove_mean, stack_flow
from tristream.streams.torch_backend import to_device
from tristream.streams.video import Video


class TemporalStream:
    """Stacks of 2L channels: x and y of L consecutive fields, oldest first."""

    name = "temporal"
    schema = 1
    needs_pictures = True
    needs_sound = False
    Config = TemporalConfig

    def __init__(self, config: TemporalConfig, sampler: SamplerConfig) -> None:
        self.config = config
        self.sampler = sampler

    def footage(self, video: Video) -> Footage:
        """Return the flow of the whole video; the plan has the starts of the chosen stacks."""
        config, sampler = self.config, self.sampler
        flow = video.flow(config.estimator, config.estimate_size, config.input_size)
        span = (config.stack_length - 1) * config.stack_step + 1  # steps of a stack
        n_steps = len(flow.field)
        n_starts = max(1, n_steps - span + 1)
        if sampler.method == "adaptive" and n_starts > sampler.n_samples:
            motion = stack_motion(video.motion, config.stack_length, step=config.stack_step)
            plan = sample_indices(
                motion[: n_starts - 1], n_samples=sampler.n_samples, n_segments=sampler.n_segments
            )
        else:
            plan = uniform_indices(n_starts, sampler.n_samples)
        # A stack that starts at τ covers the frames τ … τ + span: it lasts until the last one begins.
        ends = np.minimum(np.arange(n_steps) + span, n_steps)
        return Footage(
            array=flow.field.astype(np.float16, copy=False),
            start_seconds=flow.start_seconds[:-1],
            stop_seconds=flow.start_seconds[ends],
            plan=plan,
            reasons=("padded_short_clip",) if n_steps < span else (),
            rows_per_segment=span,
        )

    def cut(self, footage: Footage, generator: np.random.Generator | None = None) -> Segments:
        """Return one stack for each planned start, (S, 2L, H, W) float32."""
        config, starts, views = self.config, footage.plan, None
        if generator is not None:
            views = draw_views(1, config.augment, generator)
            starts = _shake(starts, _n_starts(footage, config), generator)

        def read(first: int, last: int) -> np.ndarray:
            stacks = _stacks([(footage, int(start)) for start in starts[first:last]], config)
            if views is None:
                return stacks
            seen = apply_views_to_flow(torch.from_numpy(stacks), views.repeat(len(stacks)))
            return seen.numpy()

        return Segments(footage.start_seconds[starts], footage.stop_seconds[starts], read)

    def training_segments(
        self,
        footages: Sequence[Footage],
        generator: np.random.Generator,
        device: torch.device = CPU,
    ) -> torch.Tensor:
        """Return one stack with a random start of each video, (B, 2L, H, W) float32."""
        config = self.config
        starts = [int(generator.integers(_n_starts(footage, config))) for footage in footages]
        chosen = list(zip(footages, starts, strict=True))
        if device.type == "cpu":
            stacks = torch.from_numpy(_stacks(chosen, config))
        else:
            stacks = _stacks_on(device, np.stack([_fields(*one, config) for one in chosen]), config)
        return apply_views_to_flow(stacks, draw_views(len(stacks), config.augment, generator))

    def build_encoder(self, n_classes: int) -> Encoder:
        """Return the paper's motion CNN, a reduced form of it, or an image CNN."""
        config = self.config
        if config.encoder != "motion_cnn":
            return build_cross_modality(
                config.encoder,
                n_classes,
                n_channels=2 * config.stack_length,
                input_size=config.input_size,
                weights=config.encoder_weights,
                partial_batch_norm=config.partial_batch_norm,
                dropout=config.encoder_dropout,
            )
        return MotionCNN(
            n_classes,
            config.stack_length,
            config.input_size,
            config.width,
            pool2=config.pool2,
            full6=config.full6,
            full7=config.full7,
            dropout=config.encoder_dropout,
            batch_norm=config.batch_norm,
        )


def _n_starts(footage: Footage, config: TemporalConfig) -> int:
    return max(1, len(footage.array) - (config.stack_length - 1) * config.stack_step)


def _fields(footage: Footage, start: int, config: TemporalConfig) -> np.ndarray:
    """Return one stack, (2L, H, W) float16; the last field is repeated if the video is too short."""
    span = (config.stack_length - 1) * config.stack_step + 1
    flow = footage.array[start : start + span]
    if len(flow) < span:
        flow = np.concatenate([flow, np.repeat(flow[-1:], span - len(flow), axis=0)])
    return stack_flow(flow, 0, config.stack_length, step=config.stack_step)


def _stacks(chosen: Sequence[tuple[Footage, int]], config: TemporalConfig) -> np.ndarray:
    """Return the stack of each (footage, start), (B, 2L, H, W) float32.

    Stacks are made in place: allocating memory costs more than the arithmetic.
    """
    height, width = chosen[0][0].array.shape[2:]
    stacks = np.empty((len(chosen), 2 * config.stack_length, height, width), np.float32)
    for (footage, start), stack in zip(chosen, stacks, strict=True):
        # torch converts float16 to float32 thirty times as fast as numpy, but needs a writable array.
        fields = np.require(_fields(footage, start, config), requirements=["C", "W"])
        torch.from_numpy(stack).copy_(torch.from_numpy(fields))
        if config.mean_removed:
            remove_mean(stack, out=stack)
    return stacks


def _stacks_on(device: torch.device, fields: np.ndarray, config: TemporalConfig) -> torch.Tensor:
    """Return stacks of fields (B, 2L, H, W), made on a GPU from half the bytes: training takes no longer."""
    stacks = to_device(torch.from_numpy(fields), device).float()
    if config.mean_removed:
        stacks -= stacks.mean(dim=(-2, -1), keepdim=True, dtype=torch.float64).float()
    return stacks


def _shake(starts: np.ndarray, n_starts: int, generator: np.random.Generator) -> np.ndarray:
    """Return planned starts, all moved by up to half their distance, within the valid range."""
    gap = int(np.median(np.diff(starts))) if len(starts) > 1 else 1
    return np.clip(starts + generator.integers(-(gap // 2), gap // 2 + 1), 0, n_starts - 1)


STREAM = TemporalStream
