"""YAMNet in floating point against the TFLite runtime, and its layers against a plain reference."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from tristream.store import weights
from tristream.streams.audio.encoder import load_yamnet
from tristream.streams.audio.logmel import (
    SAMPLE_RATE,
    SHORTEST_EXAMPLE_SAMPLES,
    log_mel,
    mel_matrix,
)
from tristream.streams.audio.stream import STREAM, AudioConfig
from tristream.streams.audio.yamnet import LOG_OFFSET, YAMNet, state_from_tflite
from tristream.streams.config import SamplerConfig

SHARED = Path(__file__).parents[2] / "shared"
TFLITE = SHARED / "weights" / "yamnet.tflite"
SOUNDS = SHARED / "data" / "esc10"


def tone(amplitude: float = 0.5) -> np.ndarray:
    seconds = np.arange(SHORTEST_EXAMPLE_SAMPLES) / SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * 1000 * seconds)).astype(np.float32)


def examples(*sounds: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(
        np.stack([log_mel(samples, SAMPLE_RATE, log_offset=LOG_OFFSET) for samples in sounds])
    )


class Runtime:
    """The TFLite runtime on the released file."""

    def __init__(self) -> None:
        litert = pytest.importorskip("ai_edge_litert.interpreter")
        if not TFLITE.exists():
            pytest.skip(f"YAMNet's file is not at {TFLITE}")
        self.interpreter = litert.Interpreter(str(TFLITE))
        self.interpreter.allocate_tensors()

    def scores(self, samples: np.ndarray) -> np.ndarray:
        self.interpreter.set_tensor(0, samples)
        self.interpreter.invoke()
        return self.interpreter.get_tensor(120)[0]

    def constants(self) -> dict[str, np.ndarray]:
        found = {}
        for detail in self.interpreter.get_tensor_details():
            try:
                values = self.interpreter.get_tensor(detail["index"])
            except ValueError:  # not a constant
                continue
            scales, zeros = (
                detail["quantization_parameters"][key] for key in ("scales", "zero_points")
            )
            if len(scales):
                shape = [1] * values.ndim
                shape[detail["quantization_parameters"]["quantized_dimension"]] = -1
                values = (
                    (values.astype(float) - zeros.reshape(shape)) * scales.reshape(shape)
                ).astype(np.float32)
            found[detail["name"]] = values
        return found


@pytest.fixture(scope="module")
def runtime():
    return Runtime()


@pytest.fixture(scope="module")
def released(runtime):
    net = YAMNet().eval()
    net.load_state_dict(state_from_tflite(runtime.constants()))
    return net


@pytest.fixture(scope="module")
def class_names():
    with (TFLITE.with_name("yamnet_class_map.csv")).open(newline="") as file:
        return [row["display_name"] for row in csv.DictReader(file)]


def test_the_front_end_is_vggishs_with_another_offset(runtime):
    found = runtime.constants()
    np.testing.assert_allclose(found["mel_spectrogram"].T, mel_matrix(), atol=1e-7)
    assert set(found["add"].tolist()) == {np.float32(LOG_OFFSET)}
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    np.testing.assert_allclose(found["stft/hann_window/sub_2"], hann, atol=1e-6)


@torch.inference_mode()
def test_class_scores_of_real_sounds_are_those_of_the_tflite_runtime(runtime, released):
    if not SOUNDS.exists():
        pytest.skip(f"ESC-10 is not at {SOUNDS}")
    from tristream.media.decode import decode_video

    sounds = []
    for path in sorted(SOUNDS.glob("*/*.ogg"))[::3]:
        samples = decode_video(path, pictures=False).samples
        sounds += [samples[start : start + SHORTEST_EXAMPLE_SAMPLES] for start in (0, 30_000)]
    ours = released.scores(examples(*sounds)).numpy()
    theirs = np.stack([runtime.scores(samples) for samples in sounds])
    assert ours.shape == theirs.shape == (98, 521)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] >= 0.9985
    assert np.abs(ours - theirs).max() < 0.15
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.85


@torch.inference_mode()
def test_a_tone_is_a_beep_and_noise_is_noise(runtime, released, class_names):
    noise = np.random.default_rng(0).uniform(-1, 1, SHORTEST_EXAMPLE_SAMPLES).astype(np.float32)
    heard = released.scores(examples(tone(), noise)).numpy()
    assert runtime.scores(tone()).max() == pytest.approx(0.738, abs=1e-3)
    assert class_names[heard[0].argmax()] == "Beep, bleep"
    assert heard[0].max() == pytest.approx(0.738, abs=0.03)
    assert {class_names[i] for i in np.argsort(-heard[1])[:3]} == {"Static", "Noise", "White noise"}


@torch.inference_mode()
def test_the_stream_has_the_weights_that_are_called_yamnet_and_their_offset(
    runtime, released, tmp_path
):
    path = weights.get("yamnet", where=weights.places(TFLITE.parent, tmp_path))
    config = AudioConfig(encoder="yamnet", encoder_weights=path)
    encoder = STREAM(config, SamplerConfig()).build_encoder(3).eval()
    assert config.log_offset == LOG_OFFSET
    assert encoder.embedding_dim == 1024
    torch.testing.assert_close(
        encoder.embed(examples(tone())), released(examples(tone())), rtol=1e-5, atol=1e-6
    )


# ---- without the file


@torch.inference_mode()
def test_the_network_equals_its_layers_written_out():
    torch.manual_seed(0)
    net = YAMNet().eval()
    rows = torch.randn(2, 96, 64)
    maps = rows[:, None].double()
    for layer in net.layers:
        convolution = layer.convolution
        weight, bias, stride = (
            convolution.weight.double(),
            convolution.bias.double(),
            convolution.stride[0],
        )
        if weight.shape[2] == 3:
            # TensorFlow's "SAME": with stride 2 on an even side one row of zeros, after the last
            before = 0 if stride == 2 else 1
            maps = torch.nn.functional.pad(maps, (before, 1, before, 1))
        windows = maps.unfold(2, weight.shape[2], stride).unfold(
            3, weight.shape[3], stride
        )  # (B, C, T, M, i, j)
        if convolution.groups > 1:
            maps = torch.einsum("bctfij,cij->bctf", windows, weight[:, 0])
        else:
            maps = torch.einsum("bctfij,ocij->botf", windows, weight)
        maps = (maps + bias[:, None, None]).clamp(0, 6)
    torch.testing.assert_close(net(rows), maps.mean((2, 3)).float(), rtol=1e-4, atol=1e-6)
    assert maps.shape == (2, 1024, 3, 2)


def test_yamnet_has_its_number_of_parameters():
    with torch.device("meta"):
        net, without = YAMNet(), YAMNet(with_classes=False)
    assert sum(parameter.numel() for parameter in without.parameters()) == 3_195_456
    assert sum(parameter.numel() for parameter in net.parameters()) == 3_195_456 + 534_025


def as_tflite(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return the state dict with the names and axes of the released TFLite file."""
    constants = {"mel_spectrogram": np.zeros((64, 257), np.float32)}
    for key, tensor in state.items():
        part, kind = key.rsplit(".", 1)
        array = tensor.numpy()
        number = 29 if part == "classes" else int(part.split(".")[1]) + 1
        if number == 29:
            name = (
                "network/layer29/fc/biases"
                if kind == "bias"
                else "tower0/network/layer29/fc/MatMul"
            )
        elif kind == "bias":
            name = f"tower0/network/layer{number}/{'conv' if number % 2 else 'sepconv'}/BatchNorm/FusedBatchNormV3"
        elif number % 2:
            name, array = f"tower0/network/layer{number}/conv/Conv2D", array.transpose(0, 2, 3, 1)
        else:
            layer = f"tower0/network/layer{number}/sepconv"
            name = f"{layer}/BatchNorm/FusedBatchNormV3;{layer}/depthwise"
            array = array.transpose(1, 2, 3, 0)
        constants[name] = np.ascontiguousarray(array)
    return constants


def test_every_layer_is_matched_by_name_and_converted_to_torchs_axes():
    torch.manual_seed(0)
    state = YAMNet().state_dict()
    found = state_from_tflite(as_tflite(state))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.pop("tower0/network/layer3/conv/Conv2D"),
            r"layers\.2\.convolution\.weight is missing.*\(64, 32, 1",
        ),
        (
            lambda c: c.update({"network/layer29/fc/biases": np.zeros(520, np.float32)}),
            r"classes\.bias has shape \(520,\).*\(521,\)",
        ),
    ],
)
def test_a_file_that_is_not_yamnets_is_refused_with_the_first_missing_layer(
    change, message, tmp_path
):
    from safetensors.numpy import save_file

    constants = as_tflite(YAMNet().state_dict())
    change(constants)
    save_file(constants, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=rf"other\.safetensors: .*{message}"):
        load_yamnet(YAMNet(), tmp_path / "other.safetensors")
