"""Image CNN of timm as an encoder of flow stacks, initialised across modalities.

Source: Wang et al. 2016 (TSN, arXiv:1608.00859) §3.2. The first convolution's weights are averaged over red, green and
blue and repeated over the 2L channels; batch norm but the first keeps the statistics it came with and does not learn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from tristream.errors import TristreamError
from tristream.streams import image_network
from tristream.streams.small_cnn import SegmentClassifier

FULL_RANGE_PX = 20.0  # such a displacement is to the network what full black or white is (TSN, I3D: 8-bit flow of ± 20)


class FlowStackCNN(nn.Module):
    """Flow stacks in px → segment embeddings.

    Args:
        network: of timm, for `n_channels` channels.
        std: of its training images, mean over colours, of [0, 1].
        partial_batch_norm: only the first batch norm learns and follows the data.
    """

    def __init__(self, network: nn.Module, std: float, *, partial_batch_norm: bool) -> None:
        super().__init__()
        self.network = network
        self.scale = 0.5 / std / FULL_RANGE_PX
        norms = [
            module
            for module in network.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        self._frozen = norms[1:] if partial_batch_norm else []
        for norm in self._frozen:
            norm.requires_grad_(False)

    def forward(self, stacks: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return self.network(stacks * self.scale)

    def train(self, mode: bool = True) -> FlowStackCNN:
        super().train(mode)
        for norm in self._frozen:
            norm.eval()
        return self


def build_cross_modality(
    name: str,
    n_classes: int,
    *,
    n_channels: int,
    input_size: tuple[int, int] | None = None,
    weights: Path | None = None,
    partial_batch_norm: bool = True,
    dropout: float = 0.0,
) -> SegmentClassifier:
    """Return the CNN of timm called `name` for stacks of `n_channels`, with a softmax layer for training.

    Args:
        n_channels: 2L.
        input_size: height and width of the stacks, px; None: the network's own.
        weights: safetensors file of the image network in timm's layout; None: random weights, adapted in the same way.
        partial_batch_norm: see `FlowStackCNN`.
        dropout: before the softmax layer.

    Raises:
        TristreamError: timm has no such CNN, it cannot take stacks of this size, its first layer is no single
            convolution, or the file does not fit.
    """
    network, width = image_network.build(
        name,
        weights=weights,
        input_size=input_size,
        unknown=f"unknown temporal encoder '{name}'; available: motion_cnn",
    )
    usual: Any = network.pretrained_cfg
    adapt_first_convolution(network, usual["first_conv"], n_channels, name)
    mean_std = sum(usual["std"]) / len(usual["std"])
    encoder = FlowStackCNN(network, mean_std, partial_batch_norm=partial_batch_norm)
    return SegmentClassifier(encoder, width, n_classes, dropout=dropout)


def adapt_first_convolution(network: nn.Module, place: object, n_channels: int, name: str) -> None:
    """Replace the first convolution of an image network, of 3 channels, by one of `n_channels`.

    Its response to equal planes is the image network's response to a grey image of them: TSN's mean, repeated, times
    3 / n_channels.

    Args:
        place: name of the first convolution, as timm says it.
    """
    own = network.get_submodule(place) if isinstance(place, str) else None
    if not isinstance(own, nn.Conv2d) or own.in_channels != 3 or own.groups != 1:
        raise TristreamError(
            f"temporal encoder '{name}' does not begin with one convolution of three channels ({place})"
        )
    own.weight = nn.Parameter(across_modalities(own.weight.detach(), n_channels))
    own.in_channels = n_channels


def across_modalities(
    weight: Float[Tensor, "out 3 height width"], n_channels: int
) -> Float[Tensor, "out n_channels height width"]:
    """Return weights for `n_channels` equal channels that sum to those for red, green and blue."""
    mean = weight.mean(dim=1, keepdim=True)
    return (mean * (weight.shape[1] / n_channels)).repeat(1, n_channels, 1, 1)
