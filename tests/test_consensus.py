"""Read-outs of steps against plain loops and figures computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tristream.streams.consensus import STEP_READOUTS, Consensus, consensus, step_loss, stretches

LENGTHS = torch.tensor([5, 1, 7, 2])
WEIGHTS = torch.tensor([0.5, -0.25, 2.0])
every_kind = pytest.mark.parametrize("kind", STEP_READOUTS)


def random_logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(seed)) * 3


def weights_of(kind: str) -> torch.Tensor | None:
    return WEIGHTS if kind == "weighted_logits" else None


def plain(steps: np.ndarray, kind: str) -> np.ndarray:
    """One video's (S, K) → (K,), one step and one class at a time."""
    if kind == "mean_prob":
        probabilities = [np.exp(step) / np.exp(step).sum() for step in steps]
        return np.log(sum(probabilities) / len(steps))
    if kind == "max_logits":
        return np.array([max(step[k] for step in steps) for k in range(steps.shape[1])])
    if kind == "mean_logits":
        return sum(steps) / len(steps)
    total = np.zeros(steps.shape[1])
    for k, weight in enumerate(WEIGHTS.tolist()):
        first, stop = k * len(steps) // 3, (k + 1) * len(steps) // 3
        part = steps[first : max(stop, first + 1)]
        total += weight * sum(part) / len(part)
    return total


@every_kind
def test_a_consensus_equals_a_plain_loop(kind):
    logits = random_logits()
    joined = consensus(logits, LENGTHS, kind, weights_of(kind))
    for b, length in enumerate(LENGTHS.tolist()):
        wanted = plain(logits[b, :length].double().numpy(), kind)
        np.testing.assert_allclose(joined[b], wanted, rtol=1e-4, atol=1e-5)


def test_means_before_and_after_the_softmax_differ_as_computed_by_hand():
    steps, length = torch.tensor([[[2.0, 0, -1], [0, 1, 0], [4, -2, 0]]]), torch.tensor([3])
    average = consensus(steps, length, "mean_logits")
    assert average[0].tolist() == pytest.approx([2, -1 / 3, -1 / 3])
    assert average.softmax(1)[0].tolist() == pytest.approx([0.83756, 0.08122, 0.08122], abs=1e-5)
    probabilities = consensus(steps, length, "mean_prob").exp()
    assert probabilities[0].tolist() == pytest.approx([0.678455, 0.230913, 0.090631], abs=1e-6)


@every_kind
@pytest.mark.parametrize("fill", [0.0, 1e6, float("inf"), float("nan")])
def test_padding_changes_neither_results_nor_gradients(kind, fill):
    def run(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = logits.clone().requires_grad_()
        joined = consensus(logits, LENGTHS, kind, weights_of(kind))
        joined.square().sum().backward()
        return joined.detach(), logits.grad

    logits = random_logits()
    padded = logits.clone()
    for b, length in enumerate(LENGTHS):
        padded[b, length:] = fill
    (expected, expected_grad), (joined, grad) = run(logits), run(padded)
    torch.testing.assert_close(joined, expected, rtol=0, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=0, atol=0)
    outside = torch.arange(7) >= LENGTHS[:, None]
    assert (grad[outside] == 0).all()


@every_kind
def test_the_gradients_are_those_of_finite_differences(kind):
    logits = random_logits().double().requires_grad_()
    weights = weights_of(kind)
    weights = None if weights is None else weights.double().requires_grad_()
    inputs = (logits,) if weights is None else (logits, weights)
    assert torch.autograd.gradcheck(
        lambda steps, *more: consensus(steps, LENGTHS, kind, *more), inputs
    )


def test_stretches_hold_every_step_and_none_is_empty():
    for n in range(1, 30):
        for k in range(1, 6):
            parts = stretches(n, k)
            assert len(parts) == k
            assert all(first < stop for first, stop in parts)
            assert {step for first, stop in parts for step in range(first, stop)} == set(range(n))
            if n >= k:  # no step is in two
                assert sum(stop - first for first, stop in parts) == n


def test_learned_weights_begin_as_the_mean_of_the_stretches():
    logits = random_logits()[:, :6]
    lengths = torch.tensor([6, 3, 6, 6])
    module = Consensus("weighted_logits", n_stretches=3)
    torch.testing.assert_close(module(logits, lengths), consensus(logits, lengths, "mean_logits"))
    assert [name for name, _ in module.named_parameters()] == ["weights"]
    assert not list(Consensus("mean_prob", n_stretches=3).parameters())


def test_the_loss_of_the_steps_is_a_mean_of_means():
    logits, labels = random_logits(), torch.tensor([0, 3, 5, 2])
    losses = [
        np.mean([-logits[b, s].log_softmax(0)[labels[b]].item() for s in range(length)])
        for b, length in enumerate(LENGTHS.tolist())
    ]
    padded = logits.clone()
    padded[torch.arange(7) >= LENGTHS[:, None]] = float("nan")
    assert step_loss(padded, LENGTHS, labels).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_loss_of_the_mean_has_other_gradients_than_the_loss_of_the_steps():
    """LRCN and Giel & Diaz have the same read-out and train differently."""
    labels = torch.tensor([0, 3, 5, 2])
    grads = []
    for loss in (
        lambda x: step_loss(x, LENGTHS, labels),
        lambda x: torch.nn.functional.cross_entropy(consensus(x, LENGTHS, "mean_prob"), labels),
    ):
        logits = random_logits().requires_grad_()
        loss(logits).backward()
        grads.append(logits.grad)
    assert (grads[0] - grads[1]).abs().max() > 0.01


def test_unknown_kinds_and_misplaced_weights_are_refused():
    logits = random_logits()
    with pytest.raises(ValueError, match="unknown consensus 'median'; available: mean_prob"):
        consensus(logits, LENGTHS, "median")
    with pytest.raises(ValueError, match="'weighted_logits' needs weights"):
        consensus(logits, LENGTHS, "weighted_logits")
    with pytest.raises(ValueError, match="'mean_prob' takes no weights"):
        consensus(logits, LENGTHS, "mean_prob", WEIGHTS)
    with pytest.raises(ValueError, match="length of 8 segments"):
        consensus(logits, torch.tensor([8, 1, 1, 1]), "mean_prob")
