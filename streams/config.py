"""Settings that all streams have in common. The defaults are the paper's (Tkachenko 2018)."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, Field, field_validator, model_validator

from tristream.errors import TristreamError

Crop = tuple[
    float, float, float, float
]  # top, left, bottom, right; parts of the frame's height and width

# Unless the size is a multiple of 8, threads share the rows unevenly, and the bits of a row depend on its place in the
# batch (7 rows on 2 threads: 2e-6 relative; x86, torch 2.15).
ENCODE_BATCH_SIZE = "fixed, the last batch is padded; a multiple of 8, so that no row depends on its place in the batch"


# A setting that is younger than the first stored embeddings: at its default it is no part of any identity.
LATER: dict[str, Any] = {"later": True}


def identity_of(config: Any, *, exclude: set[str] | None = None) -> dict[str, Any]:
    """Return the settings as JSON, without the younger ones that have their default values.

    Identities and signatures of what was made before such a setting existed stay the same.
    """
    settings: dict[str, Any] = config.model_dump(mode="json", exclude=exclude)
    for name in list(settings):
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            settings[name] = identity_of(value)
        elif is_later(config, name) and value == type(config).model_fields[name].default:
            del settings[name]
    return settings


def later_settings(config: BaseModel) -> dict[str, Any]:
    """Return the younger settings that do not have their default values, as JSON."""
    return {name: value for name, value in identity_of(config).items() if is_later(config, name)}


def is_later(config: BaseModel, name: str) -> bool:
    """True for a setting that is marked with `LATER`."""
    return type(config).model_fields[name].json_schema_extra == LATER


SEQUENCE_KINDS = ("gru", "lstm", "rnn_relu", "mean", "none")  # aggregators with `states`


class DataConfig(BaseModel, extra="forbid", frozen=True):
    """Reading of videos."""

    max_side_px: int = Field(
        320, ge=16, description="frames are scaled down until their longer side fits"
    )
    crop: Crop | None = Field(
        None, description="part of the frame that is used: [top, left, bottom, right]"
    )

    @field_validator("crop")
    @classmethod
    def _is_a_part(cls, crop: Crop | None) -> Crop | None:
        if crop is not None and not (0 <= crop[0] < crop[2] <= 1 and 0 <= crop[1] < crop[3] <= 1):
            raise TristreamError(
                "it must be [top, left, bottom, right], 0 <= top < bottom <= 1, 0 <= left < right <= 1"
            )
        return crop


class SamplerConfig(BaseModel, extra="forbid", frozen=True):
    """Choice of the segments of a video (paper, section IV-F; the rule is in `flow.sampling`)."""

    method: Literal["adaptive", "uniform"] = Field(
        "adaptive", description="adaptive: more samples where there is more motion"
    )
    n_samples: int = Field(180, ge=1, description="budget per video")
    n_segments: int = Field(
        16, ge=1, description="parts of a video that share the budget by their motion"
    )
    max_seconds: float = Field(36.0, gt=0, description="the rest of a longer video is ignored")
    estimator: str = Field("dis_ultrafast", description="optical flow that measures the motion")
    weights_seed: int | None = Field(
        None, description="of random weights of a learned estimator (--random-weights)"
    )
    max_side_px: int = Field(
        128, ge=16, description="frames are scaled down to this before motion is measured"
    )
    mean_removed: bool = Field(
        False, description="measure motion relative to the camera's (each field's mean)"
    )


class AggregatorConfig(BaseModel, extra="forbid", frozen=True):
    """Aggregator: segment embeddings to video embedding (paper, section IV-E), and how it is classified."""

    kind: Literal[
        "gru",
        "lstm",
        "rnn_relu",
        "attention",
        "recurrent_attention",
        "mean",
        "mean_deviation",
        "max",
        "none",
    ] = Field(
        "gru", description="network, or statistic over the segments; none: each segment by itself"
    )
    hidden_dim: int = Field(512, ge=1, description="units of each direction of each layer")
    n_layers: int = Field(2, ge=1, description="stacked recurrent layers")
    bidirectional: bool = Field(True, description="read the sequence in both directions")
    dropout: float = Field(
        0.5, ge=0, lt=1, description="on the input, between layers, and before the softmax layer"
    )
    self_attention: bool = Field(
        False,
        description="put a self-attention block before gru, lstm or rnn_relu: the paper's '+ attention'",
    )
    merge: Literal["concat", "sum"] = Field(
        "concat",
        description="two directions of a recurrent network side by side, or added",
        json_schema_extra=LATER,
    )
    hidden_dims: tuple[int, ...] = Field(
        (),
        description="units of each recurrent layer; none: n_layers of hidden_dim",
        json_schema_extra=LATER,
    )
    n_steps: int = Field(
        8, ge=1, description="readings of recurrent_attention", json_schema_extra=LATER
    )
    readout: Literal["embedding", "mean_prob", "mean_logits", "max_logits", "weighted_logits"] = (
        Field(
            "embedding",
            description="the softmax layer reads the video embedding, or each step, whose results are joined",
            json_schema_extra=LATER,
        )
    )
    n_stretches: int = Field(
        3,
        ge=1,
        description="weighted_logits: stretches of a video, each with a weight",
        json_schema_extra=LATER,
    )
    loss: Literal["video", "steps"] = Field(
        "video",
        description="of the joined result, or the mean loss of the steps",
        json_schema_extra=LATER,
    )
    clip_length: int | None = Field(
        None,
        ge=1,
        description="segments that are read at a time, their results averaged; none: the whole video",
        json_schema_extra=LATER,
    )
    clip_stride: int | None = Field(
        None,
        ge=1,
        description="from one clip to the next; none: clip_length",
        json_schema_extra=LATER,
    )
    head_dims: tuple[int, ...] = Field(
        (),
        description="fully connected layers with ReLU before the softmax layer",
        json_schema_extra=LATER,
    )

    @field_validator("hidden_dims", "head_dims")
    @classmethod
    def _are_widths(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if min(widths, default=1) < 1:
            raise TristreamError("each width must be at least 1")
        return widths

    @model_validator(mode="after")
    def _fits_together(self) -> AggregatorConfig:
        if self.readout != "embedding" and self.kind not in SEQUENCE_KINDS:
            raise TristreamError(
                f"readout = {self.readout} classifies the steps of a sequence, and kind = {self.kind} has none; "
                f"choose kind from {', '.join(SEQUENCE_KINDS)}, or readout = embedding"
            )
        if self.loss == "steps" and self.readout == "embedding":
            raise TristreamError(
                "loss = steps needs a readout of steps, not embedding; choose mean_prob or mean_logits"
            )
        if self.clip_stride is not None and self.clip_length is None:
            raise TristreamError(
                f"clip_stride = {self.clip_stride} has no effect without clip_length; set both"
            )
        if self.clip_stride is not None and self.clip_stride > (self.clip_length or 0):
            raise TristreamError(
                f"clip_stride = {self.clip_stride} would skip segments between clips of {self.clip_length}; "
                "it must not be above clip_length"
            )
        return self

    @property
    def clip(self) -> tuple[int, int] | None:
        """Length and stride of the clips; None: whole videos."""
        if self.clip_length is None:
            return None
        return self.clip_length, self.clip_stride or self.clip_length


class TrainingConfig(BaseModel, extra="forbid", frozen=True):
    """One phase of training. The defaults are the paper's for the BiGRU (section V-D)."""

    epochs: int = Field(200, ge=1, description="at most")
    batch_size: int = Field(32, ge=1, description="videos of one step (mode segments: segments)")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="rule of the steps")
    learning_rate: float = Field(1e-2, gt=0, description="size of the first steps")
    weight_decay: float = Field(0.0, ge=0, description="shrinks the weights in every step")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Nesterov; the paper does not state its value"
    )
    schedule: Literal["plateau", "one_cycle", "constant", "step"] = Field(
        "plateau", description="course of the learning rate"
    )
    step_epochs: int = Field(
        20,
        ge=1,
        description="step: multiply the rate by step_factor after this many epochs",
        json_schema_extra=LATER,
    )
    step_factor: float = Field(
        0.1, gt=0, le=1, description="step: see step_epochs", json_schema_extra=LATER
    )
    reduce_patience: int = Field(
        5, ge=1, description="plateau: divide the rate by 10 after this many epochs without gain"
    )
    stop_patience: int | None = Field(
        10, description="stop after this many epochs without gain; none: never"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the target that is spread over all classes"
    )


