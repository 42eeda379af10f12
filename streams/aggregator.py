"""Aggregators: segment embeddings of a video, in order → one video embedding.

All have one interface, `aggregator(segments, lengths)`: segments (B, S, D), of which the first `lengths[b]` belong to
video b; the rest is padding with any content. The result, (B, `aggregator.embedding_dim`), depends neither on the
padding nor on the other videos. A sequence model also offers `states(segments, lengths)`, (B, S, embedding_dim): what
it holds after each segment, 0 for padding; read-outs of steps classify these.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tristream.errors import TristreamError
from tristream.streams.attention import AttentionPooling, RecurrentAttention, SelfAttention
from tristream.streams.sequences import check_lengths, inside

# Tkachenko 2018 §IV-E, §V-D
HIDDEN_DIM = 512
N_LAYERS = 2
DROPOUT = 0.5

N_STEPS = 8  # a choice of ours; Yao et al. read once for each word

Cell = Literal["gru", "lstm", "rnn_relu"]
Merge = Literal["concat", "sum"]
_CELLS: dict[str, type[nn.GRU] | type[nn.LSTM] | type[nn.RNN]] = {
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "rnn_relu": nn.RNN,
}
KINDS = (*_CELLS, "attention", "recurrent_attention", "mean", "mean_deviation", "max", "none")


@dataclass(frozen=True)
class More:
    """Rarer settings of recurrent aggregators.

    Attributes:
        merge: of the directions of a recurrent network.
        hidden_dims: width of each layer; none: `hidden_dim` for all.
        n_steps: readings of "recurrent_attention".
    """

    merge: Merge = "concat"
    hidden_dims: tuple[int, ...] = ()
    n_steps: int = N_STEPS


MORE = More()


class RecurrentAggregator(nn.Module):
    """Stacked recurrent network; the embedding is the last hidden state of each direction of the top layer.

    Forward then backward: `cat(h_n[-2], h_n[-1])`. (The outputs at the last segment differ: there the backward
    direction has processed one segment.) The cells are PyTorch's: two biases, and the GRU's reset gate acts after
    the product with the hidden state. Keras 2018 had one bias and reset before the product.

    Args:
        input_dim: D, width of a segment embedding.
        hidden_dim: width of each direction; with a sequence, of each layer in turn, and `n_layers` is its length.
        cell: "gru", "lstm" or "rnn_relu" (Elman's, with ReLU).
        merge: join the directions of every layer side by side, or add them (Giel & Diaz).
        dropout: on the input and between layers. The paper's third, before the softmax, belongs to the classifier.
        self_attention: put one `SelfAttention` block first.

    Raises:
        TristreamError: an unknown cell or merge.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int | Sequence[int] = HIDDEN_DIM,
        n_layers: int = N_LAYERS,
        *,
        cell: Cell = "gru",
        bidirectional: bool = True,
        merge: Merge = "concat",
        dropout: float = DROPOUT,
        self_attention: bool = False,
    ) -> None:
        super().__init__()
        if cell not in _CELLS:
            raise TristreamError(f"unknown recurrent cell {cell!r}; available: {', '.join(_CELLS)}")
        if merge not in ("concat", "sum"):
            raise TristreamError(f"unknown merge {merge!r}; available: concat, sum")
        widths = [hidden_dim] * n_layers if isinstance(hidden_dim, int) else list(hidden_dim)
        n_joined = 2 if bidirectional and merge == "concat" else 1
        self.merge = merge
        self.embedding_dim = widths[-1] * n_joined
        self.self_attention = SelfAttention(input_dim) if self_attention else None
        self.input_dropout = nn.Dropout(dropout)

        def layers(inputs: int, width: int, n: int) -> nn.RNNBase:
            return _CELLS[cell](
                inputs,
                width,
                n,
                batch_first=True,
                bidirectional=bidirectional,
                dropout=dropout if n > 1 else 0.0,  # between layers
                **({"nonlinearity": "relu"} if cell == "rnn_relu" else {}),
            )

        one_module = len(widths) == 1 or (len(set(widths)) == 1 and merge == "concat")
        self.rnn = layers(input_dim, widths[0], len(widths) if one_module else 1)
        self.upper = nn.ModuleList()  # layers that torch's own stacking cannot express
        if not one_module:
            for below, width in itertools.pairwise(widths):
                self.upper.append(layers(below * n_joined, width, 1))
        self.between_dropout = nn.Dropout(dropout)

    def forward(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B E"]:
        _, state = self._read(segments, lengths)
        last = state[0] if isinstance(state, tuple) else state  # (layers * directions, B, hidden)
        return self._merged(last[-2], last[-1]) if self.rnn.bidirectional else last[-1]

    def states(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S E"]:
        """Return the outputs of the top layer; 0 for padding."""
        packed, _ = self._read(segments, lengths)
        return self._joined(packed, segments.shape[1])

    def _read(self, segments: Tensor, lengths: Tensor) -> tuple[Any, Any]:
        """Return the packed outputs of the top layer, both directions side by side, and its final state."""
        check_lengths(segments, lengths)
        if self.self_attention is not None:
            segments = self.self_attention(segments, lengths)
        size, lengths = segments.shape[1], lengths.cpu()

        def packed(rows: Tensor) -> Any:
            return pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)

        outputs, state = self.rnn(packed(self.input_dropout(segments)))
        for layer in self.upper:
            outputs, state = layer(packed(self.between_dropout(self._joined(outputs, size))))
        return outputs, state

    def _joined(self, outputs: Any, size: int) -> Float[Tensor, "B S E"]:
        rows, _ = pad_packed_sequence(outputs, batch_first=True, total_length=size)
        return self._merged(*rows.chunk(2, dim=2)) if self.rnn.bidirectional else rows

    def _merged(self, forward: Tensor, backward: Tensor) -> Tensor:
        return forward + backward if self.merge == "sum" else torch.cat([forward, backward], dim=-1)


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
        check_lengths(segments, lengths)
        real, count = inside(segments, lengths)[:, :, None], lengths.to(segments.device)[:, None]
        mean = (
            torch.where(real, segments, 0).sum(dim=1) / count
        )  # not a product: padding may be NaN
        if not self.with_deviation:
            return mean
        variance = torch.where(real, segments - mean[:, None], 0).square().sum(dim=1) / count
        varies = variance > 0
        deviation = torch.where(
            varies, torch.where(varies, variance, 1).sqrt(), 0
        )  # the root has no slope at 0
        return torch.cat([mean, deviation], dim=1)

    def states(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B S D"]:
        """Return the segment embeddings; 0 for padding.

        Raises:
            TristreamError: with the deviation, which a single segment does not have.
        """
        check_lengths(segments, lengths)
        if self.with_deviation:
            raise TristreamError(
                "mean_deviation has no states; a read-out of steps needs kind = none"
            )
        return torch.where(inside(segments, lengths)[:, :, None], segments, 0)


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
        check_lengths(segments, lengths)
        return torch.where(inside(segments, lengths)[:, :, None], segments, -torch.inf).amax(dim=1)


def build(
    kind: str,
    input_dim: int,
    *,
    hidden_dim: int = HIDDEN_DIM,
    n_layers: int = N_LAYERS,
    bidirectional: bool = True,
    dropout: float = DROPOUT,
    self_attention: bool = False,
    more: More = MORE,
) -> nn.Module:
    """Return the aggregator of this kind, one of `KINDS`.

    The attentions use only the widths and dropout, the statistics ("mean" and "none", which are the same network,
    "mean_deviation", "max") only `input_dim`; `self_attention` applies to the recurrent ones.

    Raises:
        TristreamError: an unknown kind.
    """
    if kind in _CELLS:
        return RecurrentAggregator(
            input_dim, more.hidden_dims or hidden_dim, n_layers, cell=cast(Cell, kind), bidirectional=bidirectional,
            merge=more.merge, dropout=dropout, self_attention=self_attention,
        )  # fmt: skip
    if kind == "attention":
        return AttentionPooling(input_dim, hidden_dim, dropout=dropout)
    if kind == "recurrent_attention":
        return RecurrentAttention(input_dim, hidden_dim, n_steps=more.n_steps, dropout=dropout)
    if kind == "max":
        return MaxAggregator(input_dim)
    if kind in KINDS:
        return MeanAggregator(input_dim, with_deviation=kind == "mean_deviation")
    raise TristreamError(f"unknown aggregator {kind!r}; available: {', '.join(KINDS)}")
