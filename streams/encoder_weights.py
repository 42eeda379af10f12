"""Loading of pretrained weights into a network of a library, in that library's layout."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tristream.errors import TristreamError


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Load a safetensors file in the network's own layout; a classifier in it is ignored.

    Raises:
        TristreamError: no such file, or its tensors do not fit the network; the first that differs is named.
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