class EncoderPhase(TrainingConfig, extra="forbid", frozen=True):
    """Training of the encoder.

    `segments`: on single random segments, each with its video's label. `end_to_end`: together with the aggregator,
    on whole sequences. `frozen`: not trained.
    """

    mode: Literal["segments", "end_to_end", "frozen"] = Field(
        "segments", description="on single segments, with the aggregator, or not at all"
    )
    segments_per_video: int = Field(
        1, ge=1, description="random segments of each video in one epoch (mode segments)"
    )
    n_segments: int = Field(
        1,
        ge=1,
        description="mode segments: one random segment of each of so many stretches, their logits averaged (TSN)",
        json_schema_extra=LATER,
    )


class AggregatorPhase(TrainingConfig, extra="forbid", frozen=True):
    """Training of the aggregator, on the segment embeddings of the finished encoder."""

    n_views: int = Field(
        1, ge=1, description="augmented versions of each training video; 1: unaugmented"
    )
    bucket_by_length: bool = Field(
        False, description="batches of videos of similar length: less padding, less random"
    )


class AugmentConfig(BaseModel, extra="forbid", frozen=True):
    """Random differences between views of a training video."""

    flip: bool = Field(True, description="mirror half of the videos left to right")
    crop_scale: tuple[float, float] = Field(
        (0.75, 1.0), description="side of the crop over the side of the frame"
    )
    shift: float = Field(
        0.15, ge=0, description="centre of the crop: largest offset, as a part of the side"
    )
    corner_crops: tuple[float, ...] = Field(
        (),
        description="sides of TSN's crops over those of the frame, large to small; none: crop_scale and shift",
    )
    rotation: float = Field(
        0.0,
        ge=0,
        le=180,
        description="largest angle of a turn, degrees; flow vectors turn with it",
        json_schema_extra=LATER,
    )
    zoom: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="width and height of the crop, each apart, change by up to this part",
        json_schema_extra=LATER,
    )
    roll: bool = Field(
        False, description="torus shift; only valid for frames without a border (the workshop's)"
    )


@runtime_checkable
class StreamConfig(Protocol):
    """Parts of a stream's own configuration that shared code reads; a folder adds its own.

    Attributes:
        encode_batch_size: rows of every batch of the encoder.
        encoder_training: training of the encoder.
        aggregator: from segment embeddings to the video embedding.
        aggregator_training: training of the aggregator.
    """

    @property
    def encode_batch_size(self) -> int: ...

    @property
    def encoder_training(self) -> EncoderPhase: ...

    @property
    def aggregator(self) -> AggregatorConfig: ...

    @property
    def aggregator_training(self) -> AggregatorPhase: ...

    def model_dump(self, *, mode: str = ..., exclude: Any = ...) -> dict[str, Any]: ...

    def model_copy(self, *, update: dict[str, Any] | None = ...) -> StreamConfig: ...
