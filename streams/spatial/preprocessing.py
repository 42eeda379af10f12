"""Publisher's preprocessing of a network: resize until the shorter side is a little larger, then crop the centre.

Frames stay uint8: the transforms are those of timm or torchvision, without scaling and normalisation, which are part
of the encoder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from tristream.errors import TristreamError
from tristream.streams.spatial.encoder import TORCHVISION


def own_preprocessing(
    encoder: str, frames: UInt8[np.ndarray, "T H W 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "T H2 W2 3"]:
    """Prepare frames for evaluation as the encoder's publisher does.

    Args:
        encoder: a name of timm, or one of torchvision's that `build_encoder` accepts.
        frames: of any size.
        size: height and width of the result; timm's cropped share of the frame (crop_pct) is kept.

    Raises:
        TristreamError: an encoder without preprocessing of its own.
    """
    from PIL import Image

    transform = _transform(encoder, size)
    return np.stack([transform(Image.fromarray(frame)) for frame in frames])


@functools.cache
def _transform(
    encoder: str, size: tuple[int, int]
) -> Callable[[object], UInt8[np.ndarray, "H2 W2 3"]]:
    if encoder in TORCHVISION:
        return _of_torchvision(size)
    import timm
    from timm.data import create_transform, resolve_data_config

    usual = timm.get_pretrained_cfg(encoder) if timm.is_model(encoder) else None
    if usual is None:
        raise TristreamError(
            f"encoder '{encoder}' has no preprocessing of its own; set preprocess = \"squash\""
        )
    chosen = resolve_data_config({"input_size": (3, *size)}, pretrained_cfg=usual.to_dict())
    until_scaling = create_transform(
        **chosen, is_training=False, use_prefetcher=True
    )  # (3, H, W) uint8
    return lambda image: np.ascontiguousarray(np.asarray(until_scaling(image)).transpose(1, 2, 0))


def _of_torchvision(size: tuple[int, int]) -> Callable[[object], UInt8[np.ndarray, "H2 W2 3"]]:
    """Return torchvision's ImageNet transform: bilinear until the shorter side is 256 / 224 of the crop's."""
    from torchvision.transforms import v2

    steps = v2.Compose(
        [v2.Resize(round(min(size) * 256 / 224), antialias=True), v2.CenterCrop(size)]
    )
    return lambda image: np.asarray(steps(image))
