from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from streams.audio.vggish import VGGish, postprocess

PCA_FILE = Path(__file__).parents[2] / "shared" / "weights" / "vggish_pca_params.npz"


def test_vggish_has_its_number_of_parameters():
    with torch.device("meta"):
        net = VGGish()
    assert sum(parameter.numel() for parameter in net.parameters()) == 72_141_184
    assert net.embeddings[0].in_features == 12_288


def test_parameters_have_the_names_and_shapes_of_torchvggish():
    with torch.device("meta"):
        state = VGGish().state_dict()
    convolutions = {"0": (64, 1), "3": (128, 64), "6": (256, 128), "8": (256, 256), "11": (512, 256), "13": (512, 512)}
    hidden = {"0": (4096, 12_288), "2": (4096, 4096), "4": (128, 4096)}
    expected = {f"features.{n}.weight": (*shape, 3, 3) for n, shape in convolutions.items()}
    expected |= {f"embeddings.{n}.weight": shape for n, shape in hidden.items()}
    assert {name: tuple(tensor.shape) for name, tensor in state.items() if name.endswith("weight")} == expected


@pytest.mark.parametrize("n_frames", [16, 32, 96, 112])
@pytest.mark.parametrize("width", [0.0625, 0.25])
def test_examples_of_any_multiple_of_16_rows_give_128_d(n_frames, width):
    net = VGGish(n_frames=n_frames, width=width)
    embeddings = net(torch.randn(3, n_frames, 64))
    assert embeddings.shape == (3, net.embedding_dim) == (3, 128)


def test_width_scales_convolutions_and_hidden_layers():
    with torch.device("meta"):
        net = VGGish(width=0.25)
    widths = [module.weight.shape[0] for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert widths == [16, 32, 64, 64, 128, 128, 1024, 1024, 128]


def test_maps_are_flattened_time_first_then_band_then_channel():
    net = VGGish(n_frames=32, width=0.0625, relu=False)
    n_channels = net.features[13].out_channels
    maps = torch.arange(n_channels * 2 * 4, dtype=torch.float32).reshape(1, n_channels, 2, 4)
    net.features = nn.Sequential(nn.Flatten(), nn.Linear(32 * 64, maps.numel()), nn.Unflatten(1, maps.shape[1:]))
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
            maps = (torch.einsum("bctfij,ocij->botf", padded, weight) + bias[:, None, None]).clamp(min=0)
    hidden = torch.stack([maps[:, :, 0, band] for band in range(4)], dim=1).reshape(2, -1)
    for layer in (0, 2, 4):
        hidden = (hidden @ state[f"embeddings.{layer}.weight"].T + state[f"embeddings.{layer}.bias"]).clamp(min=0)
    torch.testing.assert_close(net(x), hidden)


def test_relu_only_cuts_the_negative_half_of_the_embedding():
    torch.manual_seed(0)
    with_relu, without = VGGish(n_frames=16, width=0.125), VGGish(n_frames=16, width=0.125, relu=False)
    without.load_state_dict(with_relu.state_dict())
    x = torch.randn(4, 16, 64)
    assert (without(x) < 0).any()
    torch.testing.assert_close(with_relu(x), without(x).clamp(min=0))


def test_one_example_does_not_depend_on_its_batch_mates():
    torch.manual_seed(0)
    net = VGGish(n_frames=32, width=0.25).eval()
    x = torch.randn(8, 32, 64)
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]), rtol=1e-5, atol=1e-6)


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
        (lambda: VGGish(n_frames=32, width=0.0625)(torch.zeros(1, 48, 64)), r"\(48, 64\).*\(32, 64\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_their_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
