"""Training loop of every phase of every stream; resumed after any epoch, it ends in the same weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tristream.errors import TristreamError
from tristream.store.checkpoint import ArtifactError, load_artifact, save_artifact
from tristream.store.lineage import digest
from tristream.streams.backend import Precision
from tristream.streams.batches import Batch, made_ahead
from tristream.streams.config import TrainingConfig, identity_of
from tristream.streams.parallel import Ranks
from tristream.streams.torch_backend import autocast, full_float32, to_device

MIN_GAIN = 1e-4  # smallest decrease of the validation loss that counts
MIN_RATE = 1e-6  # paper, section V-D
ALONE = Ranks()


class TrainingDiverged(TristreamError):
    """The loss is not finite; the message names the videos of the batch."""


Objective = Callable[
    [tuple[torch.Tensor, ...], torch.Tensor, float], tuple[torch.Tensor, torch.Tensor | None]
]


def cross_entropy(logits: Callable[..., torch.Tensor]) -> Objective:
    """Return the objective of a classifier: mean cross-entropy of its logits."""

    def objective(
        inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, label_smoothing: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        values = logits(*inputs)
        loss = nn.functional.cross_entropy(values.float(), labels, label_smoothing=label_smoothing)
        return loss, values

    return objective


@dataclass(frozen=True)
class Phase:
    """Phase of a training.

    Attributes:
        name: in metrics and in the file name of the resumable state.
        config: optimiser, schedule, stop.
        module: is trained, saved and restored.
        objective: (inputs of a batch, labels, label smoothing: 0 in validation) → mean loss over the rows, and
            logits (B, n_classes), or None if it does not classify: then the accuracy is 0.
        n_batches: in one epoch.
        train_batches: one epoch, drawn with the generator.
        val_batches: the same at every call.
    """

    name: str
    config: TrainingConfig
    module: nn.Module
    objective: Objective
    n_batches: int
    train_batches: Callable[[np.random.Generator], Iterator[Batch]]
    val_batches: Callable[[], Iterator[Batch]]


@dataclass(frozen=True)
class State:
    """Resumable state of a training.

    Attributes:
        path: name of its files (`.safetensors` and `.json` are added).
        signature: what it must have been made with to be resumed; another one is overwritten.
        save_seconds: it is written when this much time has passed since it last was.
    """

    path: Path
    signature: str = ""
    save_seconds: float = 10.0


@dataclass
class Progress:
    """Progress of a phase: everything but the tensors."""

    epoch: int = 0
    best_loss: float = math.inf  # of the best weights
    plateau_loss: float = math.inf  # reference of the patience
    n_bad: int = 0  # epochs since the loss fell below it
    n_reductions: int = 0  # of the learning rate
    history: list[dict[str, float]] = field(default_factory=list)

    def note(self, metrics: dict[str, float], config: TrainingConfig) -> bool:
        """Record an epoch; return True if it is the best so far.

        Patience follows Keras, which the paper used: a gain is at least 1e-4, and the rate is divided by 10 *at* the
        fifth epoch without one (torch's ReduceLROnPlateau does so with patience=4).
        """
        self.epoch += 1
        self.history.append(metrics)
        is_best = metrics["val_loss"] < self.best_loss
        self.best_loss = min(self.best_loss, metrics["val_loss"])
        if metrics["val_loss"] < self.plateau_loss - MIN_GAIN:
            self.plateau_loss, self.n_bad = metrics["val_loss"], 0
        else:
            self.n_bad += 1
            self.n_reductions += self.n_bad % config.reduce_patience == 0
        return is_best

    def finished(self, config: TrainingConfig) -> bool:
        """Return True if the epochs or the patience are used up."""
        return self.epoch >= config.epochs or (
            config.stop_patience is not None and self.n_bad >= config.stop_patience
        )


def learning_rate(config: TrainingConfig, done: float, n_reductions: int = 0) -> float:
    """Return the learning rate at one step.

    Args:
        config: `one_cycle`: a cosine up over the first 30 % of all steps, from 1/25, and one down to almost nothing
            (Smith 2018; torch's OneCycleLR within one step). `step`: times `step_factor` after every `step_epochs`.
            `plateau`: a tenth for each reduction, never under 1e-6.
        done: finished part of all steps, in [0, 1].
        n_reductions: number of reductions so far.
    """
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "step":
        epoch = math.floor(done * config.epochs + 1e-9)  # 3 / 7 * 7 may be less than 3
        return config.learning_rate * config.step_factor ** (epoch // config.step_epochs)
    if config.schedule == "plateau":
        return max(min(MIN_RATE, config.learning_rate), config.learning_rate * 0.1**n_reductions)
    first, last, phase = (
        (1 / 25, 1.0, done / 0.3) if done < 0.3 else (1.0, 4e-6, (done - 0.3) / 0.7)
    )
    return config.learning_rate * (last + (first - last) * (1 + math.cos(math.pi * phase)) / 2)


def run_phase(
    phase: Phase,
    *,
    seed: int,
    device: torch.device,
    state: State | None = None,
    precision: Precision = "float32",
    ranks: Ranks = ALONE,
    on_epoch: Callable[[dict[str, float]], None] = lambda metrics: None,
) -> list[dict[str, float]]:
    """Train `phase.module` in place; it ends with the weights of the epoch of the lowest validation loss.

    Every epoch draws from generators seeded with (seed, phase, epoch) alone, so a killed and resumed run draws the same
    numbers as an undisturbed one.

    Args:
        phase: module and batches.
        seed: of the whole run.
        device: where to train.
        state: resumable state; None: the phase is not resumable.
        precision: bf16 is torch's autocast; weights, losses and optimiser stay float32.
        ranks: processes that train together; the first one writes.
        on_epoch: called with the metrics of each epoch, including those before a resume.

    Returns:
        Metrics of every epoch: epoch, loss, accuracy, val_loss, val_accuracy, learning_rate.

    Raises:
        TrainingDiverged: the loss is not finite.
    """
    config = phase.config
    full_float32(device)
    phase.module.to(device)
    optimizer = _optimizer(phase.module, config)
    also = [] if (precision, ranks.n) == ("float32", 1) else [precision, ranks.n]
    progress, best = Progress(), _copy(phase.module)
    if state is not None:
        settings = identity_of(config)
        signature = digest([state.signature, phase.name, settings, seed, *also])
        state = replace(state, signature=signature)
        progress, best = _resume(state, phase.module, optimizer) or (progress, best)
    for metrics in progress.history:
        on_epoch(metrics)
    saved = time.monotonic()
    while not progress.finished(config):
        metrics = _epoch(
            phase, optimizer, progress, seed=seed, device=device, precision=precision, ranks=ranks
        )
        if progress.note(metrics, config):
            best = _copy(phase.module)
        on_epoch(metrics)
        if (
            state is not None
            and ranks.index == 0
            and (time.monotonic() - saved >= state.save_seconds or progress.finished(config))
        ):
            _save(state, phase.module, optimizer, progress, best)
            saved = time.monotonic()
    phase.module.load_state_dict(best)
    phase.module.eval()
    return progress.history


def _epoch(
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    *,
    seed: int,
    device: torch.device,
    precision: Precision,
    ranks: Ranks,
) -> dict[str, float]:
    config = phase.config
    epoch_seed = int(digest([seed, phase.name, progress.epoch])[:8], 16)
    generator = np.random.default_rng(epoch_seed)
    torch.manual_seed(epoch_seed + ranks.index)  # each process has its own dropout
    phase.module.train()
    loss_sum, n_right, n_seen, rate = 0.0, 0, 0, config.learning_rate
    for index, batch in enumerate(made_ahead(phase.train_batches(generator))):
        done = (progress.epoch + min(1.0, index / phase.n_batches)) / config.epochs
        rate = learning_rate(config, done, progress.n_reductions)
        for group in optimizer.param_groups:
            group["lr"] = rate
        n_rows = len(batch.labels)
        if ranks.n > 1:
            batch = batch.part(ranks.rows(n_rows))
        labels = batch.labels.to(device)
        with autocast(device, precision):
            inputs = tuple(to_device(tensor, device) for tensor in batch.inputs)
            loss, logits = phase.objective(inputs, labels, config.label_smoothing)
        _check_finite(
            loss.item(),
            phase,
            batch,
            f"the loss became {loss.item()} in epoch {progress.epoch + 1}",
        )
        optimizer.zero_grad(set_to_none=True)
        (loss if ranks.n == 1 else loss * ranks.weight(n_rows)).backward()
        ranks.add_gradients(phase.module)
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        n_right += _n_right(logits, labels)
        n_seen += len(labels)
    ranks.mean_buffers(phase.module)
    if ranks.n > 1:
        loss_sum, n_right, n_seen = ranks.total(loss_sum, n_right, n_seen)  # type: ignore[assignment]
    val_loss, val_accuracy = evaluate(phase, device, precision)
    return {
        "epoch": progress.epoch + 1,
        "loss": loss_sum / n_seen,
        "accuracy": n_right / n_seen,
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
        "learning_rate": rate,
    }


@torch.no_grad()
def evaluate(
    phase: Phase, device: torch.device, precision: Precision = "float32"
) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy over the validation batches.

    Raises:
        TrainingDiverged: the loss is not finite.
    """
    phase.module.eval()
    loss_sum, n_right, n_seen = 0.0, 0, 0
    for batch in phase.val_batches():
        labels = batch.labels.to(device)
        with autocast(device, precision):
            inputs = tuple(to_device(tensor, device) for tensor in batch.inputs)
            mean_loss, logits = phase.objective(inputs, labels, 0.0)
        loss = mean_loss.item()
        _check_finite(loss, phase, batch, f"the validation loss became {loss}")
        loss_sum += loss * len(labels)
        n_right += _n_right(logits, labels)
        n_seen += len(labels)
    return loss_sum / n_seen, n_right / n_seen


def _n_right(logits: torch.Tensor | None, labels: torch.Tensor) -> int:
    return 0 if logits is None else int((logits.argmax(1) == labels).sum())


def _check_finite(loss: float, phase: Phase, batch: Batch, what: str) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"{phase.name}: {what}, on the videos {', '.join(batch.video_ids)}; check these files, or lower "
            f"learning_rate (now {phase.config.learning_rate:g})"
        )


def _optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            module.parameters(),
            rate,
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=decay,
        )
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[config.optimizer](module.parameters(), rate, weight_decay=decay)


def _copy(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _save(
    state: State,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    best: dict[str, torch.Tensor],
) -> None:
    arrays = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    arrays |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        arrays |= {
            f"optimizer.{index}.{slot}": tensor
            for slot, tensor in slots.items()
            if tensor is not None
        }
    config = {"signature": state.signature, "progress": asdict(progress)}
    save_artifact(
        state.path, {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()}, config
    )


def _resume(
    state: State, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """Restore a saved state in place; None if none fits."""
    try:
        arrays, config = load_artifact(state.path)
    except ArtifactError:
        return None
    if config["signature"] != state.signature:
        return None
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    module.load_state_dict(_under("module.", tensors))
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _under("optimizer.", tensors).items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return Progress(**config["progress"]), _under("best.", tensors)


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
