"""VGGish: a log-mel example of 0.96 s → a 128-D segment embedding, and its PCA and 8-bit postprocessing.

Source: Hershey et al. 2017 (arXiv:1609.09430) as released in tensorflow/models `research/audioset/vggish`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from tristream.errors import TristreamError
from tristream.streams.audio.logmel import EXAMPLE_FRAMES, N_MELS

EMBEDDING_DIM = 128
_POOLS = 4  # each halves time and bands
_QUANTISED_BOUND = 2.0


class VGGish(nn.Module):
    """Six 3 × 3 convolutions in four blocks, two hidden layers, 128-D; 72,141,184 parameters at the defaults.

    The last maps are flattened as TensorFlow does, time first, then band, then channel. The names of the parameters are
    those of the PyTorch port torchvggish, so that its state dict fits.

    Args:
        n_frames: rows of 10 ms per example, a multiple of 16.
        width: scales the channels of the convolutions and of the hidden layers; the embedding stays 128-D.
        relu: the embedding ends in a ReLU, as in the paper's year; released code later left it to the user.

    Raises:
        TristreamError: `n_frames` is not a multiple of 16, a width that rounds to no channel.
    """

    def __init__(
        self, *, n_frames: int = EXAMPLE_FRAMES, width: float = 1.0, relu: bool = True
    ) -> None:
        super().__init__()
        if n_frames < 1 or n_frames % 2**_POOLS:
            raise TristreamError(
                f"VGGish examples of {n_frames} rows; n_frames must be a multiple of {2**_POOLS}"
            )
        if round(64 * width) < 1:
            raise TristreamError(
                f"width {width} leaves none of VGGish's 64 first channels; it must leave at least 1"
            )
        self.embedding_dim = EMBEDDING_DIM
        self.example_shape = (n_frames, N_MELS)
        layers: list[nn.Module] = []
        n_channels = 1
        for block in ((64,), (128,), (256, 256), (512, 512)):
            for full_width in block:
                n_outputs = round(full_width * width)
                layers += [nn.Conv2d(n_channels, n_outputs, 3, padding=1), nn.ReLU(inplace=True)]
                n_channels = n_outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        n_flat = n_channels * (n_frames // 2**_POOLS) * (N_MELS // 2**_POOLS)
        n_hidden = round(4096 * width)
        self.embeddings = nn.Sequential(
            nn.Linear(n_flat, n_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(n_hidden, n_hidden),
            nn.ReLU(inplace=True),
            nn.Linear(n_hidden, EMBEDDING_DIM),
            nn.ReLU(inplace=True) if relu else nn.Identity(),
        )
        self._initialise()

    def forward(self, examples: Float[Tensor, "B T M"]) -> Float[Tensor, "B D"]:
        """Return segment embeddings of log-mel examples.

        Raises:
            TristreamError: examples of another shape than the network was built for.
        """
        if examples.shape[1:] != self.example_shape:
            raise TristreamError(
                f"log-mel examples are {tuple(examples.shape[1:])} (rows, bands); "
                f"this VGGish was built for {self.example_shape}"
            )
        maps = self.features(examples[:, None])  # (B, C, T / 16, 4)
        return self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))

    def _initialise(self) -> None:
        """Initialise as He et al. 2015 (arXiv:1502.01852): the signal does not vanish in an untrained network."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]


class Postprocess(nn.Module):
    """VGGish with AudioSet's codes as embeddings, as their values in [−2, 2]: 4 code / 255 − 2.

    Args:
        network: examples → (B, 128).
        rounded: see `postprocess`.
    """

    pca_matrix: Tensor
    pca_means: Tensor

    def __init__(self, network: nn.Module, *, rounded: bool = False) -> None:
        super().__init__()
        self.network = network
        self.rounded = rounded
        self.embedding_dim = EMBEDDING_DIM
        self.register_buffer(
            "pca_matrix", torch.eye(EMBEDDING_DIM)
        )  # in every checkpoint, as the weights are
        self.register_buffer("pca_means", torch.zeros(EMBEDDING_DIM))

    def forward(self, examples: Float[Tensor, "B T M"]) -> Float[Tensor, "B D"]:
        embedding = self.network(examples)
        # in float64, or sums in another order would put values at the border of two codes into the other
        whitened = (embedding.double() - self.pca_means.double()) @ self.pca_matrix.double().T
        clipped = whitened.clamp(-_QUANTISED_BOUND, _QUANTISED_BOUND)
        codes = (clipped + _QUANTISED_BOUND) * (255 / (2 * _QUANTISED_BOUND))
        codes = codes.round() if self.rounded else codes.floor()
        return (codes * (2 * _QUANTISED_BOUND / 255) - _QUANTISED_BOUND).to(embedding)


def postprocess(
    embedding: Float[np.ndarray, "*N D"],
    pca_matrix: Float[np.ndarray, "D D"],
    pca_means: Float[np.ndarray, "..."],
    *,
    rounded: bool = False,
) -> UInt8[np.ndarray, "*N D"]:
    """AudioSet's codes: whitened by PCA, clipped to ± 2, 8 bits; truncated as TensorFlow does.

    Args:
        embedding: one or more 128-D embeddings.
        pca_matrix: eigenvectors as rows, `pca_eigen_vectors` of VGGish's file.
        pca_means: (128,) or (128, 1), `pca_means` of the same file.
        rounded: to the nearest code, as torchvggish does.
    """
    whitened = (embedding - pca_means.reshape(-1)) @ pca_matrix.T
    clipped = np.clip(whitened, -_QUANTISED_BOUND, _QUANTISED_BOUND)
    codes = (clipped + _QUANTISED_BOUND) * (255 / (2 * _QUANTISED_BOUND))
    return (np.rint(codes) if rounded else codes).astype(np.uint8)
