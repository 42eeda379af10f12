"""Learned estimators: their wiring against the libraries' own, their weights, and the correlation that is exchanged."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tristream.flow import estimators
from tristream.flow.correlation import FlowNetCorrelation, SpatialCorrelation

HOME = Path(__file__).parents[1]


def pictures(n: int = 2, height: int = 100, width: int = 150, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(
        0, 256, (n, height // 5 + 1, width // 5 + 1, 3), dtype=np.uint8
    )
    return coarse.repeat(5, axis=1).repeat(5, axis=2)[:, :height, :width]


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.fixture(scope="module")
def flownet():
    if importlib.util.find_spec("ptlflow") is None:
        pytest.skip("ptlflow is not installed")
    from tristream.flow.estimators import flownet

    flownet.stock("flownets")  # imports ptlflow as the estimators do
    return flownet


@pytest.mark.parametrize(("patch_size", "step"), [(21, 2), (9, 1), (3, 4), (1, 1)])
@pytest.mark.parametrize("size", [(13, 10), (4, 31), (2, 2)])
def test_the_correlation_equals_ptlflows_slow_one(flownet, patch_size, step, size):
    from ptlflow.utils.correlation import iter_spatial_correlation_sample

    first, second = torch.randn(
        2, 3, 17, *size, generator=torch.Generator().manual_seed(0)
    ).double()
    slow = iter_spatial_correlation_sample(
        first, second, patch_size=patch_size, dilation_patch=step
    )
    fast = SpatialCorrelation(patch_size, step=step)(first, second)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9)


def test_the_correlation_equals_its_definition_and_is_zero_outside():
    first, second = torch.randn(2, 1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    found = SpatialCorrelation(5, step=2)(first, second)
    for i, j in np.ndindex(5, 5):
        down, right = 2 * (i - 2), 2 * (j - 2)
        for y, x in np.ndindex(5, 6):
            inside = 0 <= y + down < 5 and 0 <= x + right < 6
            wanted = (
                (first[0, :, y, x] * second[0, :, y + down, x + right]).sum()
                if inside
                else torch.tensor(0.0)
            )
            torch.testing.assert_close(found[0, i, j, y, x], wanted, rtol=1e-5, atol=1e-6)


def test_flownets_correlation_equals_ptlflows_to_a_hundred_thousandth(flownet):
    from ptlflow.models.flownet.submodules import correlate

    first, second = torch.randn(2, 2, 256, 12, 20, generator=torch.Generator().manual_seed(0))
    assert (
        relative(FlowNetCorrelation()(first, second).numpy(), correlate(first, second).numpy())
        <= 1e-5
    )


def test_an_even_window_of_displacements_is_refused():
    with pytest.raises(ValueError, match="patch_size is 4; it must be odd"):
        SpatialCorrelation(4)


@pytest.mark.parametrize(
    "name",
    [
        "flownets",
        "flownetc",
        "flownetsd",
        "ptlflow:pwcnet",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("flownetcs", "flownetcss", "flownet2")
        ),
    ],
)
@pytest.mark.parametrize("size", [(100, 150), (128, 192)])
def test_the_wiring_is_ptlflows_own(flownet, name, size):
    """RGB, BGR, 0 to 1, the resizing to multiples of 64 and back, x before y: the same numbers on the same weights."""
    estimator = estimators.load(name, weights=3)
    stock = flownet.stock(name.removeprefix("ptlflow:")).eval()
    stock.load_state_dict(estimator.network.core.state_dict())
    frames = pictures(2, *size)
    bgr = torch.from_numpy(frames[..., ::-1].copy()).permute(0, 3, 1, 2)[None].float() / 255
    with torch.inference_mode():
        wanted = stock({"images": bgr})["flows"][0, 0].numpy()
    assert relative(estimator(frames)[0], wanted) <= (1e-5 if name.startswith("flownet") else 1e-4)
    assert relative(estimator(frames[..., ::-1])[0], wanted) > 1e-3


def test_no_slow_correlation_is_left_in_the_networks(flownet):
    from ptlflow.utils.correlation import IterSpatialCorrelationSampler

    for name in ("flownetc", "ptlflow:pwcnet"):
        modules = list(estimators.load(name, weights=0).network.modules())
        assert not any(isinstance(module, IterSpatialCorrelationSampler) for module in modules)
        assert any(isinstance(module, SpatialCorrelation) for module in modules)


@pytest.mark.parametrize(
    ("size", "padded"), [((128, 136), (0, 0, 0, 0)), ((101, 150), (13, 14, 1, 1))]
)
def test_raft_is_torchvisions_own_on_padded_pictures(size, padded):
    from torchvision.models.optical_flow import raft_small

    estimator = estimators.load("raft_small", weights=1)
    own = raft_small(weights=None).eval()
    own.load_state_dict(estimator.network.core.state_dict())
    frames = pictures(2, *size)
    above, below, left, right = padded
    wide = np.pad(frames, ((0, 0), (above, below), (left, right), (0, 0)), mode="edge")
    before, after = torch.from_numpy(wide).permute(0, 3, 1, 2)[:, None].float() / 255 * 2 - 1
    with torch.inference_mode():
        wanted = own(before, after)[-1][0].numpy()
    wanted = wanted[:, above : above + size[0], left : left + size[1]]
    np.testing.assert_allclose(
        estimator(frames)[0], wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max()
    )


def test_raft_alone_is_the_large_one_and_weights_have_their_librarys_name():
    assert estimators.load("raft", weights=0).name == "raft_large"
    names = ("raft", "raft_small", "flownet2", "ptlflow:pwcnet")
    assert [estimators.weights_name(name) for name in names] == [
        "raft_large",
        "raft_small",
        "flownet2",
        "pwcnet",
    ]


def test_weights_come_from_a_file_and_name_the_estimator(tmp_path):
    from safetensors.torch import save_file

    random = estimators.load("raft_small", weights=5)
    save_file(random.network.core.state_dict(), tmp_path / "raft.safetensors")
    loaded = estimators.load("raft_small", weights=tmp_path / "raft.safetensors")
    frames = pictures(2, 40, 60)
    np.testing.assert_array_equal(loaded(frames), random(frames))
    assert random.identity == "raft_small random weights 5"
    sha256 = hashlib.sha256((tmp_path / "raft.safetensors").read_bytes()).hexdigest()
    assert loaded.identity == f"raft_small {sha256}"


def test_a_seed_decides_random_weights_and_leaves_the_callers_generator_alone():
    frames = pictures(2, 40, 60)
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    first = estimators.load("raft_small", weights=1)(frames)
    assert torch.rand(1) == wanted
    np.testing.assert_array_equal(estimators.load("raft_small", weights=1)(frames), first)
    assert np.abs(estimators.load("raft_small", weights=2)(frames) - first).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, key: tensors.pop(key), "it lacks 1 tensors (first: {key})"),
        (
            lambda tensors, key: tensors.update(a=tensors[key]),
            "it has, unknown to the network, 1 tensors (first: a)",
        ),
        (
            lambda tensors, key: tensors.update({key: torch.zeros(3)}),
            "has in another shape 1 tensors (first: {key})",
        ),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, change, message):
    from safetensors.torch import save_file

    tensors = dict(estimators.load("raft_small", weights=0).network.core.state_dict())
    key = next(key for key in tensors if key.endswith("bias"))
    change(tensors, key)
    save_file(
        {name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "weights.safetensors"
    )
    with pytest.raises(ValueError, match=re.escape(message.format(key=key))):
        estimators.load("raft_small", weights=tmp_path / "weights.safetensors")


def test_a_file_that_is_not_safetensors_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"PK\3\4 a pickle in a zip")
    with pytest.raises(ValueError, match=r"weights.safetensors is not a safetensors file"):
        estimators.load("raft_small", weights=tmp_path / "weights.safetensors")


def test_a_learned_estimator_needs_weights_and_others_take_none(tmp_path):
    with pytest.raises(ValueError, match="flow estimator 'raft_small' has no weights"):
        estimators.load("raft_small")
    with pytest.raises(
        ValueError,
        match="flow estimator 'dis' learned nothing; it takes no weights, and 3 were given",
    ):
        estimators.load("dis", weights=3)


def test_an_unknown_network_of_ptlflow_is_refused_with_those_there_are(flownet):
    with pytest.raises(
        ValueError, match=r"unknown flow estimator 'flownet3'; ptlflow .* has .*pwcnet"
    ):
        estimators.load("ptlflow:flownet3", weights=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:To copy construct")
def test_another_engine_is_asked_once_for_each_size_and_its_answers_are_the_flow():
    asked = []

    def compile(network: nn.Module, example: np.ndarray):
        asked.append(example.shape)
        traced = torch.jit.trace(network, torch.from_numpy(example))
        return lambda pair: traced(torch.from_numpy(pair)).numpy()

    estimator = estimators.load("raft_small", weights=0, compile=compile)
    plain = estimators.load("raft_small", weights=0)
    for size in ((40, 60), (40, 60), (50, 44)):
        frames = pictures(2, *size)
        np.testing.assert_allclose(estimator(frames), plain(frames), atol=1e-3)
    assert asked == [(1, 2, 40, 60, 3), (1, 2, 50, 44, 3)]


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_pairs_in_batches_have_the_fields_of_single_pairs(batch_size):
    frames = pictures(6, 40, 60)
    single = estimators.load("raft_small", weights=0)(frames)
    asked = []

    def compile(network: nn.Module, example: np.ndarray):
        asked.append(example.shape[0])
        return lambda pairs: network(torch.from_numpy(pairs)).numpy()

    estimator = estimators.load("raft_small", weights=0, compile=compile, batch_size=batch_size)
    np.testing.assert_allclose(estimator(frames), single, atol=1e-3)
    assert asked == [batch_size], "the last batch is filled up"
    assert estimator(frames[:1]).shape == (0, 2, 40, 60)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_flownet2_can_be_traced_for_another_engine(flownet):
    estimator = estimators.load("flownet2", weights=0)
    pair = torch.from_numpy(pictures(2, 70, 90))[None]
    with torch.inference_mode():
        traced = torch.jit.trace(estimator.network, pair)
        other = torch.from_numpy(pictures(2, 70, 90, seed=1))[None]
        assert relative(traced(other).numpy(), estimator.network(other).numpy()) <= 1e-5


@pytest.mark.slow
def test_ptlflow_is_imported_in_silence_beside_a_faiss_without_gpu(flownet):
    code = (
        "import sys, types; sys.modules['faiss'] = types.ModuleType('faiss')\n"
        "from tristream.flow import estimators\n"
        "estimators.load('flownets', weights=0)\n"
        "assert isinstance(sys.modules['faiss'], types.ModuleType)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_without_ptlflow_the_extra_is_named():
    code = (
        "import sys; sys.modules['ptlflow'] = None\n"
        "from tristream.flow import estimators\n"
        "try: estimators.load('flownet2', weights=0)\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True)
    assert "pip install 'tristream[flow]'" in done.stdout, done.stderr
