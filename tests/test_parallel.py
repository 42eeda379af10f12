"""Training in several processes: all have the weights that the whole batch gives."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tristream.streams.parallel import Ranks, join

HOME = Path(__file__).parents[1]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("n_rows", [1, 2, 5, 6, 31, 32])
def test_shares_cover_a_batch_once_and_count_for_their_rows(n, n_rows):
    ranks = [Ranks(n, index) for index in range(n)]
    assert sum(one.weight(n_rows) for one in ranks) == pytest.approx(1)
    rows = [list(range(n_rows))[one.rows(n_rows)] for one in ranks]
    if n_rows >= 2 * n:
        assert list(itertools.chain(*rows)) == list(range(n_rows))
        assert min(map(len, rows)) >= 2, "batch norm needs two"
    else:
        assert all(one == list(range(n_rows)) for one in rows)


def test_a_process_alone_needs_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks, device = join(torch.device("cpu"))
    assert (ranks, device) == (Ranks(), torch.device("cpu"))
    assert ranks.total(1.0, 2.0) == [1.0, 2.0]
    ranks.wait()


TRAIN = """
import json, sys
import numpy as np, torch
from torch import nn
from tristream.streams.batches import Batch, batches_of
from tristream.streams.config import TrainingConfig
from tristream.streams.parallel import join
from tristream.streams.training_loop import Phase, cross_entropy, run_phase

ranks, device = join(torch.device("cpu"))
torch.manual_seed(0)
network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
inputs, labels = torch.randn(37, 6), torch.arange(37) % 3

def train_batches(generator):
    for rows in batches_of(37, 8, generator):
        yield Batch((inputs[rows],), labels[rows], [str(row) for row in rows])

def val_batches():
    yield Batch((inputs,), labels, ["v"] * 37)

config = TrainingConfig(epochs=4, batch_size=8, learning_rate=0.05)
phase = Phase("tiny", config, network, cross_entropy(network), 5, train_batches, val_batches)
history = run_phase(phase, seed=0, device=device, ranks=ranks)
weights = torch.cat([p.detach().flatten() for p in network.parameters()]).tolist()
open(f"{sys.argv[1]}/{ranks.n}-{ranks.index}.json", "w").write(json.dumps([weights, history]))
"""


@pytest.mark.slow
def test_two_processes_end_in_the_weights_of_one(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    environment = {**os.environ, "PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
    alone = [sys.executable, str(script), str(tmp_path)]
    together = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *alone[1:]]
    for command in (alone, together):
        subprocess.run(
            command, env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=300
        )
    (one, one_history), (first, history), (second, _) = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")
    )
    assert first == second
    assert torch.allclose(torch.tensor(first), torch.tensor(one), atol=1e-5)
    assert [epoch["loss"] for epoch in history] == pytest.approx(
        [epoch["loss"] for epoch in one_history], rel=1e-4
    )
    assert [epoch["accuracy"] for epoch in history] == [epoch["accuracy"] for epoch in one_history]
