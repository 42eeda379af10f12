from __future__ import annotations

from inspect import unwrap

import numpy as np
import pytest
import torch
from torch import nn

from tristream.streams.aggregator import (
    KINDS,
    AttentionPooling,
    MeanAggregator,
    RecurrentAggregator,
    SelfAttention,
    StackedBiGRU,
    build,
)

LENGTHS = torch.tensor([5, 1, 7, 3])


def random_segments(dim: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 7, dim, generator=torch.Generator().manual_seed(seed))


def small(kind: str, **options) -> nn.Module:
    torch.manual_seed(0)
    kind, *after = kind.split(" after ")
    return build(kind, 6, hidden_dim=5, self_attention=bool(after), **options).eval()


every_kind = pytest.mark.parametrize(
    "kind", [*KINDS, "gru after attention", "lstm after attention"]
)


@pytest.mark.parametrize(
    ("input_dim", "expected"), [(1536, 11_022_336), (2048, 12_595_200), (128, 6_696_960)]
)
def test_the_papers_bigru_has_its_number_of_parameters_and_1024_d(input_dim, expected):
    with torch.device("meta"):
        aggregator = StackedBiGRU(input_dim)
        assert aggregator(
            torch.empty(2, 3, input_dim), torch.ones(2, dtype=torch.int64, device="cpu")
        ).shape == (
            2,
            1024,
        )
    assert sum(parameter.numel() for parameter in aggregator.parameters()) == expected
    assert aggregator.embedding_dim == 1024


@every_kind
@pytest.mark.parametrize("fill", [0.0, 1e6, float("nan")])
def test_padding_does_not_change_the_embedding(kind, fill):
    aggregator = small(kind)
    segments = random_segments()
    padded = segments.clone()
    for b, length in enumerate(LENGTHS):
        padded[b, length:] = fill
    longer = nn.functional.pad(padded, (0, 0, 0, 4), value=fill)
    expected = aggregator(segments, LENGTHS)
    torch.testing.assert_close(aggregator(padded, LENGTHS), expected, rtol=0, atol=0)
    torch.testing.assert_close(aggregator(longer, LENGTHS), expected, rtol=1e-6, atol=1e-7)


@every_kind
def test_batch_mates_do_not_change_the_embedding(kind):
    aggregator = small(kind)
    segments = random_segments()
    together = aggregator(segments, LENGTHS)
    assert together.shape == (4, aggregator.embedding_dim)
    for b, length in enumerate(LENGTHS):
        alone = aggregator(segments[b : b + 1, :length], LENGTHS[b : b + 1])
        torch.testing.assert_close(alone[0], together[b], rtol=1e-5, atol=1e-6)


@every_kind
def test_gradients_reach_every_real_segment_and_no_padding(kind):
    segments = random_segments().requires_grad_()
    small(kind)(segments, LENGTHS).square().sum().backward()
    reached = segments.grad.abs().sum(dim=2) > 0
    expected = torch.arange(7) < LENGTHS[:, None]
    if kind == "max":  # only where it stands
        assert (segments.grad != 0).sum(dim=1).tolist() == [[1] * 6] * 4
        assert not (reached & ~expected).any()
    else:
        torch.testing.assert_close(reached, expected)
    assert segments.grad.isfinite().all()


