"""A body on a textured background, both panned over a frame without edges: rendered frames and exact flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from tristream.workshop.materials import TEXELS_PER_PX, Material
from tristream.workshop.motions import Trajectory

# Half the width (px) of the seam between a camouflaged body and its background. Across it the two noises are mixed as
# cos and sin of an angle that runs from 0 to 90 degrees: variance stays 1 everywhere, and with a seam wider than the
# texture's sigma the correlation of neighbours hardly drops, so that a single frame does not show where the body is.
SEAM_PX = 2.0


@dataclass(frozen=True)
class Scene:
    """The geometry of one clip. The frame is a torus: what leaves on one side enters on the other.

    pan_px: (x, y) px per frame, added to body and background alike.
    """

    trajectory: Trajectory
    radius_px: float
    start_px: tuple[float, float]
    pan_px: tuple[float, float]
    side_px: int = 64

    @property
    def n_frames(self) -> int:
        return self.trajectory.n_steps + 1

    def centres(self) -> Float64[np.ndarray, "T 2"]:
        """x, y of the body at every frame, px, not wrapped."""
        path = np.stack([self.trajectory.x, self.trajectory.y], axis=1)
        return (
            np.array(self.start_px)
            + path
            + np.arange(self.n_frames)[:, None] * np.array(self.pan_px)
        )


@dataclass(frozen=True)
class Look:
    """Look of one clip, apart from its geometry.

    background: noise of TEXELS_PER_PX texels a pixel, mean 0, variance 1.
    body: a material to be seen, or noise like the background's, not to be seen.
    grey, contrast: grey levels; the mean of the background and its standard deviation.
    tint: RGB factors about 1. noise: standard deviation of the sensor's noise, grey levels.
    """

    background: Float32[np.ndarray, "side side"]
    body: Material | Float32[np.ndarray, "side side"]
    grey: float = 128.0
    contrast: float = 34.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.0


def body_masks(scene: Scene) -> Bool[np.ndarray, "T H W"]:
    """True where a pixel's centre lies on the body."""
    dx, dy = _from_centre(scene)
    return dx**2 + dy**2 <= scene.radius_px**2


def exact_flow(scene: Scene) -> Float32[np.ndarray, "steps 2 H W"]:
    """Return the displacement (x, y) in px of every pixel of frame t to frame t + 1.

    A displacement, not a difference of wrapped positions: crossing the border adds nothing to it.
    """
    dx, dy = (offsets[:-1] for offsets in _from_centre(scene))
    body = body_masks(scene)[:-1]
    turn = np.diff(scene.trajectory.angle)[:, None, None]
    cos, sin = np.cos(turn), np.sin(turn)
    step = np.diff(scene.centres(), axis=0)[:, :, None, None]  # (T-1, 2, 1, 1)
    flow = np.empty((len(body), 2, scene.side_px, scene.side_px), np.float32)
    flow[:, 0] = np.where(body, (cos - 1) * dx - sin * dy + step[:, 0], scene.pan_px[0])
    flow[:, 1] = np.where(body, sin * dx + (cos - 1) * dy + step[:, 1], scene.pan_px[1])
    return flow


def draw(scene: Scene, look: Look) -> Float32[np.ndarray, "T H W 3"]:
    """Return the frames before sensor noise, grey levels 0–255, not rounded."""
    background = look.grey + look.contrast * _sample_background(scene, look.background)
    tint = np.array(look.tint, np.float32)
    if isinstance(look.body, Material):
        return _lay_material(
            scene, look.body, background[..., None] * tint, brightness=look.grey / 128
        )
    dx, dy = _from_centre(scene)
    inside = scene.radius_px - np.sqrt(dx**2 + dy**2)
    angle = (np.pi / 4) * (1 + np.clip(inside / SEAM_PX, -1, 1))
    body = _sample_body(scene, look.body, dx, dy)
    grey = (
        look.grey
        + np.cos(angle) * (background - look.grey)
        + np.sin(angle) * (look.contrast * body)
    )
    return grey[..., None] * tint


def expose(
    pictures: Float32[np.ndarray, "T H W 3"], rng: np.random.Generator, *, noise: float
) -> UInt8[np.ndarray, "T H W 3"]:
    """Return frames with grey sensor noise of this standard deviation, rounded and clipped to 0–255."""
    grain = rng.standard_normal(pictures.shape[:3], dtype=np.float32) * np.float32(noise)
    return np.clip(pictures + (grain + np.float32(0.5))[..., None], 0, 255).astype(np.uint8)


def _from_centre(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's offset from the body's centre on the torus, x as (T, 1, W) and y as (T, H, 1)."""
    half = scene.side_px / 2
    pixels, centres = np.arange(scene.side_px), scene.centres()
    dx = (pixels[None, None, :] - centres[:, 0, None, None] + half) % scene.side_px - half
    dy = (pixels[None, :, None] - centres[:, 1, None, None] + half) % scene.side_px - half
    return dx.astype(np.float32), dy.astype(np.float32)


def _sample_background(scene: Scene, texture: np.ndarray) -> np.ndarray:
    shift = np.arange(scene.n_frames)[:, None] * np.array(scene.pan_px)  # px
    pixels = np.arange(scene.side_px)
    x = ((pixels - shift[:, :1]) % scene.side_px)[:, None, :]  # (T, 1, W)
    y = ((pixels - shift[:, 1:]) % scene.side_px)[:, :, None]  # (T, H, 1)
    return _sample(texture, x * TEXELS_PER_PX, y * TEXELS_PER_PX)


def _sample_body(scene: Scene, texture: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """The body's texture, turned with it; dx, dy as of _from_centre."""
    angle = scene.trajectory.angle.astype(np.float32)[:, None, None]
    middle = texture.shape[0] / 2
    cos, sin = TEXELS_PER_PX * np.cos(angle), TEXELS_PER_PX * np.sin(angle)
    return _sample(texture, middle + cos * dx + sin * dy, middle - sin * dx + cos * dy)


def _sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples of a periodic texture at (T, H, W) places; one call for all frames."""
    import cv2

    shape = np.broadcast_shapes(x.shape, y.shape)
    map_x = np.broadcast_to(x, shape).astype(np.float32).reshape(-1, shape[-1])
    map_y = np.broadcast_to(y, shape).astype(np.float32).reshape(-1, shape[-1])
    sampled = cv2.remap(texture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return sampled.reshape(shape + texture.shape[2:])


def _lay_material(
    scene: Scene, material: Material, background: np.ndarray, *, brightness: float
) -> np.ndarray:
    dx, dy = _from_centre(scene)
    radius = np.float32(scene.radius_px)
    distance = np.sqrt(dx**2 + dy**2)
    # The light comes from the upper left and does not turn with the body.
    spot_x, spot_y = -0.35 * radius, -0.35 * radius
    width = 2 * (material.highlight_sigma * radius) ** 2
    light = (
        material.highlight
        * np.exp(-((dx - spot_x) ** 2) / width)
        * np.exp(-((dy - spot_y) ** 2) / width)
    )
    light += material.rim * np.clip(distance - radius + 2.5, 0, 2.5) / 2.5
    body = (_sample_body(scene, material.texture, dx, dy) + light[..., None]) * np.float32(
        brightness
    )
    cover = np.clip(radius + 0.5 - distance, 0, 1)  # antialiased edge
    opaque = (cover * np.float32(material.opacity))[..., None]
    shine = (cover * (1 - np.float32(material.opacity)) * np.float32(brightness) * light)[
        ..., None
    ]  # on glass too
    return background + opaque * (body - background) + shine
