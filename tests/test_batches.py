from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch

from tristream.streams.batches import Batch, batches_of, batches_of_like_length, made_ahead


def test_bucketed_batches_hold_every_row_once_and_pad_less():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 181, 3000).tolist()
    bucketed = batches_of_like_length(lengths, 32, np.random.default_rng(1))
    assert Counter(np.concatenate(bucketed).tolist()) == Counter(range(3000))
    assert {len(batch) for batch in bucketed} <= {32, 3000 % 32}

    def padding(batches):
        return sum(
            len(b) * max(lengths[i] for i in b) - sum(lengths[i] for i in b) for b in batches
        ) / sum(lengths)

    assert padding(bucketed) < 0.05 < 0.8 < padding(batches_of(3000, 32, np.random.default_rng(1)))


def test_bucketed_batches_come_in_any_order_and_are_others_in_every_epoch():
    lengths = list(range(1, 641))
    first, second = (
        batches_of_like_length(lengths, 32, np.random.default_rng(seed), n_pooled=5)
        for seed in (0, 1)
    )
    means = [np.mean([lengths[i] for i in batch]) for batch in first]
    assert sorted(means) != means
    assert {frozenset(b.tolist()) for b in first} != {frozenset(b.tolist()) for b in second}
    again = batches_of_like_length(lengths, 32, np.random.default_rng(0), n_pooled=5)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def batch(number: int) -> Batch:
    return Batch((torch.full((2, 3), number),), torch.tensor([number, number]), ["a", "b"])


def test_batches_made_ahead_are_the_same_in_the_same_order():
    assert [int(b.labels[0]) for b in made_ahead(iter([batch(n) for n in range(20)]))] == list(
        range(20)
    )


def test_only_a_few_batches_are_made_ahead():
    made = []

    def source():
        for number in range(20):
            made.append(number)
            yield batch(number)

    ahead = made_ahead(source(), n=2)
    for number in range(5):
        assert int(next(ahead).labels[0]) == number
        threading.Event().wait(0.05)
        assert len(made) <= number + 1 + 2 + 1
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]
    assert len(made) < 20


def test_an_error_while_a_batch_is_made_is_raised_in_the_consumer():
    def source():
        yield batch(0)
        raise LookupError("video 7")

    ahead = made_ahead(source())
    next(ahead)
    with pytest.raises(LookupError, match="video 7"):
        next(ahead)


def test_a_part_of_a_batch_takes_the_segments_of_its_rows():
    segments, lengths = torch.arange(12.0).reshape(6, 2), torch.tensor([1, 3, 2])
    whole = Batch((segments, lengths), torch.tensor([0, 1, 2]), ["a", "b", "c"])
    part = whole.part(slice(1, 3))
    assert torch.equal(part.inputs[0], segments[1:])
    assert part.inputs[1].tolist() == [3, 2]
    assert part.labels.tolist() == [1, 2]
    assert part.video_ids == ["b", "c"]
    padded = Batch((torch.zeros(3, 5, 2), lengths), torch.tensor([0, 1, 2]), ["a", "b", "c"]).part(
        slice(0, 1)
    )
    assert padded.inputs[0].shape == (1, 5, 2)
    assert padded.inputs[1].tolist() == [1]
