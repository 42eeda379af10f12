from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from tristream.streams.config import SamplerConfig
from tristream.streams.temporal.cross_modality import (
    across_modalities,
    adapt_first_convolution,
    build_cross_modality,
)
from tristream.streams.temporal.stream import STREAM, TemporalConfig

NAME = "resnet18"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Image network with random weights and batch norm statistics, and its file."""
    torch.manual_seed(0)
    network = timm.create_model(NAME, pretrained=False, num_classes=0).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def test_weights_for_equal_channels_sum_to_those_for_colours():
    weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    found = across_modalities(weight, 20)
    assert found.shape == (4, 20, 5, 5)
    torch.testing.assert_close(found.sum(dim=1), weight.sum(dim=1))
    torch.testing.assert_close(found, found[:, :1].expand(-1, 20, -1, -1))
    torch.testing.assert_close(
        across_modalities(weight, 3), weight.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    )


def test_a_stack_of_equal_planes_has_the_embedding_of_a_grey_image_in_the_image_network(
    pictures,
):
    network, path = pictures
    encoder = build_cross_modality(NAME, 3, n_channels=10, weights=path).eval()
    plane = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        grey = network(plane.expand(-1, 3, -1, -1))
        stack = encoder.embed(plane.expand(-1, 10, -1, -1) / encoder.encoder.scale)
    torch.testing.assert_close(stack, grey, rtol=1e-4, atol=1e-5)
    assert encoder.embedding_dim == 512


def test_a_displacement_of_20_px_is_as_large_as_white():
    encoder = build_cross_modality(NAME, 3, n_channels=4).encoder
    white = (1 - 0.5) / (sum((0.229, 0.224, 0.225)) / 3)
    assert 20 * encoder.scale == pytest.approx(white)


def test_only_the_first_batch_norm_learns_and_follows_the_data(pictures):
    encoder = build_cross_modality(NAME, 3, n_channels=10, weights=pictures[1]).train()
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.running_mean.clone(), norm.weight.detach().clone()) for norm in norms]
    optimizer = torch.optim.SGD((p for p in encoder.parameters() if p.requires_grad), 0.1)
    encoder(torch.randn(4, 10, 64, 64)).sum().backward()
    optimizer.step()
    changed = [
        (not torch.equal(norm.running_mean, mean), not torch.equal(norm.weight, weight))
        for norm, (mean, weight) in zip(norms, before, strict=True)
    ]
    assert changed == [(True, True)] + [(False, False)] * (len(norms) - 1)
    whole = build_cross_modality(NAME, 3, n_channels=10, partial_batch_norm=False).train()
    assert all(module.training for module in whole.modules())


def test_convolutions_learn():
    encoder = build_cross_modality(NAME, 3, n_channels=10)
    assert all(
        parameter.requires_grad
        for module in encoder.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        for parameter in module.parameters()
    )


def test_the_stream_builds_it_by_name(pictures):
    config = TemporalConfig(
        encoder=NAME, encoder_weights=pictures[1], stack_length=5, input_size=(64, 64)
    )
    encoder = STREAM(config, SamplerConfig()).build_encoder(7).eval()
    stacks = torch.randn(2, 10, 64, 64)
    assert encoder(stacks).shape == (2, 7)
    assert encoder.embed(stacks).shape == (2, 512)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "efficientnet_b0", "convnext_atto"])
def test_other_families_take_stacks_too(name):
    encoder = build_cross_modality(name, 3, n_channels=6).eval()
    assert encoder(torch.randn(1, 6, 64, 64)).shape == (1, 3)


def test_what_cannot_be_adapted_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"temporal encoder 'resnet1'; available: motion_cnn, or a name of timm \("
    ):
        build_cross_modality("resnet1", 3, n_channels=10)
    with pytest.raises(
        ValueError, match=r"'two_stems' does not begin with one convolution .*\('a', 'b'\)"
    ):
        adapt_first_convolution(nn.Sequential(nn.Conv2d(3, 4, 3)), ("a", "b"), 10, "two_stems")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    sentence = "other.safetensors does not fit 'resnet18': 119 tensors are missing and 1 have another shape"
    with pytest.raises(ValueError, match=sentence):
        build_cross_modality(NAME, 3, n_channels=10, weights=tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("name", "width"), [("mobilenetv3_large_100", 1280), ("vit_tiny_patch16_224", 192)]
)
def test_stacks_of_any_size_go_through_networks_of_one_size_and_of_another_width(name, width):
    encoder = build_cross_modality(name, 3, n_channels=6, input_size=(64, 96)).eval()
    stacks = torch.randn(2, 6, 64, 96)
    with torch.inference_mode():
        assert encoder.embed(stacks).shape == (2, encoder.embedding_dim) == (2, width)
