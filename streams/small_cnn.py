"""Small CNN that learns from a few hundred videos: encoder of the presets without downloads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import nn

from tristream.errors import TristreamError


class CeilMaxPool(nn.MaxPool2d):
    """Max pooling with stride 2 that keeps a single last row or column; for maps after a ReLU.

    Maps smaller than the kernel are padded with zeros, which changes nothing (they are not negative): torch pools them
    as they are, OpenVINO refuses them.
    """

    def __init__(self, kernel_size: int) -> None:
        super().__init__(kernel_size, stride=2, ceil_mode=True)
        self._side = kernel_size

    def forward(self, maps: Float[torch.Tensor, "B C H W"]) -> Float[torch.Tensor, "B C H2 W2"]:
        below, right = (max(0, self._side - side) for side in maps.shape[2:])
        return super().forward(
            nn.functional.pad(maps, (0, right, 0, below)) if below or right else maps
        )


class SmallCNN(nn.Module):
    """Blocks of 3 × 3 convolution, batch norm, ReLU and 2 × 2 max pool; then one embedding.

    Args:
        in_channels: of the input.
        widths: channels of each block.
        input_size: height and width; only needed with `embedding_dim`.
        embedding_dim: None: the mean over space of the last block, independent of position (frames). A number: a fully
            connected layer on all values, dependent on it (a spectrogram's rows are frequencies).
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (16, 32, 64, 64),
        *,
        input_size: tuple[int, int] | None = None,
        embedding_dim: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm2d(in_channels)]
        for width in widths:
            layers += [
                nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                CeilMaxPool(2),
            ]
            in_channels = width
        self.blocks = nn.Sequential(*layers)
        self.pools_by_max = False  # over space, without `embedding_dim`
        self.embedding_dim = embedding_dim or in_channels
        self.full: nn.Module | None = None
        if embedding_dim is not None:
            if input_size is None:
                raise TristreamError(
                    f"embedding_dim={embedding_dim} needs input_size, to know how wide its layer is"
                )
            height, width = (-(-side // 2 ** len(widths)) for side in input_size)
            self.full = nn.Sequential(
                nn.Dropout(dropout),
                nn.Linear(in_channels * height * width, embedding_dim),
                nn.ReLU(),
            )

    def forward(self, images: Float[torch.Tensor, "B C H W"]) -> Float[torch.Tensor, "B D"]:
        maps = self.blocks(images)
        if self.full is not None:
            return self.full(maps.flatten(1))
        return maps.amax((2, 3)) if self.pools_by_max else maps.mean((2, 3))


class SegmentClassifier(nn.Module):
    """An encoder and the softmax layer it is trained with.

    Args:
        encoder: (B, …) → (B, embedding_dim).
        embedding_dim: width of its output.
        n_classes: of the softmax layer.
        dropout: before the softmax layer.
    """

    def __init__(
        self, encoder: nn.Module, embedding_dim: int, n_classes: int, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedding_dim = embedding_dim
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(embedding_dim, n_classes))

    def embed(self, segments: torch.Tensor) -> Float[torch.Tensor, "B D"]:
        """Return segment embeddings."""
        return self.encoder(segments)

    def forward(self, segments: torch.Tensor) -> Float[torch.Tensor, "B n_classes"]:
        return self.classifier(self.embed(segments))
