"""Engines: equal to torch within their stated error; rows independent of their mates and of other batches."""

from __future__ import annotations

import copy
import gc
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from tristream.media.machine import n_cores
from tristream.store.cache import Cache
from tristream.streams.backend import Embedding, Kept, as_function
from tristream.streams.compute import BACKENDS, choose
from tristream.streams.torch_backend import TorchBackend, channels_last

CPU = torch.device("cpu")


def small_encoder(seed: int = 0, relu: bool = True) -> nn.Module:
    from tristream.streams.small_cnn import SegmentClassifier, SmallCNN

    torch.manual_seed(seed)
    network = SmallCNN(3, (8, 16), input_size=(24, 32), embedding_dim=12)
    if not relu:
        network.full[2] = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: a fresh one does nothing
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return SegmentClassifier(network, 12, 3).eval()


def pictures(n: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, 24, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=["torch", "openvino", "torch on a GPU"])
def backend(request, cache):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    if request.param == "torch on a GPU":
        return choose("torch", device=gpu(), cache=cache)
    return choose(request.param, device=CPU, cache=cache)


def gpu() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    return torch.device("cuda")


def reference(module: nn.Module, rows: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module.cpu().embed(torch.from_numpy(rows)).numpy()


def test_every_backend_computes_what_torch_does_to_1e_5(backend):
    encoder, rows = small_encoder(), pictures()
    found = backend.compile(Embedding(encoder), rows).submit(rows).result()
    expected = reference(encoder, rows)
    assert found.dtype == np.float32
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_a_row_depends_neither_on_its_mates_nor_on_its_place(backend):
    network = backend.compile(Embedding(small_encoder()), pictures())
    rows = pictures(seed=1)
    found = network.submit(rows).result()
    assert np.array_equal(network.submit(rows[::-1].copy()).result()[::-1], found)
    for place in range(8):
        mates = pictures(seed=2)
        mates[place] = rows[place]
        assert np.array_equal(network.submit(mates).result()[place], found[place]), place


def test_batches_in_flight_do_not_change_one_another(backend):
    network = backend.compile(Embedding(small_encoder()), pictures())
    batches = [pictures(seed=seed) for seed in range(12)]
    alone = [network.submit(batch).result() for batch in batches]
    together = [network.submit(batch) for batch in batches]
    assert all(
        np.array_equal(future.result(), rows) for future, rows in zip(together, alone, strict=True)
    )
    assert network.busy_seconds > 0


def test_a_network_is_never_busier_than_its_streams(backend):
    network = backend.compile(Embedding(small_encoder()), pictures())
    begun = time.perf_counter()
    for future in [network.submit(pictures(seed=seed)) for seed in range(30)]:
        future.result()
    assert 0 < network.busy_seconds <= n_cores() * (time.perf_counter() - begun)


def test_several_threads_may_use_one_network(backend):
    network = backend.compile(Embedding(small_encoder()), pictures())
    batches = [pictures(seed=seed) for seed in range(4)]
    alone = [network.submit(batch).result() for batch in batches]
    wrong = []

    def work(which: int) -> None:
        for _ in range(10):
            if not np.array_equal(network.submit(batches[which]).result(), alone[which]):
                wrong.append(which)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_bf16_is_near_float32_and_not_equal_to_it(backend):
    encoder, rows = small_encoder(), pictures()
    try:
        found = backend.compile(Embedding(encoder), rows, precision="bf16").submit(rows).result()
    except ValueError as error:
        pytest.skip(str(error))
    expected = reference(encoder, rows)
    assert 0 < np.linalg.norm(found - expected) <= 0.05 * np.linalg.norm(expected)


def test_a_converted_network_comes_from_the_cache_and_computes_the_same(cache, tmp_path):
    pytest.importorskip("openvino")
    backend = choose("openvino", device=CPU, cache=Cache(tmp_path))
    rows = pictures()
    first = backend.compile(Embedding(small_encoder()), rows).submit(rows).result()
    [(kind, path)] = list(Cache(tmp_path).entries())
    assert kind == "compiled"
    written = path.stat().st_mtime_ns
    again = backend.compile(Embedding(small_encoder()), rows).submit(rows).result()
    assert np.array_equal(first, again)
    assert path.stat().st_mtime_ns == written
    path.unlink()  # at any time
    assert np.array_equal(
        backend.compile(Embedding(small_encoder()), rows).submit(rows).result(), first
    )


@pytest.mark.parametrize(
    "change", ["weights", "a layer without weights", "size", "a constant that is not saved"]
)
def test_another_network_is_not_served_from_the_cache(change, tmp_path):
    pytest.importorskip("openvino")
    from tristream.streams.openvino_backend import network_digest
    from tristream.streams.spatial.encoder import Normalised

    rows = pictures()
    cache = Cache(tmp_path)
    backend = choose("openvino", device=CPU, cache=cache)
    encoder, other = small_encoder(), small_encoder()
    backend.compile(Embedding(encoder), rows)
    if change == "weights":
        other = small_encoder(seed=1)
    elif change == "a layer without weights":
        other = small_encoder(relu=False)
    elif change == "size":
        rows = pictures(4)
    else:
        one, another = (
            Normalised(nn.Identity(), (0.5,) * 3, std) for std in ((0.5,) * 3, (0.25,) * 3)
        )
        assert one.state_dict().keys() == another.state_dict().keys()
        assert network_digest(one) != network_digest(another)
        return
    found = backend.compile(Embedding(other), rows).submit(rows).result()
    np.testing.assert_allclose(found, reference(other, rows), rtol=1e-4, atol=1e-5)
    assert len(list(cache.entries())) == 2


def test_a_conversion_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    from tristream.streams import openvino_backend

    def wrong(module: nn.Module, *example: np.ndarray) -> dict[str, np.ndarray]:
        return right(Embedding(small_encoder(seed=5)), *example)

    right = openvino_backend.convert
    monkeypatch.setattr(openvino_backend, "convert", wrong)
    cache = Cache(tmp_path)
    with pytest.raises(
        openvino_backend.ConversionError,
        match=r"Embedding with a relative error of \S+ against torch",
    ):
        choose("openvino", device=CPU, cache=cache).compile(Embedding(small_encoder()), pictures())
    assert list(cache.entries()) == []


def test_a_network_that_openvino_cannot_convert_is_named(monkeypatch):
    pytest.importorskip("openvino")
    pool = nn.MaxPool2d(
        3, stride=2, ceil_mode=True
    ).eval()  # a map of 2 x 2: torch takes what there is
    rows = pictures()[..., :2, :2].copy()
    with pytest.raises(
        Exception, match=r"OpenVINO cannot convert this MaxPool2d .*; take --backend torch"
    ):
        choose("openvino", device=CPU).compile(pool, rows)


@pytest.mark.parametrize(
    ("kernel", "size"),
    [(2, (1, 1)), (2, (1, 5)), (2, (6, 9)), (3, (2, 2)), (3, (2, 7)), (3, (6, 9))],
)
def test_pooling_of_maps_smaller_than_the_kernel_is_torchs_own(backend, kernel, size):
    from tristream.streams.small_cnn import CeilMaxPool

    maps = torch.relu(
        torch.from_numpy(np.random.default_rng(0).normal(size=(8, 3, *size)).astype(np.float32))
    )
    found = backend.compile(CeilMaxPool(kernel).eval(), maps.numpy()).submit(maps.numpy()).result()
    assert np.array_equal(
        found, nn.functional.max_pool2d(maps, kernel, stride=2, ceil_mode=True).numpy()
    )


def test_a_flow_network_runs_one_pair_at_a_time(backend):
    module = nn.Conv2d(3, 2, 3).eval()
    pair = pictures(1)
    found = as_function(backend)(module, pair)(pair)
    with torch.inference_mode():
        np.testing.assert_allclose(
            found, module.cpu()(torch.from_numpy(pair)).numpy(), rtol=1e-4, atol=1e-5
        )


def test_an_engine_states_the_size_of_its_batches(backend):
    assert backend.batch_size(8) == 8
    assert backend.batch_size(32) == (32 if backend.name == "torch" else 8)
    assert backend.identity()["backend"].startswith(backend.name)


def test_auto_is_openvino_on_a_cpu_that_has_it(monkeypatch):
    pytest.importorskip("openvino")
    assert choose("auto", device=CPU).name == "openvino"
    assert choose("auto", device=torch.device("cuda")).name == "torch"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose("auto", device=CPU).name == "torch"
    with pytest.raises(ValueError, match=r"pip install 'tristream\[fast\]'"):
        choose("openvino", device=CPU)


def test_an_unknown_backend_and_a_wrong_device_are_named():
    with pytest.raises(
        ValueError, match=rf"unknown backend 'onnx'; available: {', '.join(BACKENDS)}"
    ):
        choose("onnx", device=CPU)
    pytest.importorskip("openvino")
    with pytest.raises(ValueError, match="runs on the CPU, not on cuda"):
        choose("openvino", device=torch.device("cuda"))


def test_float32_on_a_gpu_is_float32():
    """cuDNN's default, TF32, is off by 3e-4 here."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(64, 64, 3)
    rows = np.random.default_rng(0).normal(size=(8, 64, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = nn.functional.conv2d(
            torch.from_numpy(rows).double(), convolution.weight.double(), convolution.bias.double()
        ).numpy()
    found = TorchBackend(gpu()).compile(convolution, rows).submit(rows).result()
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.slow
def test_torch_compiled_computes_what_torch_does():
    encoder, rows = small_encoder(), pictures()
    found = (
        TorchBackend(CPU, is_compiled=True).compile(Embedding(encoder), rows).submit(rows).result()
    )
    expected = reference(encoder, rows)
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_a_kept_network_does_not_keep_its_module_alive():
    class Converted:
        busy_seconds = 0.0

        def submit(self, *inputs):
            raise NotImplementedError

    class Converting:  # an engine that has the weights in a form of its own
        name, device = "converting", torch.device("cpu")
        n_compiled = 0

        def identity(self):
            return {}

        def batch_size(self, configured):
            return configured

        def compile(self, module, *example, precision="float32"):
            self.n_compiled += 1
            return Converted()

    engine = Converting()
    kept, module, example = Kept(engine), nn.Linear(2, 2), np.zeros((1, 2), np.float32)
    assert kept.compile(module, example) is kept.compile(module, example)
    assert engine.n_compiled == 1
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
    kept.compile(nn.Linear(2, 2), example)
    assert engine.n_compiled == 2


def test_a_network_of_3d_convolutions_runs_and_2d_ones_are_stored_channels_last():
    """`Module.to(memory_format=torch.channels_last)` raises on weights of five axes."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4), nn.Flatten(1, 2), nn.Conv2d(24, 5, 3), nn.Flatten()
    ).eval()
    clips = np.random.default_rng(0).normal(size=(8, 3, 8, 10, 10)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(clips)).numpy()
    with pytest.raises(RuntimeError):
        network.to(memory_format=torch.channels_last)
    compiled = TorchBackend(torch.device("cpu")).compile(network, clips)
    np.testing.assert_allclose(compiled.submit(clips).result(), expected, rtol=1e-4, atol=1e-5)
    assert network[3].weight.is_contiguous(memory_format=torch.channels_last)


def test_2d_networks_get_the_strides_that_torch_gives_them():
    layers = [nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 6, 1)]
    ours, theirs = (nn.Sequential(*layers), nn.Sequential(*copy.deepcopy(layers)))
    channels_last(ours)
    theirs.to(memory_format=torch.channels_last)
    for key, weight in theirs.state_dict().items():
        assert ours.state_dict()[key].stride() == weight.stride(), key
