"""CNNs for log-mel examples: VGGish, YAMNet, or a small one that learns from less data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from tristream.errors import TristreamError
from tristream.streams.audio import yamnet
from tristream.streams.audio.logmel import N_MELS
from tristream.streams.audio.vggish import Postprocess, VGGish
from tristream.streams.audio.yamnet import YAMNet
from tristream.streams.small_cnn import SegmentClassifier, SmallCNN


@dataclass(frozen=True)
class VGGishShape:
    """Shape of VGGish and of its embedding.

    Attributes:
        width: scales its layers.
        relu: the embedding ends in a ReLU.
        postprocess: the embedding becomes AudioSet's 8-bit code.
        postprocess_weights: safetensors file of its PCA; None: an identity, to be replaced by a
            checkpoint's.
        rounded: codes are rounded, not truncated.
    """

    width: float = 1.0
    relu: bool = True
    postprocess: bool = False
    postprocess_weights: Path | None = None
    rounded: bool = False


@dataclass(frozen=True)
class SmallShape:
    """Shape of the small CNN.

    Attributes:
        widths: channels of its blocks.
        embedding_dim: width of its embedding; None: mean over time and bands.
    """

    widths: Sequence[int] = (16, 32, 64, 64)
    embedding_dim: int | None = None


def build_encoder(
    name: str,
    n_classes: int,
    *,
    weights: Path | None = None,
    n_frames: int = 96,
    vggish: VGGishShape = VGGishShape(),
    small: SmallShape = SmallShape(),
    dropout: float = 0.0,
) -> SegmentClassifier:
    """Return the CNN called `name` with a softmax layer for training.

    Args:
        name: "small", "vggish" or "yamnet".
        n_classes: of the softmax layer.
        weights: safetensors file: torchvggish's parameters, or the constants of YAMNet's TFLite
            file; None: random.
        n_frames: rows of 10 ms per example.
        vggish: shape of "vggish".
        small: shape of "small".
        dropout: before the softmax layer.

    Raises:
        TristreamError: a file that does not fit the CNN, or weights for "small".
    """
    network: nn.Module
    if name == "vggish":
        network = VGGish(n_frames=n_frames, width=vggish.width, relu=vggish.relu)
        if weights is not None:
            load_torchvggish(network, weights)
        if vggish.postprocess:
            network = Postprocess(network, rounded=vggish.rounded)
            if vggish.postprocess_weights is not None:
                load_pca(network, vggish.postprocess_weights)
    elif name == "yamnet":
        network = YAMNet(with_classes=False)
        if weights is not None:
            load_yamnet(network, weights)
    elif weights is not None:
        raise TristreamError(
            f"encoder 'small' is trained from scratch and takes no weights, not {weights}"
        )
    else:
        network = _OneChannel(
            SmallCNN(
                1,
                small.widths,
                input_size=(n_frames, N_MELS),
                embedding_dim=small.embedding_dim,
                dropout=dropout,
            )
        )
    return SegmentClassifier(network, int(network.embedding_dim), n_classes, dropout=dropout)  # type: ignore[arg-type]


def load_torchvggish(network: VGGish, path: Path) -> None:
    """Load torchvggish's parameters; PCA in the same file (`pproc.…`) is ignored.

    Raises:
        TristreamError: the file's tensors are not VGGish's; the first that differ are named.
    """
    state = {key: tensor for key, tensor in _read(path).items() if not key.startswith("pproc.")}
    own = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    stored = {key: tuple(tensor.shape) for key, tensor in state.items()}
    wrong = sorted(key for key in own.keys() | stored.keys() if own.get(key) != stored.get(key))
    if wrong:
        raise TristreamError(
            f"{path} is not a file of torchvggish's parameters for examples of {network.example_shape[0]} rows: "
            f"{len(wrong)} tensors differ (first: {wrong[0]} is {stored.get(wrong[0], 'missing')}, "
            f"it must be {own.get(wrong[0], 'absent')})"
        )
    network.load_state_dict(_tensors(state))


def load_pca(network: Postprocess, path: Path) -> None:
    """Load `pca_eigen_vectors` (128, 128) and `pca_means` (128,) or (128, 1).

    Raises:
        TristreamError: the file does not hold them.
    """
    arrays = _read(path)
    try:
        matrix, means = arrays["pca_eigen_vectors"], arrays["pca_means"].reshape(-1)
    except KeyError as error:
        raise TristreamError(
            f"{path} holds no {error}; VGGish's PCA has pca_eigen_vectors and pca_means"
        ) from None
    network.load_state_dict(_tensors({"pca_matrix": matrix, "pca_means": means}), strict=False)


def load_yamnet(network: YAMNet, path: Path) -> None:
    """Load the de-quantised constants of YAMNet's TFLite file.

    Raises:
        TristreamError: the file does not hold them.
    """
    try:
        state = yamnet.state_from_tflite(_read(path))
    except ValueError as error:
        raise TristreamError(f"{path}: {error}") from error
    network.load_state_dict(
        {key: tensor for key, tensor in state.items() if key in network.state_dict()}
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise TristreamError(f"{path} cannot be read as safetensors weights ({error})") from error


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {
        key: torch.from_numpy(np.ascontiguousarray(array, np.float32))
        for key, array in arrays.items()
    }


class _OneChannel(nn.Module):
    """Image CNN on examples, which get a channel axis."""

    def __init__(self, network: SmallCNN) -> None:
        super().__init__()
        self.network = network
        self.embedding_dim = network.embedding_dim

    def forward(self, examples: Float[torch.Tensor, "B n_frames 64"]) -> Float[torch.Tensor, "B D"]:
        return self.network(examples[:, None])
