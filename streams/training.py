"""Training of one stream: first its encoder, then its aggregator; phases can be skipped and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from tristream.errors import TristreamError
from tristream.store.lineage import digest
from tristream.streams.backend import CPU, Backend, Precision
from tristream.streams.batches import Batch, batches_of, batches_of_like_length
from tristream.streams.config import identity_of
from tristream.streams.encoding import BatchFiller
from tristream.streams.model import StreamModel, build_model, pad
from tristream.streams.parallel import Ranks
from tristream.streams.segmental import segmental_objective, stretches_of
from tristream.streams.segments import Footage
from tristream.streams.spool import Spool
from tristream.streams.stream import Stream
from tristream.streams.training_loop import (
    ALONE,
    Objective,
    Phase,
    State,
    cross_entropy,
    run_phase,
)

VAL_SEGMENTS = 8  # of each validation video, evenly spread; more cost time and change little


@dataclass(frozen=True)
class Example:
    """Labelled video as a stream keeps it.

    Attributes:
        footage: its uncut data.
        embedding: (S, D) of the planned segments, if the encoder is already finished; the footage is not needed then.
    """

    video_id: str
    footage: Footage | None
    label: int
    embedding: Float[np.ndarray, "S D"] | None = None

    @property
    def n_kept(self) -> int:
        """Number of kept rows."""
        return len(self.embedding if self.embedding is not None else self.cuttable.array)

    @property
    def cuttable(self) -> Footage:
        """Its footage, which must exist."""
        assert self.footage is not None, f"{self.video_id} has been kept as segment embeddings only"
        return self.footage


@dataclass(frozen=True)
class Examples:
    """Labelled videos of one training.

    Attributes:
        train: videos to learn.
        val: videos that choose the best epoch.
        n_classes: of the softmax layers.
    """

    train: Sequence[Example]
    val: Sequence[Example]
    n_classes: int


def train(
    stream: Stream,
    examples: Examples,
    *,
    seed: int,
    backend: Backend,
    precision: Precision = "float32",
    ranks: Ranks = ALONE,
    state: State | None = None,
    on_epoch: Callable[[str, dict[str, float]], None] = lambda phase, metrics: None,
) -> StreamModel:
    """Return a model that has learned the training examples, on the CPU, in eval mode.

    Args:
        stream: cuts the footage and builds the encoder.
        examples: for training and validation.
        seed: of everything random.
        backend: runs the finished encoder; the training is on its device.
        precision: of the training; the finished encoder embeds in float32.
        ranks: processes that train together.
        state: its path is the folder of the resumable states of the phases; its signature, what
            else they must have been made with (files, settings, seed). None: not resumable.
        on_epoch: (name of the phase, metrics of an epoch).

    Raises:
        TrainingDiverged: a loss is not finite.
        TristreamError: fewer than two classes.
    """
    if examples.n_classes < 2:
        raise TristreamError(
            f"the training videos have {examples.n_classes} class; cross-entropy needs two. "
            "Take trained streams from another run (--from RUN) instead"
        )
    device = backend.device
    model = new_model(stream, examples.n_classes, seed=seed)

    def run(phase: Phase) -> None:
        own = state and replace(
            state,
            path=state.path / f"state-{phase.name}",
            signature=digest([state.signature, training_signature(stream, examples)]),
        )
        run_phase(
            phase,
            seed=seed,
            device=device,
            state=own,
            precision=precision,
            ranks=ranks,
            on_epoch=lambda metrics: on_epoch(phase.name, metrics),
        )

    mode = stream.config.encoder_training.mode
    if mode == "segments":
        # MPS has no float64 and lacks some kinds of padding
        made_on = device if device.type == "cuda" else CPU
        run(encoder_phase(stream, model, examples, device=made_on))
    elif mode == "end_to_end":
        run(end_to_end_phase(stream, model, examples))
        return model.cpu().eval()
    run(aggregator_phase(stream, model, examples, seed=seed, backend=backend))
    return model.cpu().eval()


def new_model(stream: Stream, n_classes: int, *, seed: int) -> StreamModel:
    """Return the model that a training with this seed begins with."""
    torch.manual_seed(int(digest([seed, stream.name, "weights"])[:8], 16))
    return build_model(stream, n_classes)


def encoder_phase(
    stream: Stream,
    model: StreamModel,
    examples: Examples,
    *,
    device: torch.device = CPU,
) -> Phase:
    """Return the phase that trains on single random segments with their videos' labels, made on `device`."""
    settings = stream.config.encoder_training
    place = [] if device.type == "cpu" else [device]  # a stream may know no other device
    pool = list(examples.train) * settings.segments_per_video
    if settings.n_segments > 1:
        return _segmental_phase(stream, model, pool, examples.val, place)
    # The validation segments are the same in every epoch: a few of each video, cut once.
    held_out = [
        (segment, example) for example in examples.val for segment in _spread(stream, example)
    ]

    def train_batches(generator: np.random.Generator) -> Iterator[Batch]:
        for rows in batches_of(len(pool), settings.batch_size, generator):
            picked = [pool[row] for row in rows]
            inputs = stream.training_segments(
                [example.cuttable for example in picked], generator, *place
            )
            yield _batch((inputs,), picked)

    def val_batches() -> Iterator[Batch]:
        for rows in batches_of(len(held_out), stream.config.encode_batch_size):
            picked = [held_out[row] for row in rows]
            yield _batch(
                (torch.stack([segment for segment, _ in picked]),),
                [example for _, example in picked],
            )

    return Phase(
        name=f"{stream.name}-encoder",
        config=settings,
        module=model.encoder,  # type: ignore[arg-type]
        objective=cross_entropy(model.encoder),
        n_batches=len(batches_of(len(pool), settings.batch_size)),
        train_batches=train_batches,
        val_batches=val_batches,
    )


