from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tristream.streams import encoding
from tristream.streams.encoding import BatchFiller, encode
from tristream.streams.segments import Segments
from tristream.streams.torch_backend import TorchBackend

CPU = torch.device("cpu")
TORCH = TorchBackend(CPU)
BATCH = 8


class WatchedEncoder(nn.Module):
    """Encoder of layers that could make a row depend on its mates; it records its batches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)
        )
        self.full = nn.Linear(6 * 36, 11)
        self.embedding_dim = 11
        self.batches: list[torch.Tensor] = []

    def embed(self, segments):
        self.batches.append(segments.clone())
        return self.full(self.layers(segments))


def video_of(n: int, seed: int) -> Segments:
    array = np.random.default_rng(seed).normal(size=(n, 2, 8, 8)).astype(np.float32)
    times = np.arange(float(n))
    return Segments(times, times + 1, lambda first, last: array[first:last])


LENGTHS = [3, 1, 8, 17, 1, 1, 20, 5, 16, 2, 30]


@pytest.fixture
def encoder():
    return WatchedEncoder()


def through_filler(encoder, videos):
    filler, found = BatchFiller(encoder, BATCH, TORCH), []
    for key, segments in enumerate(videos):
        found += list(filler.add(key, segments))
    return found + list(filler.finish())


@pytest.mark.parametrize("lengths", [LENGTHS, [8], [7], [9], [8, 8], [1] * 20, [40, 1], [1, 40]])
def test_batches_across_videos_give_the_bits_of_one_video_at_a_time(encoder, lengths):
    videos = [video_of(n, seed) for seed, n in enumerate(lengths)]
    found = through_filler(encoder, videos)
    assert [key for key, _ in found] == list(range(len(videos)))
    for key, embedding in found:
        assert embedding.dtype == np.float32
        assert np.array_equal(
            embedding, encode(encoder, videos[key], batch_size=BATCH, backend=TORCH)
        ), key


def test_every_batch_has_the_fixed_size_and_only_the_last_is_padded(encoder):
    videos = [video_of(n, seed) for seed, n in enumerate(LENGTHS)]
    through_filler(encoder, videos)
    assert {len(batch) for batch in encoder.batches} == {BATCH}
    assert len(encoder.batches) == -(-sum(LENGTHS) // BATCH)
    everything = np.concatenate([segments.array for segments in videos])
    starts = {row.tobytes(): index for index, row in enumerate(everything)}
    in_order = sorted(
        encoder.batches, key=lambda batch: starts[batch[0].numpy().tobytes()]
    )  # several are made at once
    seen = torch.cat(in_order).numpy()
    assert np.array_equal(seen[: len(everything)], everything)
    assert (seen[len(everything) :] == everything[-1]).all()


class Held:
    """Engine that doubles its input and finishes a batch on request."""

    name, device = "held", CPU

    def __init__(self) -> None:
        self.begun: list[tuple[Future, np.ndarray]] = []
        self.busy_seconds = 0.0

    def identity(self):
        return {"backend": "held"}

    def batch_size(self, configured):
        return configured

    def compile(self, module, *example, precision="float32"):
        return self

    def submit(self, batch):
        self.begun.append((Future(), batch.reshape(len(batch), -1) * 2))
        return self.begun[-1][0]

    def finish(self, which):
        future, rows = self.begun[which]
        future.set_result(rows)


def test_a_video_is_returned_in_order_as_soon_as_its_last_row_is_encoded(monkeypatch):
    monkeypatch.setattr(encoding, "MAX_MAKERS", 1)  # batches begin in order
    engine, videos = Held(), {name: video_of(n, n) for name, n in (("a", 5), ("b", 4), ("c", 15))}
    filler = BatchFiller(WatchedEncoder(), BATCH, engine)
    for name, segments in videos.items():
        assert list(filler.add(name, segments)) == []
    while len(engine.begun) < 3:
        time.sleep(0.01)
    engine.finish(1)
    assert list(filler.finished()) == [], "a batch that overtook another waits for it"
    engine.finish(0)
    assert [key for key, _ in filler.finished()] == ["a", "b"]
    assert list(filler.finished()) == []
    engine.finish(2)
    [(key, rows)] = filler.finish()
    assert key == "c"
    assert np.array_equal(rows, 2 * videos["c"].array.reshape(15, -1))


def test_no_more_batches_are_made_than_are_about_to_be_embedded():
    """A flow stack is twenty times its source: memory for prepared batches must not grow with the video."""

    class Busy(Held):
        def __init__(self) -> None:
            super().__init__()
            self.is_free = threading.Event()

        def submit(self, batch):
            self.is_free.wait()
            future = super().submit(batch)
            future.set_result(self.begun[-1][1])
            return future

    engine, read, source = Busy(), [], video_of(800, 0)
    watched = Segments(
        source.start_seconds,
        source.stop_seconds,
        lambda *rows: read.append(rows[0]) or source.read(*rows),
    )
    filler = BatchFiller(WatchedEncoder(), BATCH, engine)
    found = []
    caller = threading.Thread(
        target=lambda: found.extend([*filler.add("v", watched), *filler.finish()])
    )
    caller.start()
    time.sleep(0.3)
    n_made = len(read)
    engine.is_free.set()
    caller.join()
    assert 1 <= n_made <= encoding.MAX_MAKERS
    assert np.array_equal(found[0][1], 2 * source.array.reshape(800, -1)), (
        "and none is lost or mixed up"
    )


BROKEN_OFF = """
import time, numpy as np, torch
from tristream.streams import encoding
from tristream.streams.torch_backend import TorchBackend
from tristream.streams.segments import Segments

class Slow(torch.nn.Module):
    embedding_dim = 2
    def embed(self, segments):
        time.sleep(0.2)
        return segments[:, :2]

encoding.MAX_MAKERS, encoding.n_cores = 4, lambda: 4
times = np.arange(96.0)
rows = Segments(times, times + 1, lambda first, last: np.zeros((last - first, 4), np.float32))
filler = encoding.BatchFiller(Slow(), 8, TorchBackend(torch.device("cpu")))
for _ in filler.add("v", rows):
    pass
raise OSError("the disk is full")
"""


def test_a_run_that_breaks_off_ends_though_batches_are_waiting():
    """Its threads are joined at exit; none of them may wait for ever."""
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN_OFF],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 1
    assert "the disk is full" in ended.stderr


def test_a_long_video_is_read_in_pieces_no_larger_than_a_batch(encoder):
    read = []
    segments = video_of(100, 0)
    watched = Segments(
        segments.start_seconds,
        segments.stop_seconds,
        lambda first, last: read.append(last - first) or segments.read(first, last),
    )
    encode(encoder, watched, batch_size=BATCH, backend=TORCH)
    assert max(read) == BATCH
    assert sum(read) == 100


def test_encoding_switches_training_off_and_keeps_no_gradient(encoder):
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    first, again = (
        encode(encoder, video_of(9, 0), batch_size=BATCH, backend=TORCH) for _ in range(2)
    )
    assert np.array_equal(first, again)
    assert not encoder.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
