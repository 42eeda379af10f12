"""TSN's segmental sampling: stretches, the loss of the mean, and a training with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tristream import streams
from tristream.store.cache import Cache
from tristream.streams import model, training
from tristream.streams.config import SamplerConfig
from tristream.streams.segmental import segmental_objective, stretches_of
from tristream.streams.segments import Footage
from tristream.streams.torch_backend import TorchBackend

EVERY_STREAM = pytest.mark.parametrize("name", streams.names())
CPU = torch.device("cpu")


def footage(n: int, span: int) -> Footage:
    rows = np.arange(n)
    return Footage(rows[:, None], rows * 1.0, rows + 1.0, rows[:1], rows_per_segment=span)


@pytest.mark.parametrize("span", [1, 2, 5])
def test_the_starts_of_the_stretches_are_those_of_the_video(span):
    for n in range(span, 30):
        for k in (1, 2, 3, 7):
            parts = stretches_of(footage(n, span), k)
            starts = [part.array[: len(part.array) - span + 1, 0].tolist() for part in parts]
            assert len(parts) == k
            assert min(map(len, starts)) >= 1
            assert sorted({s for one in starts for s in one}) == list(range(n - span + 1))
            if n - span + 1 >= k:
                assert sum(map(len, starts)) == n - span + 1
                sizes = [len(one) for one in starts]
                assert max(sizes) - min(sizes) <= 1
            for part in parts:
                np.testing.assert_array_equal(part.start_seconds, part.array[:, 0])


def test_a_video_shorter_than_a_segment_is_in_every_stretch_whole():
    assert [len(part.array) for part in stretches_of(footage(3, 5), 3)] == [3, 3, 3]


def test_the_objective_is_the_loss_of_the_mean_logits():
    torch.manual_seed(0)
    encoder = nn.Linear(4, 3)
    segments, counts = torch.randn(6, 4), torch.tensor([3, 1, 2])
    labels = torch.tensor([2, 0, 1])
    loss, logits = segmental_objective(encoder)((segments, counts), labels, 0.0)
    means = [encoder(segments[a:b]).mean(0) for a, b in ((0, 3), (3, 4), (4, 6))]
    torch.testing.assert_close(logits, torch.stack(means))
    wanted = [-one.log_softmax(0)[label] for one, label in zip(means, labels, strict=True)]
    torch.testing.assert_close(loss, torch.stack(wanted).mean())


@EVERY_STREAM
def test_a_stream_trains_on_one_segment_of_each_stretch(
    name, make_videos, toy_video, workshop_settings, tmp_path
):
    config = workshop_settings.streams[name]
    phase = config.encoder_training.model_copy(
        update={"mode": "segments", "epochs": 2, "batch_size": 4, "n_segments": 3}
    )
    config = config.model_copy(update={"encoder_training": phase})
    stream = streams.load(name, config, SamplerConfig(n_samples=6, n_segments=3, max_side_px=64))
    files = {f"v{index}.mp4": toy_video(32 + 4 * index, seed=index) for index in range(6)}
    videos, _ = make_videos(files, Cache(tmp_path / "cache"))
    made = [
        training.Example(video.video_id, stream.footage(video), index % 2)
        for index, video in enumerate(videos)
    ]
    examples = training.Examples(made[:4], made[4:], 2)
    network = training.new_model(stream, 2, seed=0)
    own = training.encoder_phase(stream, network, examples)
    batch = next(iter(own.train_batches(np.random.default_rng(0))))
    segments, counts = batch.inputs
    assert counts.tolist() == [3] * 4
    assert segments.shape == (12, *stream.cut(made[0].footage).array.shape[1:])
    part = batch.part(slice(1, 3))
    assert torch.equal(part.inputs[0], segments[3:9])

    def train():
        backend = TorchBackend(CPU)
        return model.weights_sha256(
            training.train(stream, examples, seed=0, backend=backend).encoder
        )

    assert train() == train() != model.weights_sha256(network.encoder)
