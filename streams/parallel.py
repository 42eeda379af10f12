"""Training in several processes, one per GPU, under `accelerate launch`; in one process without it.

Every process draws the same batches from the same generators and computes the gradient of its share of the rows. The
gradients are summed over the processes: all have the same weights, and the batch size is the configured one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from accelerate import Accelerator

LEAST_ROWS = 2  # of a share: batch norm cannot train on a single row


@dataclass(frozen=True)
class Ranks:
    """Processes that train together.

    Attributes:
        n: number of processes.
        index: of this one; process 0 writes.
        accelerator: connects them; None for a single process.
    """

    n: int = 1
    index: int = 0
    accelerator: Accelerator | None = None

    def rows(self, n_rows: int) -> slice:
        """Return this process's share of a batch; all of it if a share would be too small for batch norm."""
        if n_rows < LEAST_ROWS * self.n:
            return slice(0, n_rows)
        return slice(n_rows * self.index // self.n, n_rows * (self.index + 1) // self.n)

    def weight(self, n_rows: int) -> float:
        """Return the weight of this process's loss; the weighted losses add up to the mean over the batch."""
        share = self.rows(n_rows)
        repeated = self.n if n_rows < LEAST_ROWS * self.n else 1
        return (share.stop - share.start) / n_rows / repeated

    def add_gradients(self, module: nn.Module) -> None:
        """Replace every parameter's gradient by the sum over all processes."""
        if self.accelerator is not None:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="sum")

    def mean_buffers(self, module: nn.Module) -> None:
        """Replace running statistics by their mean over all processes."""
        if self.accelerator is not None:
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def total(self, *values: float) -> list[float]:
        """Return the sum of each value over all processes."""
        if self.accelerator is None:
            return list(values)
        device = self.accelerator.device
        return self.accelerator.reduce(
            torch.tensor(values, dtype=torch.float64, device=device)
        ).tolist()

    def wait(self) -> None:
        """Wait until all processes have arrived here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def join(device: torch.device) -> tuple[Ranks, torch.device]:
    """Return the processes that `accelerate launch` or torchrun started and this one's device; alone: `device`."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Ranks(), device
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=device.type == "cpu")
    return Ranks(
        accelerator.num_processes, accelerator.process_index, accelerator
    ), accelerator.device
