"""Attention over the segments of a video: self-attention, pooling, and a recurrent reader."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tristream.errors import TristreamError
from tristream.streams.sequences import check_lengths, inside


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
        real = inside(segments, lengths)
        segments = torch.where(real[:, :, None], segments, 0)  # a weight of 0 does not remove NaN
        attended, _ = self.attention(
            segments, segments, segments, key_padding_mask=~real, need_weights=False
        )
        return self.norm(segments + self.dropout(attended))


class AttentionPooling(nn.Module):
    """Mean of the segment embeddings with learned weights: softmax over v · tanh(W x + b).

    Source: additive attention (Bahdanau et al. 2015, arXiv:1409.0473) with no query; the second reading of the paper's
    "attention". Independent of the order.
    """

    def __init__(self, input_dim: int, hidden_dim: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.embedding_dim = input_dim
        self.input_dropout = nn.Dropout(dropout)
        self.score = nn.Sequential(
            nn.Linear(input_dim, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, 1, bias=False)
        )

    def forward(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B E"]:
        check_lengths(segments, lengths)
        real = inside(segments, lengths)[:, :, None]
        segments = self.input_dropout(torch.where(real, segments, 0))
        scores = torch.where(real, self.score(segments), -torch.inf)  # (B, S, 1)
        return (scores.softmax(dim=1) * segments).sum(dim=1)


class SoftAttention(nn.Module):
    """Mean of the segments with weights that depend on a state: softmax over w · tanh(W h + U x + b).

    Source: Yao et al. 2015 (arXiv:1502.08029), §3.2.

    Args:
        segment_dim: D, width of a segment x.
        state_dim: width of the state h.
        hidden_dim: width of the hidden layer.
    """

    def __init__(self, segment_dim: int, state_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.of_segment = nn.Linear(segment_dim, hidden_dim)  # U and b
        self.of_state = nn.Linear(state_dim, hidden_dim, bias=False)  # W
        self.score = nn.Linear(hidden_dim, 1, bias=False)  # w

    def forward(
        self,
        segments: Float[Tensor, "B S D"],
        state: Float[Tensor, "B H"],
        lengths: Int[Tensor, "B"],
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B S"]]:
        """Return the weighted mean and the weights, 0 for padding."""
        real = inside(segments, lengths)[:, :, None]
        segments = torch.where(real, segments, 0)
        hidden = torch.tanh(self.of_segment(segments) + self.of_state(state)[:, None])
        weights = torch.where(real, self.score(hidden), -torch.inf).softmax(dim=1)  # (B, S, 1)
        return (weights * segments).sum(dim=1), weights[:, :, 0]


class RecurrentAttention(nn.Module):
    """LSTM that reads a video `n_steps` times; the embedding is its last state.

    Each reading is a soft mean of all segments, weighted by the previous state: the encoder side of Yao et al. 2015
    (arXiv:1502.08029); their word decoder is not built. Independent of the order of the segments.

    Args:
        input_dim: D, width of a segment embedding.
        hidden_dim: width of the state and of the attention's hidden layer.
        n_steps: number of readings.
        dropout: on the input.

    Raises:
        TristreamError: n_steps below 1.
    """

    def __init__(self, input_dim: int, hidden_dim: int, *, n_steps: int, dropout: float) -> None:
        super().__init__()
        if n_steps < 1:
            raise TristreamError(f"n_steps is {n_steps}; a video is read at least once")
        self.n_steps = n_steps
        self.embedding_dim = hidden_dim
        self.input_dropout = nn.Dropout(dropout)
        self.attention = SoftAttention(input_dim, hidden_dim, hidden_dim)
        self.cell = nn.LSTMCell(input_dim, hidden_dim)

    def forward(
        self, segments: Float[Tensor, "B S D"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B E"]:
        check_lengths(segments, lengths)
        segments = self.input_dropout(segments)
        state = memory = segments.new_zeros(len(segments), self.embedding_dim)
        for _ in range(self.n_steps):
            read, _ = self.attention(segments, state, lengths)
            state, memory = self.cell(read, (state, memory))
        return state
