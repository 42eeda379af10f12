"""Aggregators: segment embeddings of a video, in order → one video embedding.

All have one interface, `aggregator(segments, lengths)`: segments (B, S, D), of which the first `lengths[b]` belong to
video b; the rest is padding with any content. The result, (B, `aggregator.embedding_dim`), depends neither on the
padding nor on the other videos.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from tristream.errors import TristreamError

# Tkachenko 2018 §IV-E, §V-D
HIDDEN_DIM = 512
N_LAYERS = 2
DROPOUT = 0.5

Cell = Literal["gru", "lstm"]
_CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
KINDS = (*_CELLS, "attention", "mean", "mean_deviation", "max")


class SelfAttention(nn.Module):
    """Block of self-attention over the segments of each video, with residual and layer norm.

    Our reading of the paper's "attention" (Tkachenko 2018 §V-E, Table I), which stands "after the input layer" and
    cites Vaswani et al. 2017 (arXiv:1706.03762) without saying more: their attention sub-layer, dropout included.
    Positions are not encoded: the recurrent network after it depends on the order.

    Args:
        dim: D, width of a segment embedding.
        n_heads: None is 8 where 8 divides D, else 1.
    """

    def __init__(self, dim: int, n_heads: int | None = None, *, dropout: float = 0.1) -> None:
        super().__init__()
        n_heads = n_heads or (8 if dim % 8 == 0 else 1)
        self.attention = nn.MultiheadAttention(dim, n_heads, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S D"]:
        inside = _inside(segments, lengths)
        segments = torch.where(inside[:, :, None], segments, 0)  # a weight of 0 does not remove NaN
        attended, _ = self.attention(
            segments, segments, segments, key_padding_mask=~inside, need_weights=False
        )
        return self.norm(segments + self.dropout(attended))


class AttentionPooling(nn.Module):
    """Mean of the segment embeddings with learned weights: softmax over v · tanh(W x + b).

    Source: additive attention (Bahdanau et al. 2015, arXiv:1409.0473) with no query; the second reading of the paper's
    "attention". Independent of the order.
    """

    def __init__(
        self, input_dim: int, hidden_dim: int = HIDDEN_DIM, *, dropout: float = DROPOUT
    ) -> None:
        super().__init__()
        self.embedding_dim = input_dim
        self.input_dropout = nn.Dropout(dropout)
        self.score = nn.Sequential(
            nn.Linear(input_dim, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, 1, bias=False)
        )

    def forward(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B E"]:
        _check_lengths(segments, lengths)
        inside = _inside(segments, lengths)[:, :, None]
        segments = self.input_dropout(torch.where(inside, segments, 0))
        scores = torch.where(inside, self.score(segments), -torch.inf)  # (B, S, 1)
        return (scores.softmax(dim=1) * segments).sum(dim=1)


class RecurrentAggregator(nn.Module):
    """Stacked recurrent network; the embedding is the last hidden state of each direction of the top layer.

    Forward then backward: `cat(h_n[-2], h_n[-1])`. (The outputs at the last segment differ: there the backward
    direction has processed one segment.) The cells are PyTorch's: two biases, and the GRU's reset gate acts after
    the product with the hidden state. Keras 2018 had one bias and reset before the product.

    Args:
        input_dim: D, width of a segment embedding.
        hidden_dim: width of each direction.
        cell: "gru" or "lstm".
        dropout: on the input and between layers. The paper's third, before the softmax, belongs to the classifier.
        self_attention: put one `SelfAttention` block first.

    Raises:
        TristreamError: an unknown cell.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int = HIDDEN_DIM,
        n_layers: int = N_LAYERS,
        *,
        cell: Cell = "gru",
        bidirectional: bool = True,
        dropout: float = DROPOUT,
        self_attention: bool = False,
    ) -> None:
        super().__init__()
        if cell not in _CELLS:
            raise TristreamError(f"unknown recurrent cell {cell!r}; available: {', '.join(_CELLS)}")
        self.embedding_dim = hidden_dim * (2 if bidirectional else 1)
        self.self_attention = SelfAttention(input_dim) if self_attention else None
        self.input_dropout = nn.Dropout(dropout)
        self.rnn = _CELLS[cell](
            input_dim,
            hidden_dim,
            n_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if n_layers > 1 else 0.0,  # between layers
        )

    def forward(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B E"]:
        _check_lengths(segments, lengths)
        if self.self_attention is not None:
            segments = self.self_attention(segments, lengths)
        packed = pack_padded_sequence(
            self.input_dropout(segments), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, state = self.rnn(packed)
        last = (
            state[0] if isinstance(self.rnn, nn.LSTM) else state
        )  # (layers * directions, B, hidden_dim)
        return torch.cat([last[-2], last[-1]], dim=1) if self.rnn.bidirectional else last[-1]


def StackedBiGRU(
    input_dim: int, hidden_dim: int = HIDDEN_DIM, n_layers: int = N_LAYERS
) -> RecurrentAggregator:
    """The paper's aggregator: GRU, both directions, dropout 0.5; 1024-D at the defaults."""
    return RecurrentAggregator(input_dim, hidden_dim, n_layers)


class MeanAggregator(nn.Module):
    """Mean of the segment embeddings, optionally with their standard deviation; untrained, independent of the order.

    The deviation is the population's: 0 for a single segment.
    """

    def __init__(self, input_dim: int, *, with_deviation: bool = False) -> None:
        super().__init__()
        self.with_deviation = with_deviation
        self.embedding_dim = input_dim * (2 if with_deviation else 1)

    def forward(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B E"]:
        _check_lengths(segments, lengths)
        inside, count = _inside(segments, lengths)[:, :, None], lengths.to(segments.device)[:, None]
        mean = (
            torch.where(inside, segments, 0).sum(dim=1) / count
        )  # not a product: padding may be NaN
        if not self.with_deviation:
            return mean
        variance = torch.where(inside, segments - mean[:, None], 0).square().sum(dim=1) / count
        varies = variance > 0
        deviation = torch.where(
            varies, torch.where(varies, variance, 1).sqrt(), 0
        )  # the root has no slope at 0
        return torch.cat([mean, deviation], dim=1)


class MaxAggregator(nn.Module):
    """Largest value of each column over the segments; untrained, independent of the order.

    For short loud events: a mean dilutes one bark in five seconds of silence (ESC-10, docs/results.md).
    """

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.embedding_dim = input_dim

    def forward(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B E"]:
        _check_lengths(segments, lengths)
        return torch.where(_inside(segments, lengths)[:, :, None], segments, -torch.inf).amax(dim=1)


def build(
    kind: str,
    input_dim: int,
    *,
    hidden_dim: int = HIDDEN_DIM,
    n_layers: int = N_LAYERS,
    bidirectional: bool = True,
    dropout: float = DROPOUT,
    self_attention: bool = False,
) -> RecurrentAggregator | AttentionPooling | MeanAggregator | MaxAggregator:
    """Return the aggregator of this kind: "gru", "lstm", "attention", "mean", "mean_deviation" or "max".

    "attention" uses only the widths and dropout, the last three only `input_dim`; `self_attention` applies to the
    recurrent ones.

    Raises:
        TristreamError: an unknown kind.
    """
    if kind in _CELLS:
        return RecurrentAggregator(
            input_dim, hidden_dim, n_layers, cell=cast(Cell, kind), bidirectional=bidirectional, dropout=dropout,
            self_attention=self_attention,
        )  # fmt: skip
    if kind == "attention":
        return AttentionPooling(input_dim, hidden_dim, dropout=dropout)
    if kind == "max":
        return MaxAggregator(input_dim)
    if kind in KINDS:
        return MeanAggregator(input_dim, with_deviation=kind == "mean_deviation")
    raise TristreamError(f"unknown aggregator {kind!r}; available: {', '.join(KINDS)}")


def _inside(segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]) -> Bool[Tensor, "B S"]:
    """True where a row is a segment of its video, False for padding."""
    return (
        torch.arange(segments.shape[1], device=segments.device)
        < lengths.to(segments.device)[:, None]
    )


def _check_lengths(segments: Tensor, lengths: Tensor) -> None:
    if lengths.shape != segments.shape[:1]:
        raise TristreamError(
            f"{len(segments)} videos have lengths of shape {tuple(lengths.shape)}; there must be one length per video"
        )
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 1:
        raise TristreamError(
            f"video {int(lengths.argmin())} of the batch has {shortest} segments; it needs at least 1: mask it"
        )
    if longest > segments.shape[1]:
        raise TristreamError(
            f"video {int(lengths.argmax())} of the batch has a length of {longest} segments, "
            f"but the batch holds {segments.shape[1]} per video"
        )