def _spread(stream: Stream, example: Example) -> list[torch.Tensor]:
    """Return a few segments of a video, evenly spread."""
    segments = stream.cut(example.cuttable)
    spread = np.linspace(0, len(segments) - 1, min(VAL_SEGMENTS, len(segments)))
    return [
        torch.from_numpy(np.array(segments.read(index, index + 1)[0]))
        for index in np.unique(spread.round().astype(int)).tolist()
    ]


def _segmental_phase(
    stream: Stream,
    model: StreamModel,
    pool: Sequence[Example],
    held_out: Sequence[Example],
    place: list[torch.device],
) -> Phase:
    """Return the phase that trains on one random segment of each stretch of a video (TSN)."""
    settings = stream.config.encoder_training
    of_val = [(torch.stack(_spread(stream, example)), example) for example in held_out]

    def train_batches(generator: np.random.Generator) -> Iterator[Batch]:
        for rows in batches_of(len(pool), settings.batch_size, generator):
            picked = [pool[row] for row in rows]
            parts = [
                part
                for example in picked
                for part in stretches_of(example.cuttable, settings.n_segments)
            ]
            counts = torch.full((len(picked),), settings.n_segments)
            yield _batch((stream.training_segments(parts, generator, *place), counts), picked)

    def val_batches() -> Iterator[Batch]:
        for rows in batches_of(len(of_val), settings.batch_size):
            segments = [of_val[row][0] for row in rows]
            counts = torch.tensor([len(one) for one in segments])
            yield _batch((torch.cat(segments), counts), [of_val[row][1] for row in rows])

    return Phase(
        name=f"{stream.name}-encoder",
        config=settings,
        module=model.encoder,  # type: ignore[arg-type]
        objective=segmental_objective(model.encoder),
        n_batches=len(batches_of(len(pool), settings.batch_size)),
        train_batches=train_batches,
        val_batches=val_batches,
    )


def end_to_end_phase(
    stream: Stream,
    model: StreamModel,
    examples: Examples,
) -> Phase:
    """Return the phase that trains encoder and aggregator together on whole sequences."""
    settings = stream.config.encoder_training

    def batch(picked: Sequence[Example], generator: np.random.Generator | None) -> Batch:
        cuts = [
            torch.from_numpy(stream.cut(example.cuttable, generator).array) for example in picked
        ]
        return _batch((torch.cat(cuts), torch.tensor([len(cut) for cut in cuts])), picked)

    def train_batches(generator: np.random.Generator) -> Iterator[Batch]:
        for rows in batches_of(len(examples.train), settings.batch_size, generator):
            yield batch([examples.train[row] for row in rows], generator)

    def val_batches() -> Iterator[Batch]:
        for rows in batches_of(len(examples.val), settings.batch_size):
            yield batch([examples.val[row] for row in rows], None)

    return Phase(
        name=f"{stream.name}-end_to_end",
        config=settings,
        module=model,
        objective=_sequence_objective(stream, model, encodes=True),
        n_batches=len(batches_of(len(examples.train), settings.batch_size)),
        train_batches=train_batches,
        val_batches=val_batches,
    )


