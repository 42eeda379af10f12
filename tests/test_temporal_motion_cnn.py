from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tristream.streams.temporal.motion_cnn import MotionCNN

REDUCED = [
    {"input_size": (32, 32), "width": 0.25, "pool2": False, "full6": 256, "full7": 128},
    {"input_size": (36, 48), "width": 0.25, "pool2": False, "full6": 256, "full7": 128},
    {"input_size": (112, 112), "width": 0.25},
]


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("input_size", "full6_inputs", "expected"),
    [((240, 320), 32_256, 147_331_077), ((224, 224), 18_432, 90_707_973)],
)
def test_the_full_network_has_the_papers_number_of_parameters(input_size, full6_inputs, expected):
    with torch.device("meta"):
        net = MotionCNN(101, input_size=input_size)
    assert net.full6.in_features == full6_inputs
    assert n_parameters(net) == expected
    convolutions = [net.conv1, net.conv2, net.conv3, net.conv4, net.conv5]
    assert sum(map(n_parameters, convolutions)) == 6_608_800


def test_every_map_has_the_size_of_the_papers_table():
    sizes = []
    with torch.device("meta"):
        net = MotionCNN(101)
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                module.register_forward_hook(
                    lambda _module, _inputs, maps: sizes.append(tuple(maps.shape[2:]))
                )
        assert net(torch.empty(2, 20, 240, 320)).shape == (2, 101)
    conv1, pool1, conv2, pool2, pool5 = (117, 157), (58, 78), (28, 38), (14, 19), (7, 9)
    assert sizes == [conv1, pool1, conv2, pool2, pool2, pool2, pool2, pool5]


def test_the_first_convolution_alone_is_normalised_unless_asked():
    with torch.device("meta"):
        paper, normalised = MotionCNN(5), MotionCNN(5, batch_norm="all")
    assert [
        name for name, module in paper.named_modules() if isinstance(module, nn.BatchNorm2d)
    ] == ["conv1.1"]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in normalised.modules()) == 5


@pytest.mark.parametrize("pool2", [True, False])
@pytest.mark.parametrize("height", [25, 30, 41, 44, 57, 64])
@pytest.mark.parametrize("width", [41, 49, 60])
def test_the_smallest_inputs_and_all_roundings_of_the_pools_fit(height, width, pool2):
    if pool2 and height < 41:
        with pytest.raises(
            ValueError, match=f"{height} x {width} px are too small .* at least 41 px"
        ):
            MotionCNN(3, 2, (height, width), 0.05)
        return
    net = MotionCNN(3, 2, (height, width), 0.05, pool2=pool2).eval()
    assert net(torch.zeros(1, 4, height, width)).shape == (1, 3)


def test_inputs_too_small_even_without_pool2_are_refused():
    with pytest.raises(
        ValueError, match=r"24 x 48 px are too small .* pool2=False; it needs at least 25 px"
    ):
        MotionCNN(3, input_size=(24, 48), pool2=False)


@pytest.mark.parametrize("options", REDUCED)
def test_reduced_forms_run_and_embed_at_their_width(options):
    net = MotionCNN(6, 5, **options).eval()
    stacks = torch.randn(3, 10, *options["input_size"])
    embeddings = net.embed(stacks)
    assert embeddings.shape == (3, net.embedding_dim)
    assert net.embedding_dim == options.get("full7", 512)
    assert (embeddings >= 0).all()  # after ReLU
    torch.testing.assert_close(net(stacks), net.classifier(embeddings))  # no dropout in evaluation


def test_dropout_acts_after_full6_and_full7_only_in_training():
    net = MotionCNN(4, 2, (32, 32), 0.25, pool2=False, dropout=1.0)
    stacks = torch.randn(2, 4, 32, 32)
    net.conv1[1].eval()
    bias_only = torch.relu(net.full7.bias).expand(2, -1)
    torch.testing.assert_close(net.embed(stacks), bias_only)  # full6 all dropped
    torch.testing.assert_close(net(stacks), net.classifier.bias.expand(2, -1))
    net.eval()
    assert net.embed(stacks).any()


def test_width_scales_every_layer():
    with torch.device("meta"):
        net = MotionCNN(7, width=0.5)
    widths = [m.weight.shape[0] for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert widths == [48, 128, 256, 256, 256, 2048, 1024, 7]


def test_one_stack_does_not_depend_on_its_batch_mates():
    torch.manual_seed(0)
    net = MotionCNN(6, 5, **REDUCED[0]).eval()
    stacks = torch.randn(8, 10, 32, 32)
    torch.testing.assert_close(net(stacks)[3:4], net(stacks[3:4]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", REDUCED)
def test_the_untrained_network_neither_stalls_nor_explodes(options):
    torch.manual_seed(0)
    n_classes = 16
    net = MotionCNN(n_classes, 10, **options)
    stacks = torch.randn(16, 20, *options["input_size"])
    loss = nn.functional.cross_entropy(net(stacks), torch.arange(n_classes))
    assert loss.item() == pytest.approx(math.log(n_classes), rel=0.1)
    loss.backward()
    for name in ("conv1.0", "conv2.0", "conv3.0", "conv4.0", "conv5.0", "full6", "full7"):
        weight = net.get_parameter(f"{name}.weight")
        assert 1e-5 < (weight.grad.norm() / weight.norm()).item() < 1, name


def test_the_direction_of_a_pan_is_learned_from_scratch_in_a_few_steps():
    torch.manual_seed(0)
    net = MotionCNN(4, 3, (32, 32), 0.125, pool2=False, full6=64, full7=32)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    directions = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(4, (n,))
        pan = directions[labels].repeat(1, 3)[:, :, None, None]  # (n, 2L, 1, 1)
        return pan + torch.randn(n, 6, 32, 32), labels

    for _ in range(120):
        stacks, labels = draw(16)
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(stacks), labels).backward()
        optimiser.step()
    net.eval()
    stacks, labels = draw(64)
    assert (net(stacks).argmax(1) == labels).float().mean() > 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: MotionCNN(4, 2, (32, 32), 0.25, pool2=False)(torch.zeros(1, 6, 32, 32)),
            r"\(6, 32, 32\).*\(4, 32, 32\)",
        ),
        (
            lambda: MotionCNN(4, 2, (32, 32), 0.25, pool2=False).embed(torch.zeros(1, 4, 32, 40)),
            r"\(4, 32, 40\)",
        ),
        (lambda: MotionCNN(4, width=0.001), r"width 0.001 leaves 0 of 96 channels"),
    ],
)
def test_wrong_shapes_and_widths_are_refused_with_their_values(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_unknown_normalisation_is_refused():
    from inspect import unwrap

    with pytest.raises((ValueError, TypeError), match="batch_norm"):
        unwrap(MotionCNN)(4, batch_norm="lrn")


def test_an_argument_that_no_form_has_is_refused():
    with pytest.raises(TypeError, match="no argument 'full8'"):
        MotionCNN(3, full8=4)
