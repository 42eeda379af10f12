from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tristream.streams.audio.encoder import VGGishShape, build_encoder
from tristream.streams.audio.stream import STREAM, AudioConfig
from tristream.streams.audio.vggish import VGGish, postprocess
from tristream.streams.config import SamplerConfig
from tristream.streams.torch_backend import TorchBackend

PCA_FILE = Path(__file__).parents[2] / "shared" / "weights" / "vggish_pca_params.npz"


def test_vggish_has_its_number_of_parameters():
    with torch.device("meta"):
        net = VGGish()
    assert sum(parameter.numel() for parameter in net.parameters()) == 72_141_184
    assert net.embeddings[0].in_features == 12_288


def test_parameters_have_the_names_and_shapes_of_torchvggish():
    with torch.device("meta"):
        state = VGGish().state_dict()
    convolutions = {
        "0": (64, 1),
        "3": (128, 64),
        "6": (256, 128),
        "8": (256, 256),
        "11": (512, 256),
        "13": (512, 512),
    }
    hidden = {"0": (4096, 12_288), "2": (4096, 4096), "4": (128, 4096)}
    expected = {f"features.{n}.weight": (*shape, 3, 3) for n, shape in convolutions.items()}
    expected |= {f"embeddings.{n}.weight": shape for n, shape in hidden.items()}
    assert {
        name: tuple(tensor.shape) for name, tensor in state.items() if name.endswith("weight")
    } == expected


@pytest.mark.parametrize("n_frames", [16, 32, 96, 112])
@pytest.mark.parametrize("width", [0.0625, 0.25])
def test_examples_of_any_multiple_of_16_rows_give_128_d(n_frames, width):
    net = VGGish(n_frames=n_frames, width=width)
    embeddings = net(torch.randn(3, n_frames, 64))
    assert embeddings.shape == (3, net.embedding_dim) == (3, 128)


