"""Learned flow in the streams: its weights are found by the estimator's name and are part of the space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tristream import settings, streams
from tristream.errors import UsageError
from tristream.flow import estimators
from tristream.pretrained import Pretrained
from tristream.store import weights
from tristream.store.weights.convert import sha256_of
from tristream.streams.config import SamplerConfig
from tristream.streams.flow_estimators import Estimators
from tristream.streams.flow_needs import seeds_of
from tristream.streams.model import shared_estimators
from tristream.streams.torch_backend import TorchBackend

LOOKING = [name for name in streams.names() if streams.stream_class(name).needs_pictures]
LEARNED = "raft_small"  # torchvision's: no extra is needed for it


def chosen(name, tmp_path, **kwargs):
    where = weights.Places(tmp_path, tmp_path / "cache")
    return settings.load(
        "light",
        None,
        [f"sampler.estimator={LEARNED}"],
        stream_names=[name],
        pretrained=Pretrained(where, **kwargs),
    )


def test_an_estimator_is_made_once_and_its_random_weights_follow_from_the_seed():
    pytest.importorskip("torchvision")
    one, again, other = (Estimators({LEARNED: seed}) for seed in (0, 0, 1))
    assert one.load(LEARNED) is one.load(LEARNED)
    frames = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    flow = one.load(LEARNED)(frames)
    assert np.array_equal(flow, again.load(LEARNED)(frames))
    assert not np.array_equal(flow, other.load(LEARNED)(frames))
    assert one.identity(LEARNED) == again.identity(LEARNED) == "raft_small, random weights 0"


def test_weights_of_a_file_are_the_ones_that_run(tmp_path):
    """Random weights in torchvision's layout are added under a name and found by it."""
    from safetensors.torch import save_file

    from tristream.store.weights import catalogue

    torch.manual_seed(5)
    core = estimators.load(LEARNED, weights=5).network.core
    save_file(core.state_dict(), tmp_path / "raft.safetensors")
    where = weights.Places(None, tmp_path / "cache")
    known = catalogue.TABLE[LEARNED]
    with pytest.MonkeyPatch.context() as patch:
        sha256 = sha256_of(tmp_path / "raft.safetensors")
        patch.setitem(catalogue.TABLE, LEARNED, catalogue.replace(known, sha256=sha256))
        weights.add(tmp_path / "raft.safetensors", LEARNED, where=where)
        made = Estimators(where=where)
        assert made.identity(LEARNED) == f"{LEARNED}, weights {sha256}"
        frames = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
        assert np.array_equal(
            made.load(LEARNED)(frames), estimators.load(LEARNED, weights=5)(frames)
        )


def test_identities_name_the_published_file():
    assert Estimators().identity("flownet2") == "flownet2, weights d63b53a7"
    assert Estimators().identity("dis") == "dis"
    on_gpu = Estimators({LEARNED: 3}, backend=TorchBackend(torch.device("cuda")))
    assert on_gpu.key(LEARNED).startswith("raft_small, random weights 3, torch-cuda")
    assert on_gpu.key("dis") == "dis"


@pytest.mark.parametrize("name", LOOKING)
def test_missing_weights_of_the_flow_are_a_mistake_before_any_work(tmp_path, name, no_network):
    with pytest.raises(
        UsageError, match=rf"^\[sampler\] estimator: weights '{LEARNED}' \(torchvision's RAFT"
    ) as caught:
        chosen(name, tmp_path)
    assert f"--weights-dir {tmp_path}: holds no raft_small_C_T_V2-01064c6d.pth" in str(caught.value)


@pytest.mark.parametrize("name", streams.names())
def test_random_weights_reach_the_sampler_of_every_stream(tmp_path, name):
    found = chosen(name, tmp_path, random_weights=4)
    assert found.sampler.weights_seed == 4
    assert seeds_of(streams.load(name, found.streams[name], found.sampler))[LEARNED] == 4


def test_a_stream_without_frames_needs_no_weights_of_the_flow(tmp_path, no_network):
    for name in set(streams.names()) - set(LOOKING):
        assert chosen(name, tmp_path).sampler.estimator == LEARNED


@pytest.mark.parametrize("name", LOOKING)
def test_random_flow_is_another_space_and_so_is_another_seed(untrained, workshop_settings, name):
    config = workshop_settings.streams[name]
    plain = workshop_settings.sampler
    learned = [{"estimator": LEARNED, "weights_seed": seed} for seed in (None, 0, 1)]
    samplers = [plain, *(plain.model_copy(update=update) for update in learned)]
    spaces = {untrained(name, config=config, sampler=sampler).space_id for sampler in samplers}
    assert len(spaces) == 4
    identity = untrained(name, config=config, sampler=samplers[1]).segment_identity()
    assert identity["flow"] == ["raft_small, weights 01064c6d"]


def test_streams_with_other_random_flow_do_not_go_together(untrained, workshop_settings):
    name = LOOKING[0]
    trained = [
        untrained(name, sampler=SamplerConfig(estimator=LEARNED, weights_seed=seed))
        for seed in (0, 1)
    ]
    with pytest.raises(
        ValueError, match=r"ran 'raft_small' with random weights of seed 0 and of seed 1; train"
    ):
        shared_estimators(trained)
    assert shared_estimators(trained[:1]).identity(LEARNED) == "raft_small, random weights 0"
