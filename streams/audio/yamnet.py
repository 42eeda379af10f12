"""YAMNet: a log-mel example of 0.96 s → a 1024-D segment embedding, with AudioSet weights from its TFLite file.

Source: YAMNet as released in tensorflow/models `research/audioset/yamnet`: MobileNetV1 (Howard et al. 2017,
arXiv:1704.04861) on VGGish's log-mel, but with ln(mel + 0.001). In the TFLite file batch norm is part of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tristream.errors import TristreamError

LOG_OFFSET = 0.001
EMBEDDING_DIM = 1024
N_CLASSES = 521  # a subset of AudioSet's, listed in yamnet_class_map.csv
FIRST_CHANNELS = 32
BLOCKS = (  # channels and stride of the depthwise separable convolutions
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1),
    (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
_CLASSIFIER_LAYER = 29  # in the names of the TFLite file; 28 is the mean, 1–27 are convolutions
_LAYER = re.compile(r"\blayer(\d+)/")


class YAMNet(nn.Module):
    """27 convolutions, each with ReLU6, and the mean over time and bands; 3,195,456 parameters, and 534,025 of classes.

    The released weights were trained on examples of 96 rows; other lengths run too.

    Args:
        with_classes: have the layer of AudioSet's classes too, which `scores` needs.
    """

    def __init__(self, *, with_classes: bool = True) -> None:
        super().__init__()
        self.embedding_dim = EMBEDDING_DIM
        layers: list[nn.Module] = [_Convolution(1, FIRST_CHANNELS, stride=2)]
        n_channels = FIRST_CHANNELS
        for n_outputs, stride in BLOCKS:
            layers += [
                _Convolution(n_channels, n_channels, stride=stride, groups=n_channels),
                _Convolution(n_channels, n_outputs, size=1),
            ]
            n_channels = n_outputs
        self.layers = nn.Sequential(*layers)
        self.classes = nn.Linear(EMBEDDING_DIM, N_CLASSES) if with_classes else None

    def forward(self, examples: Float[Tensor, "B T M"]) -> Float[Tensor, "B D"]:
        """Return segment embeddings of log-mel examples (`log_mel` with YAMNet's offset)."""
        return self.layers(examples[:, None]).mean((2, 3))

    def scores(self, examples: Float[Tensor, "B T M"]) -> Float[Tensor, "B n_classes"]:
        """Return the released classifier's score of each of AudioSet's classes, in [0, 1]; several may be present."""
        assert self.classes is not None, "built without classes"
        return self.classes(self(examples)).sigmoid()


class _Convolution(nn.Module):
    """Convolution with TensorFlow's padding, then ReLU6."""

    def __init__(
        self, n_inputs: int, n_outputs: int, *, size: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(n_inputs, n_outputs, size, stride, groups=groups)

    def forward(self, maps: Float[Tensor, "B C T M"]) -> Float[Tensor, "B C2 T2 M2"]:
        [size, _], [stride, _] = self.convolution.kernel_size, self.convolution.stride
        padding: list[int] = []
        for side in (maps.shape[3], maps.shape[2]):  # innermost first
            missing = max(0, (-(-side // stride) - 1) * stride + size - side)
            padding += [missing // 2, missing - missing // 2]  # "SAME": what is odd comes last
        return nn.functional.relu6(self.convolution(nn.functional.pad(maps, padding)))


def state_from_tflite(constants: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Return a state dict of `YAMNet` from the de-quantised constants of its TFLite file, matched by name.

    Kernels are (out, height, width, in) in TFLite, depthwise ones (1, height, width, channels).

    Raises:
        TristreamError: a layer is missing, or has another shape; the message names it.
    """
    state: dict[str, Tensor] = {}
    for name, array in constants.items():
        name = name.split(";")[
            0
        ]  # TFLite joins the names of what it fused: the first is the array's own
        layer = _LAYER.search(name)
        if (
            layer is None
            or not np.issubdtype(array.dtype, np.floating)
            or array.ndim not in (1, 2, 4)
        ):
            continue
        if array.ndim == 4:
            array = array.transpose((3, 0, 1, 2) if "sepconv" in name else (0, 3, 1, 2))
        number = int(layer[1])
        part = "classes" if number == _CLASSIFIER_LAYER else f"layers.{number - 1}.convolution"
        key = f"{part}.{'bias' if array.ndim == 1 else 'weight'}"
        state[key] = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in YAMNet().state_dict().items()}
    for key, shape in expected.items():
        if key not in state or tuple(state[key].shape) != shape:
            what = f"has shape {tuple(state[key].shape)}" if key in state else "is missing"
            raise TristreamError(
                f"constants of YAMNet's TFLite file: {key} {what}; it must have shape {shape}"
            )
    return {key: state[key] for key in expected}
