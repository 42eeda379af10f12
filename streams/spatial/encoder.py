"""CNNs for single pictures: any 2-D CNN of timm, or a small one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import nn

from streams.small_cnn import SegmentClassifier, SmallCNN


class Normalised(nn.Module):
    """Takes uint8 pictures and gives the network what it was trained on: (x / 255 − mean) / std, channels first."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, pictures: UInt8[torch.Tensor, "B H W 3"]) -> Float[torch.Tensor, "B D"]:
        scaled = pictures.permute(0, 3, 1, 2).float() / 255
        return self.network((scaled - self.mean) / self.std)


def build_encoder(
    name: str,
    n_classes: int,
    *,
    weights: Path | None = None,
    widths: Sequence[int] = (16, 32, 64, 64),
    embedding_dim: int | None = None,
    input_size: tuple[int, int] = (96, 96),
    dropout: float = 0.0,
) -> SegmentClassifier:
    """The CNN called `name` with a softmax layer for training.

    Args:
        name: "small", or a name of timm.
        n_classes: of the softmax layer.
        weights: safetensors file in timm's layout; None: random weights.
        widths: channels of the blocks of "small".
        embedding_dim: of "small"; None: mean over space.
        input_size: height and width of the pictures.
        dropout: before the softmax layer.

    Raises:
        ValueError: timm has no such CNN, or the file does not fit it.
    """
    if name == "small":
        if weights is not None:
            raise ValueError(f"encoder 'small' is trained from scratch and takes no weights, not {weights}")
        small = SmallCNN(3, widths, input_size=input_size, embedding_dim=embedding_dim, dropout=dropout)
        return SegmentClassifier(
            Normalised(small, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), small.embedding_dim, n_classes, dropout=dropout
        )
    import timm

    if name not in timm.list_models():
        close = ", ".join(timm.list_models(f"*{name}*")[:5]) or "see timm.list_models()"
        raise ValueError(f"unknown spatial encoder '{name}'; available: small, or a name of timm ({close})")
    network = timm.create_model(name, pretrained=False, num_classes=0)
    if weights is not None:
        load_timm_weights(network, weights, name)
    usual: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    return SegmentClassifier(
        Normalised(network, usual["mean"], usual["std"]),
        int(network.num_features),  # type: ignore[arg-type]
        n_classes,
        dropout=dropout,
    )


def load_timm_weights(network: nn.Module, path: Path, name: str) -> None:
    """Loads a safetensors file in timm's layout; the classifier in it, if any, is left out.

    Raises:
        ValueError: no such file, or its tensors are not those of the network; the first that differ are named.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors weights of '{name}' ({error})") from error
    own = network.state_dict()
    missing = sorted(own.keys() - state.keys())
    misshapen = sorted(key for key in own.keys() & state.keys() if own[key].shape != state[key].shape)
    if missing or misshapen:
        first = (missing or misshapen)[0]
        raise ValueError(
            f"{path} does not fit '{name}': {len(missing)} tensors are missing and {len(misshapen)} have another shape "
            f"(first: {first})"
        )
    network.load_state_dict({key: state[key] for key in own})
