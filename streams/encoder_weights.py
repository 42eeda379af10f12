"""Pretrained weights into a network of a library, in that library's own layout."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tristream.errors import TristreamError


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Loads a safetensors file in the network's own layout; the classifier in it, if any, is left out.

    Raises:
        TristreamError: no such file, or its tensors are not those of the network; the first that differ are named.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise TristreamError(
            f"{path} cannot be read as safetensors weights of '{name}' ({error})"
        ) from error
    own = network.state_dict()
    missing = sorted(own.keys() - state.keys())
    misshapen = sorted(
        key for key in own.keys() & state.keys() if own[key].shape != state[key].shape
    )
    if missing or misshapen:
        first = (missing or misshapen)[0]
        raise TristreamError(
            f"{path} does not fit '{name}': {len(missing)} tensors are missing and {len(misshapen)} have another shape "
            f"(first: {first})"
        )
    network.load_state_dict({key: state[key] for key in own})
