"""Training of the small autoencoder inside the anomaly detector: masked error, stream dropout, early stop."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

from tristream.fusion.anomaly.bottleneck import Layers
from tristream.fusion.threads import one_thread

if TYPE_CHECKING:
    import torch

STEPS_BETWEEN_CHECKS = 20  # of the validation error
MIN_PROGRESS = 1e-3  # of the validation energy: less does not prolong the training


class Rows(NamedTuple):
    """Rows of the autoencoder.

    Attributes:
        coordinates: contribution of each stream to a video's coordinates; zero where it is missing.
        masks: True where the video has the stream.
    """

    coordinates: Float32[np.ndarray, "n streams axes"]
    masks: Bool[np.ndarray, "n streams"]


class Schedule(NamedTuple):
    """Course of the training.

    Attributes:
        learning_rate: of Adam.
        batch_size: rows per step.
        max_steps: at most.
        patience: steps without progress after which it ends.
        seed: random seed.
    """

    learning_rate: float
    batch_size: int
    max_steps: int
    patience: int
    seed: int


def train_layers(
    train: Rows,
    val: Rows,
    *,
    gram: Float32[np.ndarray, "streams axes axes"],
    widths: tuple[int, ...],
    stream_dropout: float,
    schedule: Schedule,
) -> tuple[Layers, int]:
    """Return the layers of least validation error, and their step.

    Args:
        train, val: rows.
        gram: each stream's part of the axes' Gram matrix.
        widths: of the layers' outputs, without the last, which is as wide as the input.
        stream_dropout: share of the training rows that lose one stream, from input and error alike.
        schedule: course of the training.

    Source: Adam, Kingma & Ba 2015; ELU, Clevert et al. 2016: chosen over ReLU, leaky ReLU, GELU and tanh by AUROC on
    synthetic swapped pairings and unseen classes.
    """
    import torch

    learning_rate, batch_size, max_steps, patience, seed = schedule
    generator = torch.Generator().manual_seed(seed)
    n, n_streams, n_axes = train.coordinates.shape
    parameters = _start((n_axes, *widths, n_axes), generator)
    axes_gram, dropout = torch.from_numpy(gram), stream_dropout if n_streams > 1 else 0.0
    q, m = torch.from_numpy(train.coordinates), torch.from_numpy(train.masks).float()
    q_val, m_val = torch.from_numpy(val.coordinates), torch.from_numpy(val.masks).float()
    enough = MIN_PROGRESS * float(q_val.sum(dim=1).square().sum(dim=1).mean())
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    best, best_error, best_step = _copy(parameters), float("inf"), 0
    mark, mark_step, step = (
        float("inf"),
        0,
        0,
    )  # the last error that was progress enough to continue
    with one_thread():
        while step < max_steps and step - mark_step <= patience:
            for rows in torch.randperm(n, generator=generator).split(batch_size):
                loss = _error(
                    q[rows], _drop_streams(m[rows], dropout, generator), parameters, axes_gram
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if step % STEPS_BETWEEN_CHECKS:
                    continue
                error = _validation_error(q_val, m_val, parameters, axes_gram, dropout)
                if error < best_error:
                    best, best_error, best_step = _copy(parameters), error, step
                if error < mark - enough:
                    mark, mark_step = error, step
    return list(zip(best[::2], best[1::2], strict=True)), best_step


def _start(widths: tuple[int, ...], generator: torch.Generator) -> list[torch.Tensor]:
    """Weight and bias of every layer, uniform within one over the square root of its inputs."""
    import torch

    parameters = []
    for n_in, n_out in itertools.pairwise(widths):
        for shape in ((n_out, n_in), (n_out,)):
            start = torch.rand(shape, generator=generator) * 2 - 1
            parameters.append((start / n_in**0.5).requires_grad_())
    return parameters


def _network(x: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
    """ELU layers; the code in the middle and the output are linear."""
    from torch.nn.functional import elu, linear

    n_layers = len(parameters) // 2
    for i in range(n_layers):
        x = linear(x, parameters[2 * i], parameters[2 * i + 1])
        if i not in (n_layers // 2 - 1, n_layers - 1):
            x = elu(x)
    return x


def _error(
    q: torch.Tensor, keep: torch.Tensor, parameters: list[torch.Tensor], axes_gram: torch.Tensor
) -> torch.Tensor:
    """Mean over rows of the squared error on the streams that are kept, up to a constant.

    With d the output, q_s what stream s adds to the coordinates and G_s its part of the axes' Gram matrix, that is
    Σ_s d·G_s d − 2 d·q_s: the error in the original columns, without ever forming them.
    """
    import torch

    x = (q * keep[:, :, None]).sum(dim=1)  # (B, axes)
    d = _network(x, parameters)
    if q.shape[1] == 1:
        squared = d.square().sum(dim=1)  # the axes are orthonormal
    else:
        squared = (
            (torch.einsum("bi,sij->bsj", d, axes_gram) * d[:, None]).sum(dim=2).mul(keep).sum(dim=1)
        )
    return (squared - 2 * (d * x).sum(dim=1)).mean()


def _validation_error(
    q: torch.Tensor,
    masks: torch.Tensor,
    parameters: list[torch.Tensor],
    axes_gram: torch.Tensor,
    dropout: float,
) -> float:
    """Error of the videos as they are and with each stream withheld in turn, as often as training does."""
    import torch

    n_streams = masks.shape[1]
    with torch.no_grad():
        total = float(_error(q, masks, parameters, axes_gram))
        for s in range(n_streams if dropout else 0):
            less = masks.clone()
            less[:, s] *= masks.sum(dim=1) == 1
            total += dropout * float(_error(q, less, parameters, axes_gram)) / n_streams
    return total


def _drop_streams(masks: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """`masks`, in which this share of the rows has one stream less, though never none."""
    import torch

    if not share:
        return masks
    remaining = masks.clone()
    chosen = torch.rand(len(masks), generator=generator) < share
    stream = torch.randint(masks.shape[1], (len(masks),), generator=generator)
    chosen &= masks.sum(dim=1) > 1
    remaining[chosen, stream[chosen]] = 0
    return remaining


def _copy(parameters: list[torch.Tensor]) -> list[np.ndarray]:
    return [parameter.detach().double().numpy().copy() for parameter in parameters]