def aggregator_phase(
    stream: Stream,
    model: StreamModel,
    examples: Examples,
    *,
    seed: int,
    backend: Backend,
) -> Phase:
    """Return the phase that trains the aggregator on segment embeddings of the finished encoder."""
    settings = stream.config.aggregator_training
    # The encoder's weights are neither saved, restored nor optimised in this phase.
    parts = {"aggregator": model.aggregator, "classifier": model.classifier}
    if model.consensus is not None:
        parts["consensus"] = model.consensus
    module = torch.nn.ModuleDict(parts)
    generator = np.random.default_rng(int(digest([seed, stream.name, "views"])[:8], 16))

    filler: BatchFiller[list[np.ndarray]] = BatchFiller(
        model.encoder, stream.config.encode_batch_size, backend
    )
    spool = Spool()  # the segment embeddings of thousands of videos exceed a machine's memory

    def embed(videos: Sequence[Example], n_views: int) -> list[list[Float[np.ndarray, "S D"]]]:
        """Embed all views of every example, on disk; batches are filled across them."""
        embedded: list[list[np.ndarray]] = [[] for _ in videos]
        for example, views in zip(videos, embedded, strict=True):
            if example.embedding is not None:
                views.append(example.embedding)
                continue
            for view in range(n_views):
                segments = stream.cut(example.cuttable, generator if view > 0 else None)
                for owner, embedding in filler.add(views, segments):
                    owner.append(spool.keep(embedding))
        for owner, embedding in filler.finish():
            owner.append(spool.keep(embedding))
        return embedded

    views = embed(examples.train, settings.n_views)
    held_out = [embedding for [embedding] in embed(examples.val, 1)]

    def train_batches(generator: np.random.Generator) -> Iterator[Batch]:
        if settings.bucket_by_length:
            lengths = [len(sequences[0]) for sequences in views]
            batches = batches_of_like_length(lengths, settings.batch_size, generator)
        else:
            batches = batches_of(len(views), settings.batch_size, generator)
        for rows in batches:
            sequences = [views[row][generator.integers(settings.n_views)] for row in rows]
            yield _batch(pad(sequences), [examples.train[row] for row in rows])

    def val_batches() -> Iterator[Batch]:
        for rows in batches_of(len(held_out), settings.batch_size):
            yield _batch(pad([held_out[row] for row in rows]), [examples.val[row] for row in rows])

    return Phase(
        name=f"{stream.name}-aggregator",
        config=settings,
        module=module,
        objective=_sequence_objective(stream, model, encodes=False),
        n_batches=len(batches_of(len(views), settings.batch_size)),
        train_batches=train_batches,
        val_batches=val_batches,
    )


def _sequence_objective(stream: Stream, model: StreamModel, *, encodes: bool) -> Objective:
    """Return the objective of the read-out; the inputs are segment embeddings, or segments if `encodes`."""
    if stream.config.aggregator.loss == "video":
        return cross_entropy(model if encodes else model.classify)

    def objective(
        inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, label_smoothing: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sequences, lengths = inputs
        embeddings = model.encode(sequences, lengths) if encodes else sequences
        return model.read.steps_objective(embeddings, lengths, labels, label_smoothing)

    return objective


def training_signature(stream: Stream, examples: Examples) -> str:
    """Return a digest of all that a training depends on; a state of another digest is not resumed."""
    parts, held_out = (
        [[example.video_id, example.label, example.n_kept] for example in part]
        for part in (examples.train, examples.val)
    )
    return digest([identity_of(stream.config), parts, held_out])


def _batch(inputs: tuple[torch.Tensor, ...], examples: Sequence[Example]) -> Batch:
    return Batch(
        inputs,
        torch.tensor([example.label for example in examples]),
        [e.video_id for e in examples],
    )
