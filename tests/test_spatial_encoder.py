"""Pretrained CNNs of the spatial stream: network, preprocessing and weights of their publishers."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2

from tristream.store import weights
from tristream.streams import image_network
from tristream.streams.config import SamplerConfig, identity_of
from tristream.streams.spatial.encoder import Normalised, build_encoder
from tristream.streams.spatial.preprocessing import own_preprocessing
from tristream.streams.spatial.stream import STREAM, SpatialConfig

TIMM = "test_resnet"


def lively(network, seed=0):
    """Set random weights and batch norm statistics that preserve the signal in a deep network."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.7, 1.1, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return network.eval()


def features_of_timm_and_ours(name, size, tmp_path, *, state_name=None):
    """Return features of the same frames from timm's model and from our encoder with its weights."""
    theirs = lively(timm.create_model(name, pretrained=False, num_classes=1000))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    path = weights.add(
        tmp_path / "model.safetensors", name, where=weights.Places(None, tmp_path / "cache")
    )
    ours = build_encoder(name, 7, weights=path).eval()
    pictures = torch.randint(
        0, 256, (2, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    usual = theirs.pretrained_cfg
    mean, std = (torch.tensor(usual[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        scaled = (pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std
        wanted = theirs.forward_head(theirs.forward_features(scaled), pre_logits=True)
        return wanted, ours.embed(pictures)


def assert_equal_to_1e_5(found, wanted):
    assert wanted.std() > 1e-3, "a dead network would prove nothing"
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [(TIMM, (96, 128), 512), ("mobilenetv2_100", (96, 96), 1280), ("resnet18", (64, 64), 512)],
)
def test_features_equal_timms_own_forward_to_1e_5(tmp_path, name, size, width):
    wanted, found = features_of_timm_and_ours(name, size, tmp_path)
    assert found.shape[1] == width or name == TIMM
    assert_equal_to_1e_5(found, wanted)


@pytest.mark.slow
def test_features_of_inception_resnet_v2_equal_timms_own_forward_to_1e_5(tmp_path):
    wanted, found = features_of_timm_and_ours("inception_resnet_v2", (299, 299), tmp_path)
    assert found.shape == (2, 1536)
    assert_equal_to_1e_5(found, wanted)
    encoder = build_encoder("inception_resnet_v2", 101)
    assert sum(p.numel() for p in encoder.encoder.network.parameters()) == 54_306_464
    assert (
        encoder.encoder.mean.flatten().tolist()
        == encoder.encoder.std.flatten().tolist()
        == [0.5, 0.5, 0.5]
    )


def test_mobilenet_v2_equals_torchvisions_own_forward(tmp_path):
    theirs = lively(mobilenet_v2(weights=None))
    save_file(theirs.state_dict(), tmp_path / "mobilenet_v2.safetensors")
    ours = build_encoder("mobilenet_v2", 7, weights=tmp_path / "mobilenet_v2.safetensors").eval()
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        scaled = (
            torch.from_numpy(picture / 255).float() - torch.tensor([0.485, 0.456, 0.406])
        ) / torch.tensor([0.229, 0.224, 0.225])
        wanted = theirs.features(scaled.permute(2, 0, 1)[None]).mean((2, 3))
        found = ours.embed(torch.from_numpy(picture)[None])
    assert found.shape == (1, 1280)
    assert_equal_to_1e_5(found, wanted)


def pictures(n=3, height=120, width=160):
    noise = np.random.default_rng(0).integers(0, 256, (n, height // 8, width // 8, 3))
    return np.kron(noise, np.ones((1, 8, 8, 1))).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("inception_resnet_v2", (299, 299)),
        ("resnet18", (224, 224)),
        ("mobilenetv2_100", (96, 96)),
        ("resnet18", (96, 128)),
    ],
)
@pytest.mark.parametrize("shape", [(120, 160), (161, 97)])
def test_own_preprocessing_equals_timms_transform_to_float_rounding(name, size, shape):
    frames = pictures(height=shape[0] // 8 * 8, width=shape[1] // 8 * 8)
    usual = timm.get_pretrained_cfg(name).to_dict()
    theirs = create_transform(
        **resolve_data_config({"input_size": (3, *size)}, pretrained_cfg=usual), is_training=False
    )
    found = own_preprocessing(name, frames, size)
    assert found.shape == (3, *size, 3)
    normalised = Normalised(torch.nn.Flatten(), usual["mean"], usual["std"])
    for picture, frame in zip(normalised(torch.from_numpy(found)), frames, strict=True):
        wanted = theirs(Image.fromarray(frame)).flatten()
        torch.testing.assert_close(picture, wanted, rtol=0, atol=2e-6)


def test_own_preprocessing_of_mobilenet_v2_equals_torchvisions_to_float_rounding():
    theirs = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    found = own_preprocessing("mobilenet_v2", pictures(), (224, 224))
    mean, std = (
        torch.tensor(value).view(3, 1, 1)
        for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    for ours, frame in zip(found, pictures(), strict=True):
        scaled = (torch.from_numpy(ours).permute(2, 0, 1).float() / 255 - mean) / std
        torch.testing.assert_close(scaled, theirs(Image.fromarray(frame)), rtol=0, atol=2e-6)


def test_the_stream_prepares_frames_as_configured():
    frames = pictures()
    own = SpatialConfig(encoder="resnet18", preprocess="own", input_size=(64, 64))
    from tristream.streams.spatial.stream import _prepared

    assert np.array_equal(_prepared(frames, own), own_preprocessing("resnet18", frames, (64, 64)))
    squashed = _prepared(frames, own.model_copy(update={"preprocess": "squash"}))
    assert squashed.shape == (3, 64, 64, 3)
    assert not np.array_equal(squashed, _prepared(frames, own))
    assert STREAM.Config().preprocess == "squash"


def test_a_network_of_ours_has_no_preprocessing_of_its_own():
    with pytest.raises(
        ValueError,
        match=r"encoder 'small' has no preprocessing of its own; set preprocess = \"squash\"",
    ):
        own_preprocessing("small", pictures(), (64, 64))


def train_one_step(encoder):
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.train()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1, weight_decay=0.1)
    batch = torch.randint(
        0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    torch.nn.functional.cross_entropy(encoder(batch), torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()
    return {
        key for key, value in encoder.state_dict().items() if not torch.equal(value, before[key])
    }


def test_only_the_last_blocks_learn_and_the_rest_keeps_its_batch_norm_too():
    changed = train_one_step(build_encoder(TIMM, 2, trainable_blocks=2))
    parts = {key.removeprefix("encoder.network.").partition(".")[0] for key in changed}
    assert parts == {"layer3", "layer4", "classifier"}
    assert any("running_mean" in key for key in changed), "what learns has batch norm that learns"
    assert {"stem", "layer1"} & {
        k.partition(".")[0] for k in timm.create_model(TIMM, pretrained=False).state_dict()
    }
    everything = train_one_step(build_encoder(TIMM, 2))
    assert {key.removeprefix("encoder.network.").partition(".")[0] for key in everything} > parts


def test_the_part_that_is_frozen_gives_the_same_in_training_as_in_evaluation():
    encoder = build_encoder(TIMM, 2, trainable_blocks=1)
    frozen = torch.nn.Sequential(*list(encoder.encoder.network.children())[:-3])
    batch = torch.rand(4, 3, 64, 64)
    encoder.eval()
    with torch.inference_mode():
        wanted = frozen(batch)
        encoder.train()
        assert encoder.encoder.network.layer4.training
        assert torch.equal(frozen(batch), wanted)


def test_the_blocks_of_the_paper_are_the_top_of_inception_resnet_v2():
    network = build_encoder("inception_resnet_v2", 2, trainable_blocks=3).encoder.network
    learning = {
        key.partition(".")[0] + "." + key.split(".")[1]
        for key, p in network.named_parameters()
        if p.requires_grad
    }
    assert {key for key in learning if key.startswith("repeat")} == {"repeat_2.7", "repeat_2.8"}
    assert {key.partition(".")[0] for key in learning} == {"repeat_2", "block8", "conv2d_7b"}


@pytest.mark.parametrize(
    ("name", "n", "sentence"),
    [
        (TIMM, 9, r"trainable_blocks = 9: 'test_resnet' has 5 blocks; 1 … 4 can learn alone"),
        ("mobilenet_v2", 19, r"trainable_blocks = 19: 'mobilenet_v2' has 19 blocks; 1 … 18 can"),
        ("small", 1, r"encoder 'small' is trained from scratch, whole, not its last 1 blocks"),
    ],
)
def test_blocks_that_a_network_does_not_have_are_refused(name, n, sentence):
    with pytest.raises(ValueError, match=sentence):
        build_encoder(name, 2, trainable_blocks=n)


# Their `num_features` is 512, 960, 960, 960 and 1024: the width before the last layer.
WIDTHS = {
    "vgg16": 4096,
    "mobilenetv3_large_100": 1280,
    "mobilenetv4_conv_small": 1280,
    "ghostnet_100": 1280,
    "hgnetv2_b0": 2048,
    "resnet18": 512,
}


@pytest.mark.parametrize("name", WIDTHS)
def test_the_width_of_an_encoder_is_that_of_its_output(name):
    encoder = build_encoder(name, 3, input_size=(64, 64)).eval()
    frames = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    with torch.inference_mode():
        assert encoder.embed(frames).shape == (2, encoder.embedding_dim) == (2, WIDTHS[name])
        assert encoder(frames).shape == (2, 3)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("input_size", [(96, 96), (64, 128)])
def test_a_transformer_takes_frames_of_the_size_that_is_asked_for(name, input_size):
    encoder = build_encoder(name, 3, input_size=input_size).eval()
    frames = torch.zeros(2, *input_size, 3, dtype=torch.uint8)
    with torch.inference_mode():
        assert encoder.embed(frames).shape == (2, encoder.embedding_dim)


def test_a_transformer_at_another_size_keeps_its_weights_and_interpolates_its_positions(tmp_path):
    own = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0)
    save_file(own.state_dict(), tmp_path / "vit.safetensors")
    encoder = build_encoder(
        "vit_tiny_patch16_224", 3, weights=tmp_path / "vit.safetensors", input_size=(96, 96)
    )
    state = encoder.encoder.network.state_dict()
    for key, weight in own.state_dict().items():
        if key == "pos_embed":
            assert state[key].shape == (1, 1 + 6 * 6, 192)
            assert state[key][0, 0].equal(weight[0, 0]), "the class token has no place"
        else:
            assert state[key].equal(weight), key


def test_a_size_that_a_network_cannot_take_is_refused_with_its_own():
    sentence = (
        r"encoder 'vgg16' cannot take inputs of 8 x 8 px \(.*set input_size to its own 224 x 224"
    )
    with pytest.raises(ValueError, match=sentence):
        build_encoder("vgg16", 3, input_size=(8, 8))


def test_finding_the_width_changes_neither_weights_nor_random_numbers():
    torch.manual_seed(0)
    plain = timm.create_model(TIMM, pretrained=False, num_classes=0)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    network, width = image_network.build(TIMM, weights=None, input_size=(32, 32), unknown="")
    assert torch.rand(1) == drawn
    assert width == plain.num_features
    assert network.training
    for key, weight in plain.state_dict().items():
        assert network.state_dict()[key].equal(weight), key


@pytest.mark.parametrize("name", ["small", TIMM, "test_convnext"])
def test_the_last_map_can_be_pooled_by_its_maximum(name):
    torch.manual_seed(0)
    config = SpatialConfig(encoder=name, input_size=(40, 56), pool="max")
    encoder = lively(STREAM(config, SamplerConfig()).build_encoder(3))
    frames = torch.randint(0, 256, (2, 40, 56, 3), dtype=torch.uint8)
    scaled = (frames.permute(0, 3, 1, 2).float() / 255 - encoder.encoder.mean) / encoder.encoder.std
    network = encoder.encoder.network
    with torch.no_grad():
        if name == "small":
            wanted = network.blocks(scaled).amax((2, 3))
        elif name == TIMM:
            wanted = network.forward_features(scaled).amax((2, 3))
        else:  # its norm follows the pooling
            wanted = network.head.norm(network.forward_features(scaled).amax((2, 3), keepdim=True))
            wanted = wanted.flatten(1)
        torch.testing.assert_close(encoder.embed(frames), wanted)
    assert wanted.shape == (2, encoder.embedding_dim)


def test_the_pooling_is_part_of_the_space_only_if_it_is_not_the_usual_one():
    plain = identity_of(SpatialConfig())
    assert "pool" not in plain
    assert identity_of(SpatialConfig(pool="max")) == {**plain, "pool": "max"}


@pytest.mark.parametrize(
    "settings", [{"encoder": "mobilenet_v2"}, {"encoder": "small", "embedding_dim": 8}]
)
def test_a_fixed_pooling_is_named(settings):
    config = SpatialConfig(pool="max", input_size=(64, 64), **settings)
    with pytest.raises(ValueError, match=rf"'{settings['encoder']}' has a fixed pooling; set pool"):
        STREAM(config, SamplerConfig()).build_encoder(3)
