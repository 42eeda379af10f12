"""Encoder, aggregator and classifier of one stream, composed; and their checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import nn

from tristream import streams
from tristream.errors import UsageError
from tristream.flow.estimators import is_learned
from tristream.store.checkpoint import (
    ArtifactError,
    load_artifact,
    load_config,
    save_artifact,
    save_config,
)
from tristream.store.lineage import space_id, versions
from tristream.streams.backend import Precision
from tristream.streams.config import (
    DataConfig,
    SamplerConfig,
    StreamConfig,
    identity_of,
    later_settings,
)
from tristream.streams.consensus import Consensus
from tristream.streams.flow_estimators import Estimators
from tristream.streams.flow_needs import estimators_for, names_of, seeds_of
from tristream.streams.reader import SequenceReader, build_aggregator, build_classifier
from tristream.streams.stream import Encoder, Stream
from tristream.streams.torch_backend import channels_last

if TYPE_CHECKING:
    from tristream.store.weights.library import Places

CONFIG_FILE = "config.json"
SCHEMA = 1  # raised by hand when the same weights give other embeddings


class StreamModel(nn.Module):
    """Segments → segment embeddings → video embedding → logits.

    Args:
        encoder: with `embed` and `embedding_dim`.
        aggregator: (segment embeddings (B, S, D), lengths (B,)) → (B, E), with `embedding_dim`.
        n_classes: of the softmax layer.
        dropout: before the softmax layer (the paper's third).
        head_dims: fully connected layers before it.
        consensus: joins the logits of the segments' states; None: the softmax layer reads the video embedding.
        clip: length and stride of the clips that are read one at a time; None: whole videos.
    """

    def __init__(
        self,
        encoder: Encoder,
        aggregator: nn.Module,
        n_classes: int,
        *,
        dropout: float = 0.5,
        head_dims: Sequence[int] = (),
        consensus: Consensus | None = None,
        clip: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.aggregator = aggregator
        embedding_dim = int(aggregator.embedding_dim)  # type: ignore[arg-type]
        self.classifier = build_classifier(
            embedding_dim, n_classes, dropout=dropout, head_dims=head_dims
        )
        self.consensus = consensus
        self.read = SequenceReader(aggregator, self.classifier, consensus, clip)

    @property
    def embedding_dim(self) -> int:
        """Width of a video embedding."""
        return int(self.aggregator.embedding_dim)  # type: ignore[arg-type]

    def aggregate(
        self, embeddings: Float[torch.Tensor, "B S D"], lengths: Int[torch.Tensor, " B"]
    ) -> Float[torch.Tensor, "B E"]:
        """Return video embeddings."""
        return self.read.embed(embeddings, lengths)

    def classify(
        self, embeddings: Float[torch.Tensor, "B S D"], lengths: Int[torch.Tensor, " B"]
    ) -> Float[torch.Tensor, "B n_classes"]:
        """Return logits from segment embeddings."""
        return self.read(embeddings, lengths).logits

    def encode(
        self, segments: torch.Tensor, lengths: Int[torch.Tensor, " B"]
    ) -> Float[torch.Tensor, "B S D"]:
        """Return the padded segment embeddings of B videos, whose segments are concatenated along the first axis."""
        embeddings = self.encoder.embed(segments)  # (sum of lengths, D)
        return nn.utils.rnn.pad_sequence(embeddings.split(lengths.tolist()), batch_first=True)

    def forward(
        self, segments: torch.Tensor, lengths: Int[torch.Tensor, " B"]
    ) -> Float[torch.Tensor, "B n_classes"]:
        """Return logits from the segments of B videos, concatenated along the first axis."""
        return self.classify(self.encode(segments, lengths), lengths)


@dataclass(frozen=True)
class Checksums:
    """sha256 of weights.

    Attributes:
        encoder: of the encoder's.
        model: of all; "" while the aggregator has not been trained.
    """

    encoder: str
    model: str = ""

    @classmethod
    def of(cls, model: StreamModel) -> Checksums:
        """Return those of a model."""
        return cls(cls.of_encoder(model).encoder, weights_sha256(model))

    @classmethod
    def of_encoder(cls, model: StreamModel) -> Checksums:
        """Return those of a model whose aggregator has not been trained."""
        return cls(weights_sha256(model.encoder))  # type: ignore[arg-type]


@dataclass
class TrainedStream:
    """Trained stream: configuration and weights.

    Attributes:
        stream: bound to its configuration.
        data: reading of its videos.
        classes: labels in the order of the logits: the sorted labels of the training split.
        model: on the CPU, in eval mode.
        checksums: of its weights.
        lineage: data and settings of its training; for people, free of secrets.
        precision: of the encoder's arithmetic.
        estimators: of its optical flow, shared with the streams it was loaded with; None: not loaded yet.
    """

    stream: Stream
    data: DataConfig
    classes: tuple[str, ...]
    model: StreamModel
    checksums: Checksums
    lineage: Mapping[str, Any]
    precision: Precision = "float32"
    estimators: Estimators | None = None

    @property
    def name(self) -> str:
        return self.stream.name

    @property
    def config(self) -> StreamConfig:
        """The stream's own configuration."""
        return self.stream.config

    @property
    def sampler(self) -> SamplerConfig:
        """Rule that chooses its segments."""
        return self.stream.sampler

    def rebound(
        self, *, config: StreamConfig | None = None, sampler: SamplerConfig | None = None
    ) -> TrainedStream:
        """Return the same weights with another configuration or sampler of the stream."""
        bound = streams.load(self.name, config or self.config, sampler or self.sampler)
        return replace(self, stream=bound)

    @property
    def space_id(self) -> str:
        """Name of the embedding space; only embeddings of one space are comparable."""
        reading = later_settings(self.config.aggregator)
        return space_id(
            {
                **self.segment_identity(),
                "model_sha256": self.checksums.model,
                "schema": SCHEMA,
                # the same weights, read in another way; at the defaults, the space is that of versions without these
                **({"reading": reading} if reading else {}),
            }
        )

    def segment_identity(self) -> dict[str, Any]:
        """Return what defines a segment embedding: reading, sampling, cutting and the encoder's weights."""
        # The checksum replaces the path of the weights: two machines keep the same file in different folders.
        training_only = {"encoder_training", "aggregator_training", "aggregator", "augment", "encode_batch_size",
                         *_weights_fields(self.config)}  # fmt: skip
        own = Estimators(seeds_of(self.stream))
        learned = [name for name in names_of(self.stream) if is_learned(name)]
        flow = (
            {"flow": [own.identity(name) for name in learned]}
            if learned and self.stream.needs_pictures
            else {}
        )
        return {
            **flow,
            "stream": self.name,
            "stream_schema": self.stream.schema,
            "config": identity_of(self.config, exclude=training_only),
            "sampler": self.sampler.model_dump(mode="json"),
            # without a crop, the space is that of versions that had none
            "data": self.data.model_dump(mode="json", exclude_none=True),
            "encoder_sha256": self.checksums.encoder,
            "precision": self.precision,
        }


def check_same_reading(trained: Sequence[TrainedStream]) -> None:
    """Check that streams read videos in the same way: one decode serves all.

    Raises:
        UsageError: two streams were trained with different [data] or [sampler] settings.
    """
    first = trained[0]
    for other in trained[1:]:
        if (other.data, other.sampler) != (first.data, first.sampler):
            raise UsageError(
                f"'{first.name}' and '{other.name}' were trained with different [data] or [sampler] "
                "settings; train one of them again with those of the other, or embed them one by "
                "one with --streams"
            )


def shared_estimators(
    trained: Iterable[TrainedStream], *, where: Places | None = None
) -> Estimators:
    """Return the flow estimators of some trained streams: those they were loaded with, if any.

    Args:
        trained: streams that are used together.
        where: places of pretrained weights; None: the usual ones.

    Raises:
        TristreamError: two streams ran one estimator with different random weights.
    """
    trained = list(trained)
    for stream in trained:
        if stream.estimators is not None:
            return stream.estimators
    return estimators_for([one.stream for one in trained], where=where)


def build_model(stream: Stream, n_classes: int) -> StreamModel:
    """Return a new model, with random weights (or the encoder's from the file that is configured)."""
    encoder = _build_encoder(stream, n_classes)
    parts = stream.config.aggregator
    is_of_steps = parts.readout != "embedding"
    model = StreamModel(
        encoder,
        build_aggregator(parts, encoder.embedding_dim),
        n_classes,
        dropout=parts.dropout,
        head_dims=parts.head_dims,
        consensus=Consensus(parts.readout, n_stretches=parts.n_stretches) if is_of_steps else None,
        clip=parts.clip,
    )
    channels_last(model)
    return model


def _build_encoder(stream: Stream, n_classes: int) -> Encoder:
    seed = getattr(stream.config, "weights_seed", None)
    if seed is None:
        return stream.build_encoder(n_classes)
    # they replace pretrained weights, so they do not depend on the seed of the training
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return stream.build_encoder(n_classes)


def weights_sha256(module: nn.Module) -> str:
    """Return the sha256 over names, shapes and bytes of every parameter and buffer."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous().numpy()
        sha.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def save(folder: Path, trained: TrainedStream) -> None:
    """Write checkpoint.safetensors and config.json; neither can hold code."""
    arrays = {
        name: tensor.detach().cpu().numpy() for name, tensor in trained.model.state_dict().items()
    }
    config = {
        "stream": trained.name,
        "config": trained.config.model_dump(mode="json"),
        "sampler": trained.sampler.model_dump(mode="json"),
        "data": trained.data.model_dump(mode="json"),
        "classes": list(trained.classes),
        "encoder_sha256": trained.checksums.encoder,
        "model_sha256": trained.checksums.model,
        "space_id": trained.space_id,
        "precision": trained.precision,
        "lineage": dict(trained.lineage),
        "versions": versions(),
    }
    save_artifact(folder / "checkpoint", arrays, config, config_file=CONFIG_FILE)


def set_precision(folder: Path, trained: TrainedStream) -> None:
    """Write the precision of `trained` and the resulting space_id; the weights stay."""
    stored = load_config(folder / "checkpoint", config_file=CONFIG_FILE)
    changed = {"precision": trained.precision, "space_id": trained.space_id}
    save_config(folder / "checkpoint", {**stored, **changed}, config_file=CONFIG_FILE)


def load(folder: Path) -> TrainedStream:
    """Load the stream that was trained into `folder`.

    Raises:
        ArtifactError: a file is missing or damaged.
        TristreamError: its stream is not installed.
    """
    arrays, stored = load_artifact(folder / "checkpoint", config_file=CONFIG_FILE)
    kind = streams.stream_class(stored["stream"])
    try:
        config = kind.Config.model_validate(stored["config"])
        sampler = SamplerConfig.model_validate(stored["sampler"])
        data = DataConfig.model_validate(stored["data"])
    except ValidationError as error:
        problem = error.errors()[0]
        raise ArtifactError(
            f"{folder / CONFIG_FILE} was written by another version of tristream "
            f"({'.'.join(map(str, problem['loc']))}: {problem['msg']}); train the stream again with --force"
        ) from error
    without_files = config.model_copy(update=dict.fromkeys(_weights_fields(config)))
    model = build_model(  # its weights are in the checkpoint
        kind(without_files, sampler), len(stored["classes"])
    )
    model.load_state_dict(
        {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    )
    return TrainedStream(
        stream=kind(config, sampler),
        data=data,
        classes=tuple(stored["classes"]),
        model=model.eval(),
        checksums=Checksums(stored["encoder_sha256"], stored["model_sha256"]),
        lineage=stored["lineage"],
        precision=stored.get("precision", "float32"),
    )


def _weights_fields(config: StreamConfig) -> list[str]:
    """Names of the fields that hold files of weights."""
    return [name for name in config.model_dump() if name.endswith("_weights")]


def pad(sequences: Sequence[Float[np.ndarray, "_ D"]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the segment embeddings of several videos as (B, S, D), padded with zeros, and their lengths (B,)."""
    # copies, because mapped arrays are read-only
    tensors = [torch.from_numpy(np.array(sequence)) for sequence in sequences]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths
