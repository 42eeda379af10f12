"""CNNs for single frames: any 2-D CNN of timm, or a small one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import nn

from tristream.errors import TristreamError
from tristream.streams import image_network
from tristream.streams.encoder_weights import load_weights
from tristream.streams.small_cnn import SegmentClassifier, SmallCNN

TORCHVISION = ("mobilenet_v2",)
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Normalised(nn.Module):
    """Network with its normalisation: uint8 frames become (x / 255 − mean) / std, channels first.

    Frozen parts of the network (`freeze_below`) stay in eval mode during training: their batch norm keeps its
    statistics.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, frames: UInt8[torch.Tensor, "B H W 3"]) -> Float[torch.Tensor, "B D"]:
        scaled = frames.permute(0, 3, 1, 2).float() / 255
        return self.network((scaled - self.mean) / self.std)

    def train(self, mode: bool = True) -> Normalised:
        super().train(mode)
        if mode:
            _train_what_learns(self.network, True)
        return self


def _train_what_learns(module: nn.Module, parent_learns: bool) -> None:
    """Set training mode where a parameter learns; a part without parameters (dropout) follows its parent."""
    parameters = list(module.parameters())
    module.training = any(p.requires_grad for p in parameters) if parameters else parent_learns
    for child in module.children():
        _train_what_learns(child, module.training)


def build_encoder(
    name: str,
    n_classes: int,
    *,
    weights: Path | None = None,
    widths: Sequence[int] = (16, 32, 64, 64),
    embedding_dim: int | None = None,
    input_size: tuple[int, int] = (96, 96),
    dropout: float = 0.0,
    trainable_blocks: int | None = None,
) -> SegmentClassifier:
    """Return the CNN called `name` with a softmax layer for training.

    Args:
        name: "small", "mobilenet_v2" (torchvision's), or a name of timm.
        n_classes: of the softmax layer.
        weights: safetensors file in the layout of timm or torchvision; None: random weights.
        widths: channels of the blocks of "small".
        embedding_dim: of "small"; None: mean over space.
        input_size: height and width of the frames.
        dropout: before the softmax layer.
        trainable_blocks: number of last blocks that learn; None: all.

    Raises:
        TristreamError: timm has no such CNN, the file does not fit it, it cannot take frames of
            this size, or it has fewer blocks.
    """
    if name == "small":
        if weights is not None:
            raise TristreamError(
                f"encoder 'small' is trained from scratch and takes no weights, not {weights}"
            )
        if trainable_blocks is not None:
            raise TristreamError(
                f"encoder 'small' is trained from scratch, whole, not its last {trainable_blocks} blocks"
            )
        small = SmallCNN(
            3, widths, input_size=input_size, embedding_dim=embedding_dim, dropout=dropout
        )
        return SegmentClassifier(
            Normalised(small, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            small.embedding_dim,
            n_classes,
            dropout=dropout,
        )
    if name in TORCHVISION:
        network, width, usual = _of_torchvision()
        if weights is not None:
            load_weights(network, weights, name)
    else:
        network, width = image_network.build(
            name,
            weights=weights,
            input_size=input_size,
            unknown=f"unknown spatial encoder '{name}'; available: small, {', '.join(TORCHVISION)}",
        )
        usual = network.pretrained_cfg
    if trainable_blocks is not None:
        freeze_below(network, trainable_blocks, name)
    return SegmentClassifier(
        Normalised(network, usual["mean"], usual["std"]), width, n_classes, dropout=dropout
    )


def _of_torchvision() -> tuple[nn.Module, int, Any]:
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(weights=None)
    network.classifier = nn.Identity()
    return network, network.last_channel, _IMAGENET


def pool_by_max(encoder: SegmentClassifier, name: str) -> None:
    """Let the encoder take the maximum of its last map in place of its own pooling.

    Raises:
        TristreamError: a network that has no such map, or whose pooling is fixed.
    """
    normalised = encoder.encoder
    assert isinstance(normalised, Normalised)
    network = normalised.network
    if isinstance(network, SmallCNN) and network.full is None:
        network.pools_by_max = True
    elif hasattr(network, "reset_classifier"):
        try:
            network.reset_classifier(0, global_pool="max")  # type: ignore[operator]
        except image_network.FAILURES as error:
            raise TristreamError(
                f"encoder '{name}' cannot pool by max ({error}); set pool = avg"
            ) from error
    else:
        raise TristreamError(
            f"encoder '{name}' has a fixed pooling; set pool = avg, or take a CNN of timm"
        )


def freeze_below(network: nn.Module, n_blocks: int, name: str) -> None:
    """Let only the last `n_blocks` blocks learn: timm's coarse groups of layers, or torchvision's `features`.

    Raises:
        TristreamError: the network has fewer blocks.
    """
    blocks = _blocks(network)
    if not 1 <= n_blocks < len(blocks):
        raise TristreamError(
            f"trainable_blocks = {n_blocks}: '{name}' has {len(blocks)} blocks; 1 … {len(blocks) - 1} can learn alone, "
            'none lets all, and mode = "frozen" lets no block learn'
        )
    learning = {parameter for block in blocks[-n_blocks:] for parameter in block}
    for key, parameter in network.named_parameters():
        parameter.requires_grad_(key in learning)


def _blocks(network: nn.Module) -> list[list[str]]:
    """Return the names of the parameters of each block, from the input up."""
    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        features = network.get_submodule("features")
        assert isinstance(features, nn.Sequential)
        return [
            [f"features.{i}.{key}" for key, _ in block.named_parameters()]
            for i, block in enumerate(features)
        ]
    from timm.models import group_parameters

    groups = group_parameters(network, matcher(coarse=True))
    return [groups[key] for key in sorted(groups)]
