"""Results of a GPU against the CPU; the other test files run on a GPU too if there is one."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tristream import streams
from tristream.flow import estimators
from tristream.store.cache import Cache
from tristream.streams.backend import CPU, as_function
from tristream.streams.config import SamplerConfig
from tristream.streams.extraction import extract
from tristream.streams.segments import Footage
from tristream.streams.temporal.stream import STREAM as TEMPORAL
from tristream.streams.temporal.stream import TemporalConfig, _fields, _stacks, _stacks_on
from tristream.streams.torch_backend import TorchBackend, to_device
from tristream.streams.training import Example, Examples, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
GPU = torch.device("cuda")


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", streams.names())
def test_embeddings_are_those_of_the_cpu(name, untrained, make_videos, toy_video, tmp_path):
    files = {f"v{n}.mp4": toy_video(40 + 7 * n, seed=n) for n in range(3)}
    found = {}
    for device in (CPU, GPU):
        videos, _ = make_videos(files, Cache(tmp_path / device.type))
        results = extract(videos, [untrained(name)], cache=Cache(tmp_path / device.type),
                          backend=TorchBackend(device), n_threads=2)  # fmt: skip
        found[device] = np.stack([result.embeddings[name] for result in results])
    assert relative(found[GPU], found[CPU]) <= 1e-4


@pytest.mark.parametrize("mean_removed", [True, False])
def test_stacks_for_training_are_those_of_the_cpu(mean_removed):
    config = TemporalConfig(input_size=(24, 32), stack_length=5, mean_removed=mean_removed)
    arrays = [
        np.random.default_rng(n).normal(1, 3, (12, 2, 24, 32)).astype(np.float16) for n in range(6)
    ]
    footages = [Footage(array, np.zeros(12), np.zeros(12), np.arange(8)) for array in arrays]
    drawn = [
        TEMPORAL(config, SamplerConfig())
        .training_segments(footages, np.random.default_rng(3), device)
        .cpu()
        for device in (CPU, GPU)
    ]
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["raft_small", "flownets", "flownet2"])
def test_flow_is_that_of_the_cpu_and_does_not_depend_on_its_batch(name):
    if name.startswith("flownet"):
        find_spec("ptlflow") or pytest.skip("ptlflow is not installed")
    frames = (
        np.random.default_rng(0)
        .integers(0, 256, (6, 16, 24, 3), np.uint8)
        .repeat(8, 1)
        .repeat(8, 2)
    )
    on_cpu = estimators.load(name, weights=0)(frames)
    backend = TorchBackend(GPU)
    on_gpu = estimators.load(name, weights=0, compile=as_function(backend), batch_size=4)
    found = on_gpu(frames)
    assert relative(found, on_cpu) <= 1e-3  # a recurrent network's rounding grows from step to step
    assert np.array_equal(on_gpu(frames), found)
    for t in range(5):
        assert np.array_equal(on_gpu(frames[t : t + 2])[0], found[t]), t


@pytest.mark.parametrize("name", streams.names())
def test_training_learns_what_it_learns_on_the_cpu(
    name, workshop_settings, make_videos, toy_video, tmp_path
):
    """A few steps: the losses differ by rounding alone."""
    config = workshop_settings.streams[name]
    few = {"epochs": 2, "batch_size": 4}
    config = config.model_copy(update={
        "encoder_dropout": 0.0, "aggregator": config.aggregator.model_copy(update={"dropout": 0.0}),
        "encoder_training": config.encoder_training.model_copy(update=few),
        "aggregator_training": config.aggregator_training.model_copy(update=few),
    })  # fmt: skip
    stream = streams.load(name, config, workshop_settings.sampler)
    videos, _ = make_videos({f"v{n}.mp4": toy_video(40, seed=n) for n in range(8)}, Cache(tmp_path))
    examples = [Example(v.video_id, stream.footage(v), n % 2) for n, v in enumerate(videos)]
    heard: dict[torch.device, list[float]] = {}
    for device in (CPU, GPU):
        losses = heard.setdefault(device, [])
        train(stream, Examples(examples[:6], examples[6:], 2), seed=0, backend=TorchBackend(device),
              on_epoch=lambda phase, metrics, losses=losses: losses.append(metrics["loss"]))  # fmt: skip
    assert heard[GPU] == pytest.approx(heard[CPU], rel=0.02)


def test_a_tensor_on_the_device_is_not_copied():
    tensor = torch.arange(4.0)
    there = to_device(tensor, GPU)
    assert to_device(there, GPU) is there
    assert torch.equal(there.cpu(), tensor)


def test_a_short_video_repeats_its_last_field():
    config = TemporalConfig(input_size=(8, 8), stack_length=5)
    array = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float16)
    footage = Footage(array, np.zeros(3), np.zeros(3), np.arange(1))
    made = _stacks_on(GPU, _fields(footage, 0, config)[None], config)[0].cpu().numpy()
    np.testing.assert_allclose(made, _stacks([(footage, 0)], config)[0], atol=1e-6)