def test_width_scales_convolutions_and_hidden_layers():
    with torch.device("meta"):
        net = VGGish(width=0.25)
    widths = [
        module.weight.shape[0]
        for module in net.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert widths == [16, 32, 64, 64, 128, 128, 1024, 1024, 128]


def test_maps_are_flattened_time_first_then_band_then_channel():
    net = VGGish(n_frames=32, width=0.0625, relu=False)
    n_channels = net.features[13].out_channels
    maps = torch.arange(n_channels * 2 * 4, dtype=torch.float32).reshape(1, n_channels, 2, 4)
    net.features = nn.Sequential(
        nn.Flatten(), nn.Linear(32 * 64, maps.numel()), nn.Unflatten(1, maps.shape[1:])
    )
    nn.init.zeros_(net.features[1].weight)
    net.features[1].bias.data = maps.flatten()
    net.embeddings = nn.Identity()
    flat = net(torch.zeros(1, 32, 64))[0]
    position = 0
    for time in range(2):
        for band in range(4):
            for channel in range(n_channels):
                assert flat[position] == maps[0, channel, time, band]
                position += 1


def test_the_network_equals_its_layers_written_out():
    torch.manual_seed(0)
    net = VGGish(n_frames=16, width=0.0625).double()
    x = torch.randn(2, 16, 64, dtype=torch.float64)
    state, maps = net.state_dict(), x[:, None]
    for layer in (0, "pool", 3, "pool", 6, 8, "pool", 11, 13, "pool"):
        if layer == "pool":
            maps = maps.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))
        else:
            padded = nn.functional.pad(maps, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
            weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
            maps = (torch.einsum("bctfij,ocij->botf", padded, weight) + bias[:, None, None]).clamp(
                min=0
            )
    hidden = torch.stack([maps[:, :, 0, band] for band in range(4)], dim=1).reshape(2, -1)
    for layer in (0, 2, 4):
        hidden = (
            hidden @ state[f"embeddings.{layer}.weight"].T + state[f"embeddings.{layer}.bias"]
        ).clamp(min=0)
    torch.testing.assert_close(net(x), hidden)


def test_relu_only_cuts_the_negative_half_of_the_embedding():
    torch.manual_seed(0)
    with_relu, without = (
        VGGish(n_frames=16, width=0.125),
        VGGish(n_frames=16, width=0.125, relu=False),
    )
    without.load_state_dict(with_relu.state_dict())
    x = torch.randn(4, 16, 64)
    assert (without(x) < 0).any()
    torch.testing.assert_close(with_relu(x), without(x).clamp(min=0))


@pytest.mark.parametrize("batch_size", [8, 32])
def test_in_batches_of_one_size_the_bits_of_an_example_depend_neither_on_its_mates_nor_on_its_place(
    batch_size,
):
    """Only there: alone it runs through other kernels, which differ by up to 2e-4 (width 1)."""
    torch.manual_seed(0)
    net = VGGish(n_frames=32, width=0.25).eval()
    example = torch.randn(32, 64)
    network = TorchBackend(torch.device("cpu")).compile(net, np.zeros((batch_size, 32, 64), "f4"))
    alone = network.submit(example.repeat(batch_size, 1, 1).numpy()).result()
    assert (alone == alone[0]).all()
    for place in range(batch_size):
        batch = torch.randn(batch_size, 32, 64)
        batch[place] = example
        assert np.array_equal(network.submit(batch.numpy()).result()[place], alone[0])


def test_the_untrained_network_keeps_the_size_of_its_signal():
    torch.manual_seed(0)
    net = VGGish(n_frames=32, width=0.25, relu=False)
    embeddings = net(torch.randn(8, 32, 64))
    assert 0.3 < embeddings.std().item() < 10
    embeddings.square().mean().backward()
    for name, weight in net.named_parameters():
        if name.endswith("weight"):
            assert 1e-4 < (weight.grad.norm() / weight.norm()).item() < 1e2, name


@pytest.fixture
def pca() -> tuple[np.ndarray, np.ndarray]:
    if not PCA_FILE.exists():
        pytest.skip(f"VGGish's PCA file is not at {PCA_FILE}")
    arrays = np.load(PCA_FILE, allow_pickle=False)
    return arrays["pca_eigen_vectors"], arrays["pca_means"]


def test_the_real_pca_gives_tensorflows_codes_for_a_zero_embedding(pca):
    codes = postprocess(np.zeros(128), *pca)
    assert codes[:8].tolist() == [156, 39, 143, 114, 177, 83, 96, 115]
    assert codes.sum() == 16_830


def test_means_may_be_a_column_and_embeddings_a_batch(pca):
    matrix, means = pca
    embeddings = np.random.default_rng(0).normal(size=(5, 128)).astype(np.float32)
    codes = postprocess(embeddings, matrix, means.reshape(128, 1))
    assert codes.dtype == np.uint8
    for embedding, code in zip(embeddings, codes):
        plain = np.array([np.dot(row, embedding - means) for row in matrix])
        expected = [int((min(max(value, -2), 2) + 2) * 255 / 4) for value in plain]
        np.testing.assert_array_equal(code, expected)


def test_eigenvectors_are_the_rows_of_the_matrix():
    matrix = np.array([[0.0, 1.0], [-1.0, 0.5]])
    assert postprocess(np.array([1.5, 0.5]), matrix, np.array([0.5, 0.5])).tolist() == [127, 63]


def test_codes_are_clipped_at_2_and_truncated():
    embedding = np.array([-9, -2, -1.99, 0, 1.99, 2, 9])
    assert postprocess(embedding, np.eye(7), np.zeros(7)).tolist() == [0, 0, 0, 127, 254, 255, 255]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VGGish(n_frames=100), "examples of 100 rows; n_frames must be a multiple of 16"),
        (lambda: VGGish(n_frames=0), "examples of 0 rows"),
        (lambda: VGGish(width=0.001), "width 0.001 leaves none"),
        (
            lambda: VGGish(n_frames=32, width=0.0625)(torch.zeros(1, 48, 64)),
            r"\(48, 64\).*\(32, 64\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_their_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- weights in torchvggish's layout


def small_torchvggish(width: float, n_frames: int) -> dict[str, np.ndarray]:
    """Return random parameters under torchvggish's names; `pproc` is the PCA of its later files."""
    generator = np.random.default_rng(3)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in VGGish(width=width, n_frames=n_frames).state_dict().items()
    }
    state = {
        name: (generator.normal(size=shape) * 0.1).astype(np.float32)
        for name, shape in shapes.items()
    }
    state["pproc.pca_eigen_vectors"] = np.eye(128, dtype=np.float32)
    state["pproc.pca_means"] = np.zeros((128, 1), np.float32)
    return state


def torchvggishs_forward(state: dict[str, np.ndarray], examples: torch.Tensor) -> torch.Tensor:
    """Return its forward, reimplemented: NCHW maps, axes 1 and 3 exchanged, then 1 and 2, flattened; then ReLU."""
    weights = {name: torch.from_numpy(array) for name, array in state.items()}
    maps = examples[:, None]
    for layer in ("0", "pool", "3", "pool", "6", "8", "pool", "11", "13", "pool"):
        if layer == "pool":
            maps = nn.functional.max_pool2d(maps, 2, 2)
        else:
            weight, bias = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
            maps = nn.functional.conv2d(maps, weight, bias, padding=1).relu()
    flat = maps.transpose(1, 3).transpose(1, 2).contiguous().view(len(maps), -1)
    for layer in ("0", "2", "4"):
        flat = nn.functional.linear(
            flat, weights[f"embeddings.{layer}.weight"], weights[f"embeddings.{layer}.bias"]
        ).relu()
    return flat


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    from safetensors.numpy import save_file

    save_file(arrays, path)
    return path


