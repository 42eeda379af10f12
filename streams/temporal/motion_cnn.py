"""Motion CNN of the paper: a stack of flow fields → a 2048-D segment embedding, or the logits of its class.

Source: Tkachenko 2018 §IV-C, which is CNN-M of Simonyan & Zisserman 2014 (arXiv:1406.2199) with batch normalisation in
place of local response normalisation. Padding, pooling mode, place of normalisation and dropout rates are not stated;
chosen here: CNN-M's own paddings (0 for conv1, else 1), pools that round up, convolution – normalisation – ReLU – pool,
dropout 0.5.
"""

from __future__ import annotations

import math
from typing import Literal, TypedDict, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tristream.errors import TristreamError
from tristream.streams.small_cnn import CeilMaxPool

_POOL = 3  # px, with stride 2, rounded up


class Reduced(TypedDict, total=False):
    """Differences of a reduced form from the paper's network.

    Attributes:
        pool2: False: the last maps of small inputs keep more than one pixel.
        full6, full7: widths of the fully connected layers; None is 4096 and 2048 times `width`.
    """

    pool2: bool
    full6: int | None
    full7: int | None


class MotionCNN(nn.Module):
    """conv1 … conv5, full6, full7 and a linear classifier, on flow stacks of 2·stack_length channels.

    147,331,077 parameters for 101 classes at the defaults; the reduced forms keep the shape and scale it down.

    Args:
        n_classes: number of logits.
        stack_length: flow fields per stack.
        input_size: height and width of the fields in px, at least 41 each way; without pool2 at least 25.
        width: scales the channels of every layer.
        dropout: after full6 and after full7.
        batch_norm: "conv1" is the paper's; "all" normalises after every convolution.
        reduced: pool2, full6, full7; the paper's by default.

    Raises:
        TristreamError: `input_size` is too small, a width rounds to no channel, an unknown `batch_norm`.
    """

    def __init__(
        self,
        n_classes: int,
        stack_length: int = 10,
        input_size: tuple[int, int] = (240, 320),
        width: float = 1.0,
        *,
        dropout: float = 0.5,
        batch_norm: Literal["conv1", "all"] = "conv1",
        **reduced: Unpack[Reduced],
    ) -> None:
        super().__init__()
        if unknown := reduced.keys() - Reduced.__annotations__.keys():
            raise TypeError(f"MotionCNN has no argument {sorted(unknown)[0]!r}")
        pool2 = reduced.get("pool2", True)
        full6, full7 = reduced.get("full6"), reduced.get("full7")
        if batch_norm not in ("conv1", "all"):
            raise TristreamError(f"batch_norm is {batch_norm!r}; it must be 'conv1' or 'all'")
        self.input_shape = (2 * stack_length, *input_size)
        maps_height, maps_width = (_last_map_side(side, pool2=pool2) for side in input_size)
        if min(maps_height, maps_width) < 1:
            smallest = next(side for side in range(100) if _last_map_side(side, pool2=pool2) >= 1)
            raise TristreamError(
                f"flow fields of {input_size[0]} x {input_size[1]} px are too small for the motion CNN with "
                f"pool2={pool2}; it needs at least {smallest} px each way"
                + ("" if not pool2 else " (25 without pool2)")
            )
        c1, c2, c3 = (_scaled(n, width) for n in (96, 256, 512))
        full6 = _scaled(4096, width) if full6 is None else full6
        full7 = _scaled(2048, width) if full7 is None else full7
        self.embedding_dim = full7

        def block(name: str, convolution: nn.Conv2d, *, pool: bool) -> nn.Sequential:
            layers: list[nn.Module] = [convolution]
            if name == "conv1" or batch_norm == "all":
                layers.append(nn.BatchNorm2d(convolution.out_channels))
            layers.append(nn.ReLU(inplace=True))
            if pool:
                layers.append(CeilMaxPool(_POOL))
            return nn.Sequential(*layers)

        self.conv1 = block("conv1", nn.Conv2d(2 * stack_length, c1, 7, stride=2), pool=True)
        self.conv2 = block("conv2", nn.Conv2d(c1, c2, 5, stride=2, padding=1), pool=pool2)
        self.conv3 = block("conv3", nn.Conv2d(c2, c3, 3, padding=1), pool=False)
        self.conv4 = block("conv4", nn.Conv2d(c3, c3, 3, padding=1), pool=False)
        self.conv5 = block("conv5", nn.Conv2d(c3, c3, 3, padding=1), pool=True)
        self.full6 = nn.Linear(c3 * maps_height * maps_width, full6)
        self.full7 = nn.Linear(full6, full7)
        self.classifier = nn.Linear(full7, n_classes)
        self.dropout = nn.Dropout(dropout)
        self._initialise()

    def embed(self, stacks: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        """Return segment embeddings: full7 after ReLU, before its dropout.

        Raises:
            TristreamError: stacks of another shape than the network was built for.
        """
        if stacks.shape[1:] != self.input_shape:
            raise TristreamError(
                f"flow stacks are {tuple(stacks.shape[1:])} (channels, height, width); "
                f"this network was built for {self.input_shape}"
            )
        maps = self.conv5(self.conv4(self.conv3(self.conv2(self.conv1(stacks)))))
        hidden = self.dropout(torch.relu(self.full6(maps.flatten(1))))
        return torch.relu(self.full7(hidden))

    def forward(self, stacks: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        return self.classifier(self.dropout(self.embed(stacks)))

    def _initialise(self) -> None:
        """Initialise as He et al. 2015 (arXiv:1502.01852) before a ReLU: eight layers keep the signal's size.

        The classifier starts small, so that the first loss is close to ln(n_classes) whatever the width.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.classifier.weight, std=0.1 / math.sqrt(self.embedding_dim))


def _scaled(n_channels: int, width: float) -> int:
    scaled = round(n_channels * width)
    if scaled < 1:
        raise TristreamError(
            f"width {width} leaves {scaled} of {n_channels} channels; it must leave at least 1"
        )
    return scaled


def _last_map_side(side: int, *, pool2: bool) -> int:
    """Return the height or width of conv5's pooled maps in px; below 1 if the input is too small."""
    side = (side - 7) // 2 + 1  # conv1
    side = _pooled_side(side)
    side = (side + 2 - 5) // 2 + 1  # conv2; conv3 to conv5 keep the size
    if pool2:
        side = _pooled_side(side)
    return _pooled_side(side)


def _pooled_side(side: int) -> int:
    return (side - _POOL + 1) // 2 + 1  # (side - 3) / 2 rounded up, + 1
