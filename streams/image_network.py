"""Image CNNs and transformers of timm for frames and flow stacks of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tristream.errors import TristreamError
from tristream.streams.encoder_weights import load_weights

FAILURES = (AssertionError, RuntimeError, TypeError, ValueError)  # of timm, for sizes it refuses


def build(
    name: str,
    *,
    weights: Path | None,
    input_size: tuple[int, int] | None,
    unknown: str,
) -> tuple[nn.Module, int]:
    """Return the network called `name`, without its classifier, and the width of its output.

    A network that is made for one size, as most transformers are, is changed to `input_size`; its
    position embeddings are interpolated. The width is that of one forward of zeros, because
    `num_features` of some networks is another layer's.

    Args:
        name: of timm.
        weights: safetensors file in timm's layout; None: random weights.
        input_size: height and width; None: the network's own.
        unknown: beginning of the message about an unknown name.

    Raises:
        TristreamError: timm has no such network, the file does not fit it, or it cannot take
            inputs of this size.
    """
    import timm

    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name}*")[:5]) or "see timm.list_models()"
        raise TristreamError(f"{unknown}, or a name of timm ({similar})")
    network = _create(name, weights)
    own = tuple(network.pretrained_cfg["input_size"][1:])  # type: ignore[index]
    size = input_size or own
    try:
        return network, output_width(network, size)
    except FAILURES:
        pass  # it is made for one size
    try:
        if hasattr(network, "set_input_size"):
            network.set_input_size(img_size=size)  # type: ignore[operator]
        else:
            network = _create(name, weights, img_size=size)
        return network, output_width(network, size)
    except FAILURES as error:
        if isinstance(error, TristreamError):
            raise
        raise TristreamError(
            f"encoder '{name}' cannot take inputs of {size[0]} x {size[1]} px ({error}); "
            f"set input_size to its own {own[0]} x {own[1]}"
        ) from error


def output_width(network: nn.Module, size: tuple[int, int]) -> int:
    """Return the width of the network's output for RGB inputs of this size; its state is kept."""
    was_training = network.training
    with torch.no_grad():
        width = network.eval()(torch.zeros(1, 3, *size)).shape[1]
    network.train(was_training)
    return width


def _create(name: str, weights: Path | None, **options: Any) -> nn.Module:
    import timm

    network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    if weights is not None:
        load_weights(network, weights, name)
    return network