@torch.inference_mode()
def test_a_file_of_torchvggish_gives_torchvggishs_embeddings(tmp_path):
    state = small_torchvggish(0.125, 96)
    path = saved(tmp_path / "vggish.safetensors", state)
    encoder = (
        STREAM(AudioConfig(encoder="vggish", width=0.125, encoder_weights=path), SamplerConfig())
        .build_encoder(3)
        .eval()
    )
    examples = torch.randn(3, 96, 64, generator=torch.Generator().manual_seed(0))
    expected = torchvggishs_forward(state, examples)
    assert expected.std() > 0.01
    torch.testing.assert_close(encoder.embed(examples), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@torch.inference_mode()
def test_the_whole_network_is_loaded_from_a_file_of_the_real_shapes(tmp_path):
    state = {
        name: array
        for name, array in small_torchvggish(1.0, 96).items()
        if not name.startswith("pproc.")
    }
    assert sum(array.nbytes for array in state.values()) == 4 * 72_141_184
    encoder = build_encoder(
        "vggish", 3, weights=saved(tmp_path / "vggish.safetensors", state)
    ).eval()
    examples = torch.randn(1, 96, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        encoder.embed(examples), torchvggishs_forward(state, examples), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("features.8.bias"),
            r"features\.8\.bias is missing, it must be \(32,\)",
        ),
        (
            lambda state: state.update({"embeddings.0.weight": np.zeros((512, 9), np.float32)}),
            r"embeddings\.0\.weight is \(512, 9\), it must be \(512, 1536\)",
        ),
        (
            lambda state: state.update({"extra": np.zeros(3, np.float32)}),
            r"extra is \(3,\), it must be absent",
        ),
    ],
)
def test_a_file_that_is_not_torchvggishs_is_refused_by_its_first_tensor(change, message, tmp_path):
    state = small_torchvggish(0.125, 96)
    change(state)
    with pytest.raises(
        ValueError,
        match=rf"other\.safetensors is not.*examples of 96 rows: 1 tensors differ.*{message}",
    ):
        build_encoder(
            "vggish",
            3,
            vggish=VGGishShape(0.125),
            weights=saved(tmp_path / "other.safetensors", state),
        )


def test_what_is_no_safetensors_file_is_refused_by_its_name(tmp_path):
    (tmp_path / "no.safetensors").write_bytes(b"PK\x03\x04 pickled")
    for name in ("vggish", "yamnet"):
        with pytest.raises(
            ValueError, match=r"no\.safetensors cannot be read as safetensors weights"
        ):
            build_encoder(name, 3, vggish=VGGishShape(0.0625), weights=tmp_path / "no.safetensors")
    with pytest.raises(
        ValueError,
        match=r"'small' is trained from scratch and takes no weights, not .*no\.safetensors",
    ):
        build_encoder("small", 3, weights=tmp_path / "no.safetensors")


# ---- AudioSet's codes


def test_rounding_gives_the_nearest_code_as_torchvggish_does(pca):
    assert postprocess(np.zeros(128), *pca, rounded=True).sum() == 16_885
    embedding = np.array([-1.99, 0, 0.013, 1.99])
    assert postprocess(embedding, np.eye(4), np.zeros(4), rounded=True).tolist() == [
        1,
        128,
        128,
        254,
    ]


@torch.inference_mode()
@pytest.mark.parametrize("rounded", [False, True])
def test_the_stream_embeds_the_values_that_the_codes_stand_for(pca, tmp_path, rounded):
    matrix, means = (array.astype(np.float32) for array in pca)
    path = saved(tmp_path / "pca.safetensors", {"pca_eigen_vectors": matrix, "pca_means": means})
    plain = {
        "encoder": "vggish",
        "width": 0.0625,
        "n_frames": 16,
        "encoder_training": {"mode": "frozen"},
    }
    torch.manual_seed(0)
    raw = STREAM(AudioConfig(**plain), SamplerConfig()).build_encoder(3).eval()
    torch.manual_seed(0)
    config = AudioConfig(**plain, postprocess=True, postprocess_weights=path, rounded=rounded)
    coded = STREAM(config, SamplerConfig()).build_encoder(3).eval()
    examples = torch.randn(4, 16, 64)
    exact = [array.astype(float) for array in (raw.embed(examples).numpy(), matrix, means)]
    codes = postprocess(*exact, rounded=rounded)
    np.testing.assert_allclose(coded.embed(examples).numpy(), codes * (4 / 255) - 2, atol=1e-6)
    assert {"encoder.pca_matrix", "encoder.pca_means"} <= coded.state_dict().keys()


def test_a_file_without_the_pca_is_refused(tmp_path):
    path = saved(tmp_path / "pca.safetensors", {"pca_means": np.zeros(128, np.float32)})
    with pytest.raises(ValueError, match=r"pca\.safetensors holds no 'pca_eigen_vectors'"):
        build_encoder(
            "vggish", 3, vggish=VGGishShape(0.0625, postprocess=True, postprocess_weights=path)
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"postprocess": True},
            r"no gradient passes them in encoder_training\.mode = 'segments'; it must be frozen",
        ),
        (
            {"postprocess": True, "encoder": "yamnet", "encoder_training": {"mode": "frozen"}},
            r"postprocess = true is VGGish's, and the encoder is 'yamnet'",
        ),
    ],
)
def test_codes_that_cannot_be_learned_through_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        AudioConfig(**values)
