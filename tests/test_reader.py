"""Read-outs of whole models: clips, steps, heads, counts of parameters, toys that only one of two can read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tristream.streams.aggregator import More, RecurrentAggregator, build
from tristream.streams.attention import RecurrentAttention, SoftAttention
from tristream.streams.config import AggregatorConfig, identity_of, later_settings
from tristream.streams.consensus import STEP_READOUTS, Consensus, step_loss
from tristream.streams.reader import SequenceReader, build_aggregator, build_classifier
from tristream.streams.sequences import clip_bounds

LENGTHS = torch.tensor([5, 1, 7, 3])


def random_segments(dim: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 7, dim, generator=torch.Generator().manual_seed(seed))


def reader_of(n_classes: int = 3, dim: int = 6, **settings) -> SequenceReader:
    torch.manual_seed(0)
    config = AggregatorConfig(**{"hidden_dim": 5, "n_layers": 1, "dropout": 0.0, **settings})
    own = build_aggregator(config, dim).eval()
    classifier = build_classifier(
        own.embedding_dim, n_classes, dropout=config.dropout, head_dims=config.head_dims
    ).eval()
    steps = config.readout != "embedding"
    joined = Consensus(config.readout, n_stretches=config.n_stretches) if steps else None
    return SequenceReader(own, classifier, joined, config.clip)


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("dim", "settings", "expected"),
    [
        (4096, {"cell": "rnn_relu", "bidirectional": False}, 1_114_624),  # Giel & Diaz
        (4096, {"cell": "rnn_relu", "merge": "sum"}, 2_229_248),
        (4096, {"cell": "lstm", "bidirectional": False}, 4_458_496),
        (320, {"cell": "lstm", "bidirectional": False}, 591_872),  # torch-lrcn
        (1024, {"cell": "lstm", "hidden_dim": (256, 128, 64)}, 3_447_808),  # Hua et al.
        (1024, {"cell": "lstm", "hidden_dim": (256, 128)}, 3_282_944),
    ],
)
def test_recurrent_networks_of_other_systems_have_their_numbers_of_parameters(
    dim, settings, expected
):
    with torch.device("meta"):
        network = RecurrentAggregator(dim, **{"hidden_dim": 256, "n_layers": 1, **settings})
    assert n_parameters(network) == expected


@pytest.mark.parametrize(("dim", "expected"), [(128, 184_371), (256, 315_443)])
def test_the_head_of_hua_et_al_has_its_number_of_parameters(dim, expected):
    head = build_classifier(dim, 51, dropout=0.5, head_dims=[1024])
    assert n_parameters(head) == expected


def test_a_summed_relu_network_equals_its_equations_and_its_embedding_is_not_its_last_state():
    """The numbers were computed apart: .5 sin(.7 j + i) fills parameter i, x = cos(0 … 14)."""
    network = RecurrentAggregator(3, 4, 1, cell="rnn_relu", merge="sum").eval()
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):
            j = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.5 * torch.sin(0.7 * j + i)).view(parameter.shape))
    x = torch.cos(torch.arange(15, dtype=torch.float64)).view(1, 5, 3).float()
    states = network.states(x, torch.tensor([5]))[0]
    assert states[1].tolist() == pytest.approx([1.86701, 1.006637, 0.367651, 2.167905], abs=1e-5)
    assert states[4].tolist() == pytest.approx([1.364259, 0.917647, 1.48898, 0], abs=1e-5)
    outputs, _ = network.rnn(x)
    wanted = outputs[0, 4, :4] + outputs[0, 0, 4:]  # forward's last and backward's first
    embedding = network(x, torch.tensor([5]))[0]
    torch.testing.assert_close(embedding, wanted)
    assert (embedding - states[4]).abs().max() > 0.1


@pytest.mark.parametrize("merge", ["concat", "sum"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn_relu"])
def test_layers_of_different_widths_equal_single_layers_in_a_row(cell, merge):
    torch.manual_seed(0)
    network = RecurrentAggregator(6, (5, 4, 3), cell=cell, merge=merge).eval()
    assert network.embedding_dim == (6 if merge == "concat" else 3)
    segments = random_segments()
    states, embeddings = network.states(segments, LENGTHS), network(segments, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        rows = segments[b : b + 1, :length]
        for layer in (network.rnn, *network.upper):
            outputs, _ = layer(rows)
            forward, backward = outputs.chunk(2, dim=2)
            rows = forward + backward if merge == "sum" else outputs
        torch.testing.assert_close(states[b, :length], rows[0], rtol=1e-5, atol=1e-6)
        assert (states[b, length:] == 0).all()
        last, first = forward[0, -1], backward[0, 0]
        wanted = last + first if merge == "sum" else torch.cat([last, first])
        torch.testing.assert_close(embeddings[b], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("gru", {}), ("lstm", {"merge": "sum"}), ("rnn_relu", {"hidden_dims": (4, 3)}), ("none", {})],
)
@pytest.mark.parametrize("fill", [1e6, float("nan")])
def test_padding_does_not_change_the_states(kind, more, fill):
    torch.manual_seed(0)
    network = build(kind, 6, hidden_dim=5, n_layers=2, more=More(**more)).eval()
    segments = random_segments()
    padded = segments.clone()
    padded[torch.arange(7) >= LENGTHS[:, None]] = fill
    expected = network.states(segments, LENGTHS)
    assert expected.shape == (4, 7, network.embedding_dim)
    torch.testing.assert_close(network.states(padded, LENGTHS), expected, rtol=0, atol=0)


def test_states_of_kind_none_are_the_segments():
    segments = random_segments()
    states = build("none", 6).states(segments, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(states[b, :length], segments[b, :length], rtol=0, atol=0)
    with pytest.raises(ValueError, match="mean_deviation has no states"):
        build("mean_deviation", 6).states(segments, LENGTHS)


def test_soft_attention_equals_its_equations():
    torch.manual_seed(0)
    attention, state = SoftAttention(6, 5, 4), torch.randn(4, 5)
    segments = random_segments()
    padded = segments.clone()
    padded[torch.arange(7) >= LENGTHS[:, None]] = float("nan")
    means, weights = attention(padded, state, LENGTHS)
    with torch.no_grad():
        for b, length in enumerate(LENGTHS.tolist()):
            scores = []
            for s in range(length):
                hidden = attention.of_state.weight @ state[b] + attention.of_segment(segments[b, s])
                scores.append((attention.score.weight @ hidden.tanh()).item())
            wanted = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(weights[b, :length], wanted, rtol=1e-5)
            np.testing.assert_allclose(
                means[b], wanted @ segments[b, :length].numpy(), rtol=1e-4, atol=1e-6
            )
            assert (weights[b, length:] == 0).all()


def test_a_recurrent_reader_reads_with_its_previous_state():
    torch.manual_seed(0)
    reader = RecurrentAttention(6, 5, n_steps=3, dropout=0.0)
    segments = random_segments()
    state = memory = torch.zeros(4, 5)
    for _ in range(3):
        read, _ = reader.attention(segments, state, LENGTHS)
        state, memory = reader.cell(read, (state, memory))
    torch.testing.assert_close(reader(segments, LENGTHS), state)
    with pytest.raises(ValueError, match="n_steps is 0"):
        RecurrentAttention(6, 5, n_steps=0, dropout=0.0)


def test_clips_hold_every_segment_and_the_last_ends_with_the_video():
    for n in range(1, 40):
        for length in range(1, 12):
            for stride in range(1, length + 1):
                clips = clip_bounds(n, length, stride)
                assert clips[-1][1] == n
                assert {i for first, stop in clips for i in range(first, stop)} == set(range(n))
                assert {stop - first for first, stop in clips} == {min(n, length)}
                assert sorted(set(clips)) == clips
    assert clip_bounds(10, 4, 4) == [(0, 4), (4, 8), (6, 10)]
    with pytest.raises(ValueError, match="clips of 0 segments every 1"):
        clip_bounds(3, 0, 1)


@pytest.mark.parametrize("readout", ["embedding", *STEP_READOUTS])
def test_clips_are_read_one_by_one_and_averaged(readout):
    settings = {"kind": "gru", "readout": readout, "head_dims": (4,)}
    whole = reader_of(**settings)
    clipped = SequenceReader(whole.aggregator, whole.classifier, whole.consensus, (3, 2))
    segments = random_segments()
    padded = segments.clone()
    padded[torch.arange(7) >= LENGTHS[:, None]] = float("nan")
    reading = clipped(padded, LENGTHS)
    torch.testing.assert_close(clipped.embed(padded, LENGTHS), reading.embedding)
    for b, length in enumerate(LENGTHS.tolist()):
        alone = [
            whole(segments[b : b + 1, first:stop], torch.tensor([stop - first]))
            for first, stop in clip_bounds(length, 3, 2)
        ]
        embedding = torch.stack([one.embedding[0] for one in alone]).mean(0)
        torch.testing.assert_close(reading.embedding[b], embedding, rtol=1e-4, atol=1e-6)
        logits = torch.stack([one.logits[0] for one in alone])
        wanted = logits.softmax(1).mean(0).log() if readout == "mean_prob" else logits.mean(0)
        torch.testing.assert_close(reading.logits[b], wanted, rtol=1e-4, atol=1e-5)


def test_a_segment_in_two_clips_has_the_mean_of_its_probabilities():
    whole = reader_of(kind="gru", readout="mean_prob")
    clipped = SequenceReader(whole.aggregator, whole.classifier, whole.consensus, (3, 2))
    segments = random_segments()[:1, :5]
    steps = clipped(segments, torch.tensor([5])).step_logits[0]
    first, second = (
        whole(segments[:, a : a + 3], torch.tensor([3])).step_logits[0].softmax(1) for a in (0, 2)
    )
    torch.testing.assert_close(steps.exp()[:2], first[:2])
    torch.testing.assert_close(steps.exp()[2], (first[2] + second[0]) / 2)


def test_training_reads_one_random_clip_of_each_video():
    reader = reader_of(kind="none", readout="mean_logits", clip_length=2, clip_stride=1)
    reader.classifier.train()
    segments = torch.arange(7.0)[None, :, None].expand(4, 7, 6)
    seen = {reader(segments, LENGTHS).embedding[2, 0].item() for _ in range(100)}
    assert seen == {0.5, 1.5, 2.5, 3.5, 4.5, 5.5}
    reader.classifier.eval()
    assert reader(segments, LENGTHS).embedding[2, 0].item() == pytest.approx(3.0)


def test_the_objective_of_steps_is_their_loss_and_the_joined_logits():
    reader = reader_of(kind="lstm", readout="mean_prob", loss="steps")
    segments, labels = random_segments(), torch.tensor([0, 1, 2, 1])
    loss, logits = reader.steps_objective(segments, LENGTHS, labels, 0.1)
    reading = reader(segments, LENGTHS)
    wanted = step_loss(reading.step_logits, LENGTHS, labels, label_smoothing=0.1)
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(logits, reading.logits)
    torch.testing.assert_close(
        reading.embedding[2], reader.aggregator.states(segments, LENGTHS)[2].mean(0)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "max", "readout": "mean_prob"}, "kind = max has none; choose kind from gru"),
        ({"loss": "steps"}, "loss = steps needs a readout of steps, not embedding"),
        ({"clip_stride": 3}, "clip_stride = 3 has no effect without clip_length"),
        ({"clip_length": 2, "clip_stride": 3}, "clip_stride = 3 would skip segments"),
        ({"head_dims": (0,)}, "each width must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        AggregatorConfig(**settings)


def test_younger_settings_at_their_defaults_are_no_part_of_an_identity():
    old = {"kind", "hidden_dim", "n_layers", "bidirectional", "dropout", "self_attention"}
    assert identity_of(AggregatorConfig()).keys() == old
    assert later_settings(AggregatorConfig(readout="mean_prob", hidden_dim=4)) == {
        "readout": "mean_prob"
    }


def fit(reader: SequenceReader, segments, lengths, labels, *, steps: int, rate: float) -> None:
    parts = [reader.aggregator, reader.classifier]
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], rate)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(reader(segments, lengths).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def accuracy(reader: SequenceReader, segments, lengths, labels) -> float:
    with torch.no_grad():
        return (reader(segments, lengths).logits.argmax(1) == labels).double().mean().item()


def test_an_lstm_reads_the_order_and_a_mean_does_not():
    """Two segments, A then B or B then A, among noise."""

    def toy(seed: int):
        draw = np.random.default_rng(seed)
        n, size = 400, 6
        labels = draw.integers(2, size=n)
        x = draw.normal(0, 0.3, (n, size, 4))
        for row, label in enumerate(labels):
            first, second = sorted(draw.choice(size, 2, replace=False))
            x[row, first, label] += 2
            x[row, second, 1 - label] += 2
        return torch.tensor(x).float(), torch.full((n,), size), torch.tensor(labels)

    scores = {}
    for kind in ("lstm", "mean"):
        reader = reader_of(2, dim=4, kind=kind, readout="mean_prob", hidden_dim=16)
        fit(reader, *toy(0), steps=150, rate=0.03)
        scores[kind] = accuracy(reader, *toy(1))
    assert scores["lstm"] >= 0.9
    assert abs(scores["mean"] - 0.5) < 0.1


def test_a_maximum_finds_the_one_telling_segment_of_thirty():
    def toy(seed: int):
        draw = np.random.default_rng(seed)
        n, size = 300, 30
        labels = draw.integers(4, size=n)
        x = draw.normal(0, 1, (n, size, 8))
        x[np.arange(n), draw.integers(size, size=n), labels] += 4.5
        return torch.tensor(x).float(), torch.full((n,), size), torch.tensor(labels)

    scores = {}
    for readout in ("max_logits", "mean_logits"):
        reader = reader_of(4, dim=8, kind="none", readout=readout)
        fit(reader, *toy(0), steps=200, rate=0.05)
        scores[readout] = accuracy(reader, *toy(1))
    assert scores["max_logits"] >= scores["mean_logits"] + 0.15, scores
