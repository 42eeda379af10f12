"""Reading of sequences: segment embeddings → video embedding, logits, and logits of every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tristream.streams import aggregator
from tristream.streams.config import AggregatorConfig
from tristream.streams.consensus import Consensus, step_loss
from tristream.streams.sequences import clip_bounds, mean_of


@dataclass(frozen=True)
class Reading:
    """Result of reading some videos.

    Attributes:
        embedding: video embeddings.
        logits: of the videos.
        step_logits: of every segment, None if the softmax layer reads the video embedding.
    """

    embedding: Float[Tensor, "B E"]
    logits: Float[Tensor, "B K"]
    step_logits: Float[Tensor, "B S K"] | None


def build_aggregator(config: AggregatorConfig, input_dim: int) -> nn.Module:
    """Return a new aggregator with these settings."""
    return aggregator.build(
        config.kind,
        input_dim,
        hidden_dim=config.hidden_dim,
        n_layers=config.n_layers,
        bidirectional=config.bidirectional,
        dropout=config.dropout,
        self_attention=config.self_attention,
        more=aggregator.More(config.merge, config.hidden_dims, config.n_steps),
    )


def build_classifier(
    input_dim: int, n_classes: int, *, dropout: float, head_dims: Sequence[int] = ()
) -> nn.Sequential:
    """Return fully connected layers with ReLU, dropout, and the softmax layer's logits."""
    layers: list[nn.Module] = []
    for width in head_dims:
        layers += [nn.Linear(input_dim, width), nn.ReLU()]
        input_dim = width
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(input_dim, n_classes))


class SequenceReader:
    """Aggregator, classifier and consensus applied to sequences; it owns no weights.

    Args:
        aggregator: as those of `streams.aggregator`; with `states` for a consensus.
        classifier: of video embeddings, or of states.
        consensus: joins the logits of the steps; None: the classifier reads the video embedding.
        clip: length and stride of the clips; None: whole videos. In training mode one random clip of each video is
            read; in use all are, and their embeddings, logits (with "mean_prob": probabilities) are averaged.
    """

    def __init__(
        self,
        aggregator: nn.Module,
        classifier: nn.Module,
        consensus: Consensus | None,
        clip: tuple[int, int] | None,
    ) -> None:
        self.aggregator = aggregator
        self.classifier = classifier
        self.consensus = consensus
        self.clip = clip

    def __call__(self, embeddings: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]) -> Reading:
        """Read padded sequences; padding may hold anything."""
        if self.clip is None:
            return self._read(embeddings, lengths)
        clips = self._clips(lengths)
        return self._joined(self._read(*_cut(embeddings, clips)), clips, embeddings.shape[:2])

    def embed(
        self, embeddings: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B E"]:
        """Return the video embeddings alone."""
        if self.clip is not None:
            return self(embeddings, lengths).embedding
        if self.consensus is None:
            return self.aggregator(embeddings, lengths)
        return mean_of(self.aggregator.states(embeddings, lengths), lengths)  # type: ignore[operator]

    def steps_objective(
        self,
        embeddings: Float[Tensor, "B S D"],
        lengths: Int[Tensor, "B"],
        labels: Int[Tensor, "B"],
        label_smoothing: float,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B K"]]:
        """Return the loss of the steps (`step_loss`, of clips as of videos) and the logits of the videos."""
        clips = self._clips(lengths)
        cut, n_steps = _cut(embeddings, clips)
        reading = self._read(cut, n_steps)
        assert reading.step_logits is not None
        loss = step_loss(
            reading.step_logits,
            n_steps,
            labels[[clip.video for clip in clips]],
            label_smoothing=label_smoothing,
        )
        return loss, self._joined(reading, clips, embeddings.shape[:2]).logits

    @property
    def averages_probabilities(self) -> bool:
        """True if the results of steps and clips are joined after the softmax."""
        return self.consensus is not None and self.consensus.kind == "mean_prob"

    def _clips(self, lengths: Tensor) -> list[_Clip]:
        """Return all clips of every video, in training mode a random one."""
        clips: list[_Clip] = []
        for video, n in enumerate(lengths.tolist()):
            bounds = [(0, n)] if self.clip is None else clip_bounds(n, *self.clip)
            if self.classifier.training:
                bounds = [bounds[int(torch.randint(len(bounds), ()))]]
            clips += [_Clip(video, first, stop) for first, stop in bounds]
        return clips

    def _joined(self, of_clips: Reading, clips: Sequence[_Clip], size: torch.Size) -> Reading:
        """Return the readings of videos from those of their clips."""
        logits, steps = of_clips.logits, of_clips.step_logits
        owners = torch.tensor([clip.video for clip in clips], device=logits.device)
        if self.averages_probabilities:
            logits = _mean_of_groups(logits.softmax(dim=1), owners).log()
        else:
            logits = _mean_of_groups(logits, owners)
        return Reading(
            _mean_of_groups(of_clips.embedding, owners),
            logits,
            None if steps is None else _of_segments(steps, clips, size),
        )

    def _read(self, embeddings: Tensor, lengths: Tensor) -> Reading:
        if self.consensus is None:
            embedding = self.aggregator(embeddings, lengths)
            return Reading(embedding, self.classifier(embedding), None)
        states = self.aggregator.states(embeddings, lengths)  # type: ignore[operator]
        step_logits = self.classifier(states)
        return Reading(mean_of(states, lengths), self.consensus(step_logits, lengths), step_logits)


@dataclass(frozen=True)
class _Clip:
    """Segments [first, stop) of one video of the batch."""

    video: int
    first: int
    stop: int


def _cut(embeddings: Tensor, clips: Sequence[_Clip]) -> tuple[Tensor, Tensor]:
    """Return clips as a padded batch, and their lengths."""
    cut = [embeddings[clip.video, clip.first : clip.stop] for clip in clips]
    padded = nn.utils.rnn.pad_sequence(cut, batch_first=True)
    return padded, torch.tensor([len(clip) for clip in cut])


def _mean_of_groups(rows: Tensor, owners: Tensor) -> Tensor:
    """Return the mean of the rows of each owner 0 … n − 1."""
    n = int(owners.max()) + 1
    total = rows.new_zeros(n, rows.shape[1]).index_add(0, owners, rows)
    return total / owners.bincount()[:, None]


def _of_segments(steps: Tensor, clips: Sequence[_Clip], size: torch.Size) -> Tensor:
    """Return the log of each segment's mean probability over the clips that hold it; 0 / 0 in none."""
    total = steps.new_zeros(*size, steps.shape[2])
    n = steps.new_zeros(*size, 1)
    for row, clip in enumerate(clips):
        probabilities = steps[row, : clip.stop - clip.first].softmax(dim=1)
        total[clip.video, clip.first : clip.stop] += probabilities
        n[clip.video, clip.first : clip.stop] += 1
    return (total / n).log()
