"""Batches of a training: grouping of rows, and preparation in a thread."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Batch:
    """Input of one step.

    Attributes:
        inputs: arguments of the phase's `logits`.
        labels: (B,) class indices.
        video_ids: of the B rows.
    """

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    video_ids: Sequence[str]

    def part(self, rows: slice) -> Batch:
        """Return a range of its rows, with their segments if the last input counts those of each row."""
        inputs = list(self.inputs)
        if len(inputs) > 1 and len(inputs[0]) != len(self.labels):
            ends = [0, *itertools.accumulate(inputs[-1].tolist())]
            inputs[0] = inputs[0][ends[rows.start] : ends[rows.stop]]
            inputs[1:] = [one[rows] for one in inputs[1:]]
        else:
            inputs = [one[rows] for one in inputs]
        return Batch(tuple(inputs), self.labels[rows], self.video_ids[rows])


def batches_of(n: int, size: int, generator: np.random.Generator | None = None) -> list[np.ndarray]:
    """Return the indices 0 … n − 1 in batches, shuffled with a generator; a last batch of one joins its predecessor.

    Batch norm cannot train on a single row.
    """
    order = np.arange(n) if generator is None else generator.permutation(n)
    bounds = [*range(0, n, size), n]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]
    return [order[first:last] for first, last in itertools.pairwise(bounds)]


def batches_of_like_length(
    lengths: Sequence[int], size: int, generator: np.random.Generator, *, n_pooled: int = 50
) -> list[np.ndarray]:
    """Return indices in shuffled batches of rows of similar length, which need less padding.

    Each pool of `n_pooled` shuffled batches is sorted by length, then all batches are shuffled.
    """
    order = generator.permutation(len(lengths))
    pools = [
        order[first : first + n_pooled * size] for first in range(0, len(order), n_pooled * size)
    ]
    ranked = np.concatenate(
        [pool[np.argsort(np.asarray(lengths)[pool], kind="stable")] for pool in pools]
    )
    batches = [ranked[rows] for rows in batches_of(len(ranked), size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def made_ahead(batches: Iterator[Batch], n: int = 2) -> Iterator[Batch]:
    """Yield the same batches in the same order; a thread prepares up to `n` of them ahead."""
    made: queue.Queue[Batch | BaseException | None] = queue.Queue(n)
    is_over = threading.Event()

    def hand_over(thing: Batch | BaseException | None) -> None:
        handed = False
        while not handed and not is_over.is_set():
            with contextlib.suppress(queue.Full):
                made.put(thing, timeout=0.1)
                handed = True

    def work() -> None:
        try:
            for batch in batches:
                hand_over(batch)
                if is_over.is_set():
                    return
            hand_over(None)
        except BaseException as error:  # raised again in the consumer
            hand_over(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while (thing := made.get()) is not None:
            if isinstance(thing, BaseException):
                raise thing
            yield thing
    finally:
        is_over.set()
        thread.join()