def plain_gru(rnn: nn.GRU, sequence: np.ndarray, direction: str, layer: int) -> np.ndarray:
    """One direction of one layer by the equations, one segment at a time: (S, D) → (S, hidden)."""

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    suffix = f"l{layer}" + ("_reverse" if direction == "backward" else "")
    w_in, w_hidden, b_in, b_hidden = (
        getattr(rnn, f"{name}_{suffix}").detach().double().numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    order = range(len(sequence)) if direction == "forward" else range(len(sequence) - 1, -1, -1)
    hidden = np.zeros(w_hidden.shape[1])
    outputs = np.empty((len(sequence), len(hidden)))
    for t in order:
        reset_in, update_in, new_in = np.split(w_in @ sequence[t] + b_in, 3)
        reset_hidden, update_hidden, new_hidden = np.split(w_hidden @ hidden + b_hidden, 3)
        reset, update = sigmoid(reset_in + reset_hidden), sigmoid(update_in + update_hidden)
        hidden = (1 - update) * np.tanh(new_in + reset * new_hidden) + update * hidden
        outputs[t] = hidden
    return outputs


def test_the_bigru_equals_its_equations_in_both_directions():
    aggregator = small("gru", n_layers=2)
    segments = random_segments()
    embeddings = aggregator(segments, LENGTHS).detach().numpy()
    for b, length in enumerate(LENGTHS):
        layer = segments[b, :length].double().numpy()
        for n in range(2):
            forward = plain_gru(aggregator.rnn, layer, "forward", n)
            backward = plain_gru(aggregator.rnn, layer, "backward", n)
            layer = np.concatenate([forward, backward], axis=1)
        np.testing.assert_allclose(
            embeddings[b], np.concatenate([forward[-1], backward[0]]), rtol=1e-5, atol=1e-6
        )


def test_the_output_at_the_last_segment_is_not_the_embedding():
    aggregator = small("gru")
    segments = random_segments()[:1]
    embedding = aggregator(segments, torch.tensor([7]))
    output, _ = aggregator.rnn(segments)
    torch.testing.assert_close(output[:, -1, :5], embedding[:, :5])  # forward: the same
    assert (
        output[:, -1, 5:] - embedding[:, 5:]
    ).abs().max() > 0.01  # backward: has seen one segment there
    torch.testing.assert_close(output[:, 0, 5:], embedding[:, 5:])


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_one_direction_gives_the_last_hidden_state_of_the_top_layer(kind, n_layers):
    aggregator = small(kind, bidirectional=False, n_layers=n_layers)
    segments = random_segments()
    embeddings = aggregator(segments, LENGTHS)
    assert aggregator.embedding_dim == 5
    for b, length in enumerate(LENGTHS):
        output, _ = aggregator.rnn(segments[b : b + 1, :length])
        torch.testing.assert_close(embeddings[b], output[0, -1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_aggregators_depend_on_the_order_and_means_do_not(kind):
    segments, lengths = random_segments(), torch.full((4,), 7)
    turned = segments.flip(1)
    assert (small(kind)(segments, lengths) - small(kind)(turned, lengths)).abs().max() > 0.01
    for mean in ("mean", "mean_deviation", "max", "attention"):
        torch.testing.assert_close(small(mean)(segments, lengths), small(mean)(turned, lengths))


def test_means_and_deviations_are_those_of_each_videos_segments():
    segments = random_segments().double()
    embeddings = MeanAggregator(6, with_deviation=True)(segments, LENGTHS)
    for b, length in enumerate(LENGTHS):
        own = segments[b, :length].numpy()
        np.testing.assert_allclose(
            embeddings[b], np.concatenate([own.mean(axis=0), own.std(axis=0)]), atol=1e-12
        )
    torch.testing.assert_close(MeanAggregator(6)(segments, LENGTHS), embeddings[:, :6])


def test_a_maximum_is_that_of_each_videos_segments():
    segments = random_segments() - 10  # below what padding would be, were it 0
    embeddings = build("max", 6)(segments, LENGTHS)
    for b, length in enumerate(LENGTHS):
        torch.testing.assert_close(embeddings[b], segments[b, :length].max(dim=0).values)


def test_self_attention_equals_its_equations():
    torch.manual_seed(0)
    block = SelfAttention(16, n_heads=2).eval()
    segments = random_segments(16)
    found = block(segments, LENGTHS).detach().numpy()
    w_in, b_in = (
        t.detach().double().numpy()
        for t in (block.attention.in_proj_weight, block.attention.in_proj_bias)
    )
    w_out, b_out = (t.detach().double().numpy() for t in block.attention.out_proj.parameters())
    for b, length in enumerate(LENGTHS):
        x = segments[b, :length].double().numpy()
        query, key, value = np.split(x @ w_in.T + b_in, 3, axis=1)
        heads = []
        for head in (slice(0, 8), slice(8, 16)):
            weights = np.exp(query[:, head] @ key[:, head].T / np.sqrt(8))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, head])
        sums = x + np.concatenate(heads, axis=1) @ w_out.T + b_out
        normed = (sums - sums.mean(axis=1, keepdims=True)) / np.sqrt(
            sums.var(axis=1, keepdims=True) + 1e-5
        )
        np.testing.assert_allclose(found[b, :length], normed, rtol=1e-4, atol=1e-5)


def test_attention_pooling_is_a_mean_with_weights_that_add_up_to_one():
    torch.manual_seed(0)
    pooling = AttentionPooling(6, 5).eval()
    segments = random_segments()
    found = pooling(segments, LENGTHS).detach().numpy()
    w, b = (t.detach().double().numpy() for t in pooling.score[0].parameters())
    v = pooling.score[2].weight.detach().double().numpy()[0]
    for row, length in enumerate(LENGTHS):
        x = segments[row, :length].double().numpy()
        weights = np.exp(np.tanh(x @ w.T + b) @ v)
        np.testing.assert_allclose(found[row], weights / weights.sum() @ x, rtol=1e-5, atol=1e-6)
    same = segments[:, :1].expand(-1, 7, -1)
    torch.testing.assert_close(pooling(same, LENGTHS), segments[:, 0])


def test_attention_pooling_can_learn_to_select_one_segment_and_a_mean_cannot():
    """Planted answer: only the one marked segment, at any place, tells the class."""
    generator = torch.Generator().manual_seed(0)
    segments = torch.randn(64, 9, 6, generator=generator)
    place, label = (
        torch.randint(9, (64,), generator=generator),
        torch.randint(2, (64,), generator=generator),
    )
    segments[:, :, 0], segments[torch.arange(64), place, 0] = 0.0, 4.0
    segments[torch.arange(64), place, 1] = 4.0 * label - 2
    lengths, accuracy = torch.full((64,), 9), {}
    for kind in ("attention", "mean"):
        torch.manual_seed(0)
        model = nn.ModuleList([build(kind, 6, hidden_dim=8, dropout=0.0), nn.Linear(6, 2)])
        optimizer = torch.optim.Adam(model.parameters(), 0.03)
        for _ in range(150):
            loss = nn.functional.cross_entropy(model[1](model[0](segments, lengths)), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy[kind] = (
            (model[1](model[0](segments, lengths)).argmax(1) == label).float().mean().item()
        )
    assert accuracy["attention"] > 0.98
    assert accuracy["mean"] < 0.9


def test_dropout_acts_on_the_input_only_in_training():
    torch.manual_seed(0)
    aggregator = RecurrentAggregator(6, 5, n_layers=1, dropout=1.0)
    segments = random_segments()
    deaf = aggregator(segments, LENGTHS)
    torch.testing.assert_close(deaf, aggregator(torch.zeros_like(segments), LENGTHS))
    aggregator.eval()
    assert (aggregator(segments, LENGTHS) - deaf).abs().max() > 0.01


def test_dropout_acts_between_layers_only_in_training():
    torch.manual_seed(0)
    aggregator = RecurrentAggregator(6, 5, dropout=1.0)
    aggregator.input_dropout.p = 0.0
    segments = random_segments()
    deaf = aggregator(segments, LENGTHS)
    torch.testing.assert_close(deaf, aggregator(segments + 1, LENGTHS))
    aggregator.eval()
    assert (aggregator(segments, LENGTHS) - deaf).abs().max() > 0.01


def test_the_papers_dropout_is_a_half_in_both_places():
    aggregator = StackedBiGRU(6)
    assert (aggregator.input_dropout.p, aggregator.rnn.dropout) == (0.5, 0.5)
    assert isinstance(aggregator, nn.Module)


def test_a_single_layer_warns_of_nothing(recwarn):
    build("gru", 6, n_layers=1)
    assert not recwarn.list


@every_kind
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5, 0, 7, 3], "video 1 of the batch has 0 segments"),
        ([5, 1, 8, 3], "video 2 .* 8 segments, but the batch holds 7"),
    ],
)
def test_lengths_that_no_video_has_are_refused(kind, lengths, message):
    with pytest.raises(ValueError, match=message):
        small(kind)(random_segments(), torch.tensor(lengths))


@every_kind
def test_every_video_needs_a_length(kind):
    with pytest.raises(ValueError, match=r"4 videos have lengths of shape \(3,\)"):
        unwrap(type(small(kind)).forward)(small(kind), random_segments(), torch.tensor([5, 1, 7]))


def test_unknown_kinds_and_cells_are_refused_with_the_available_ones():
    with pytest.raises(
        ValueError,
        match="unknown aggregator 'vlad'; available: gru, lstm, rnn_relu, attention, recurrent_attention, mean",
    ):
        build("vlad", 6)
    with pytest.raises((ValueError, TypeError), match="rnn"):
        RecurrentAggregator(6, cell="rnn")
