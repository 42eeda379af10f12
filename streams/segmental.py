"""TSN's segmental sampling: one random segment of each stretch of a video, their logits averaged before the loss.

Source: Wang et al. 2016 (arXiv:1608.00859), §3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from tristream.streams.consensus import consensus, stretches
from tristream.streams.segments import Footage
from tristream.streams.training_loop import Objective


def stretches_of(footage: Footage, n_segments: int) -> list[Footage]:
    """Return `n_segments` parts of a video; a segment that starts in one has all of its rows there.

    The possible starts are divided evenly; in a video with fewer starts, neighbours share one.
    """
    span = footage.rows_per_segment
    n_starts = max(1, len(footage.array) - span + 1)
    parts = []
    for first, stop in stretches(n_starts, n_segments):
        rows = slice(first, stop - 1 + span)
        parts.append(
            replace(
                footage,
                array=footage.array[rows],
                start_seconds=footage.start_seconds[rows],
                stop_seconds=footage.stop_seconds[rows],
                plan=np.zeros(1, np.int64),
            )
        )
    return parts


def segmental_objective(encoder: Callable[[torch.Tensor], torch.Tensor]) -> Objective:
    """Return the cross-entropy of the mean of the logits of each video's segments.

    Inputs: segments of B videos, concatenated, and their numbers (B,).
    """

    def objective(
        inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, label_smoothing: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        segments, counts = inputs
        of_segments = encoder(segments).float().split(counts.tolist())
        padded = nn.utils.rnn.pad_sequence(list(of_segments), batch_first=True)
        logits = consensus(padded, counts, "mean_logits")
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        return loss, logits

    return objective
