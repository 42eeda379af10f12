"""Materials of bodies: procedural textures with light, and the noise of backgrounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Float32

from tristream.errors import TristreamError

TEXELS_PER_PX = (
    4  # textures are finer than pixels, so that moving by a fraction of a pixel does not blur them
)
TEXTURE_SIGMA_PX = 1.3  # SCIENCE.md §3


@dataclass(frozen=True)
class Material:
    """A texture that moves with the body, and how light falls on it, which does not.

    texture: RGB 0–255, TEXELS_PER_PX texels a pixel, centred on the body.
    opacity: 1 hides the background.
    highlight: grey levels added at the brightest point; highlight_sigma: its width in radii.
    rim: grey levels added at the edge.
    """

    texture: Float32[np.ndarray, "side side 3"]
    opacity: float = 1.0
    highlight: float = 0.0
    highlight_sigma: float = 0.3
    rim: float = 0.0


NAMES = (
    "wood",
    "metal",
    "rubber",
    "glass",
    "ceramic",
)  # no class of the sixteen is made of ceramic


def make_material(name: str, rng: np.random.Generator, side_px: int) -> Material:
    """Return one random piece of a material."""
    if name == "wood":
        grain = _noise(rng, side_px, 3.0, 1.1)
        rings = np.sin(2.5 * _noise(rng, side_px, 8.0, 3.0) + 0.5 * grain)
        return Material(
            _coloured((150, 100, 56), 30 * grain + 12 * rings), highlight=25, highlight_sigma=0.5
        )
    if name == "metal":
        brushed = _noise(rng, side_px, 3.0, 1.0)
        return Material(
            _coloured((150, 156, 168), 32 * brushed), highlight=60, highlight_sigma=0.45, rim=-25
        )
    if name == "rubber":
        speckle = _noise(rng, side_px, TEXTURE_SIGMA_PX, TEXTURE_SIGMA_PX)
        return Material(_coloured((46, 46, 50), 18 * speckle), highlight=12, highlight_sigma=0.6)
    if name == "glass":
        ripples = _noise(rng, side_px, TEXTURE_SIGMA_PX, TEXTURE_SIGMA_PX)
        texture = _coloured((140, 205, 215), 26 * ripples)
        return Material(texture, opacity=0.8, highlight=120, highlight_sigma=0.16, rim=45)
    if name == "ceramic":
        glaze = _noise(rng, side_px, 2.2, 2.2)[..., None] > 0.6
        texture = np.where(glaze, np.array([50, 80, 175]), np.array([226, 221, 212]))
        return Material(texture.astype(np.float32), highlight=20, highlight_sigma=0.2)
    raise TristreamError(f"unknown material {name!r}; available: {', '.join(NAMES)}")


def background_noise(rng: np.random.Generator, side_px: int) -> Float32[np.ndarray, "side side"]:
    """Return grey noise of mean 0 and variance 1, periodic in both directions with period `side_px`."""
    return _noise(rng, side_px, TEXTURE_SIGMA_PX, TEXTURE_SIGMA_PX)


def _noise(
    rng: np.random.Generator, side_px: int, sigma_x_px: float, sigma_y_px: float
) -> np.ndarray:
    """Return white noise filtered by a periodic Gaussian of the given widths (px), of unit variance *in expectation*.

    It is not scaled by its own standard deviation, so that every place has the same statistics.
    """
    side = side_px * TEXELS_PER_PX
    frequencies = np.fft.fftfreq(side)  # cycles per texel
    keep_x, keep_y = (
        np.exp(-2 * (np.pi * TEXELS_PER_PX * sigma_px * frequencies) ** 2)
        for sigma_px in (sigma_x_px, sigma_y_px)
    )
    deviation = np.sqrt(np.mean(keep_x**2) * np.mean(keep_y**2))  # of white noise after the filter
    spectrum = scipy.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
    spectrum *= (keep_y[:, None] * keep_x[None, : side // 2 + 1] / deviation).astype(np.float32)
    return scipy.fft.irfft2(spectrum, s=(side, side))


def _coloured(rgb: tuple[int, int, int], relief: np.ndarray) -> np.ndarray:
    """The colour, made lighter and darker by the relief (grey levels at a colour of 255's mean brightness)."""
    colour = np.array(rgb, np.float32)
    shade = 1 + relief[..., None] / colour.mean()
    return np.clip(colour * shade, 0, 255).astype(np.float32)
