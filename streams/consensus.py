"""Read-outs of steps: logits of every step of a video → logits of the video."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tristream.errors import TristreamError
from tristream.streams.sequences import check_lengths, inside, mean_of

STEP_READOUTS = ("mean_prob", "mean_logits", "max_logits", "weighted_logits")


class Consensus(nn.Module):
    """`consensus` with the weights that "weighted_logits" learns.

    Args:
        kind: of `STEP_READOUTS`.
        n_stretches: of "weighted_logits"; each starts with the same weight, and together they start as the mean.
    """

    weights: nn.Parameter | None

    def __init__(self, kind: str, *, n_stretches: int) -> None:
        super().__init__()
        self.kind = kind
        weights = torch.full((n_stretches,), 1 / n_stretches)
        self.weights = nn.Parameter(weights) if kind == "weighted_logits" else None

    def forward(
        self, step_logits: Float[Tensor, "B S K"], lengths: Int[Tensor, "B"]
    ) -> Float[Tensor, "B K"]:
        return consensus(step_logits, lengths, self.kind, self.weights)


def consensus(
    step_logits: Float[Tensor, "B S K"],
    lengths: Int[Tensor, "B"],
    kind: str,
    weights: Float[Tensor, " n_stretches"] | None = None,
) -> Float[Tensor, "B K"]:
    """Return the logits of each video from those of its steps; padding may hold anything.

    Args:
        step_logits: of every step.
        lengths: number of real steps of each video.
        kind: "mean_prob": log of the mean probability (LRCN; Giel & Diaz). "mean_logits", "max_logits": of each class
            (TSN averages before softmax). "weighted_logits": the sequence is cut into stretches, their logits are
            averaged, and the means are added with the weights (TSN).
        weights: of "weighted_logits", one for each stretch.

    Raises:
        TristreamError: an unknown kind, weights that are missing or unused, or lengths out of range.
    """
    if kind not in STEP_READOUTS:
        raise TristreamError(f"unknown consensus '{kind}'; available: {', '.join(STEP_READOUTS)}")
    if (weights is not None) != (kind == "weighted_logits"):
        raise TristreamError(
            f"consensus '{kind}' {'needs weights' if weights is None else 'takes no weights'}; "
            "weighted_logits alone has them"
        )
    check_lengths(step_logits, lengths)
    real = inside(step_logits, lengths)[:, :, None]
    if kind == "max_logits":
        return torch.where(real, step_logits, -torch.inf).amax(dim=1)
    if kind == "mean_logits":
        return mean_of(step_logits, lengths)
    clean = torch.where(real, step_logits, 0)
    if kind == "mean_prob":
        log_probabilities = torch.where(real, clean.log_softmax(dim=2), -torch.inf)
        n_steps = lengths.to(step_logits.device)[:, None]
        return log_probabilities.logsumexp(dim=1) - n_steps.log()
    assert weights is not None
    shares = torch.zeros(len(clean), len(weights), clean.shape[1])
    for b, n in enumerate(lengths.tolist()):
        for k, (first, stop) in enumerate(stretches(n, len(weights))):
            shares[b, k, first:stop] = 1 / (stop - first)
    return torch.einsum("k,bks,bsc->bc", weights, shares.to(clean), clean)


def stretches(n: int, n_stretches: int) -> list[tuple[int, int]]:
    """Return [first, stop) of the stretches of `n` steps; none is empty: with few steps, neighbours share one."""
    bounds = [k * n // n_stretches for k in range(n_stretches + 1)]
    return [(first, max(stop, first + 1)) for first, stop in itertools.pairwise(bounds)]


def step_loss(
    step_logits: Float[Tensor, "B S K"],
    lengths: Int[Tensor, "B"],
    labels: Int[Tensor, "B"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the mean over videos of the mean cross-entropy of their steps (LRCN: every step learns the label)."""
    real = inside(step_logits, lengths)
    clean = torch.where(real[:, :, None], step_logits, 0).float()
    losses = nn.functional.cross_entropy(
        clean.transpose(1, 2),
        labels[:, None].expand(-1, clean.shape[1]),
        reduction="none",
        label_smoothing=label_smoothing,
    )  # (B, S)
    return mean_of(losses[:, :, None], lengths).mean()
