"""One clip: a recipe defines its content, a key selects one of the unlimited number of such clips."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from tristream.workshop import sounds
from tristream.workshop.materials import background_noise, make_material
from tristream.workshop.motions import Trajectory, make_motion, rest
from tristream.workshop.scene import Look, Scene, draw, exact_flow, expose

FPS = 25
N_FRAMES = 60  # 2.4 s: two VGGish examples
SIDE_PX = 64

# SCIENCE.md §3, "What it took"; lengths at a side of 64 px.
RADIUS_PX = (13.0, 17.0)
PAN_PX = (0.0, 3.0)  # per frame
CHANGE_FRAMES = (
    22,
    38,
)  # the first and the last place where an ordered clip's second motion may begin
# Mean body speed, px per frame, the same law for every motion: a conveyor then runs at .9–1.9, a disc of 13–17 px spins
# at .09–.22 rad, a drift has steps of .7–1.5 px per axis. One law for all is what makes mean |flow| flat.
SPEED_PX = (0.9, 1.9)


@dataclass(frozen=True)
class Recipe:
    """Content of a clip. Everything else is drawn at random and independent of the class.

    material: a name of workshop.materials, or "camouflage": a body that looks like its background.
    motions: one motion, or two in this order with a change at a random frame.
    sound: a name of workshop.sounds.
    event_share: share of the frames in which the body moves, at a random place; it rests in the others.
    gravity: -1 lets a bounce fall up. speed_factor: times the usual displacement per frame.
    impacts_at: when impacts sound: "random" times, the body's own "contacts" with the floor, or the "contacts of
        another" body that is not in the picture.
    impact_hz: range of an impact's lowest mode. sound_shift_seconds: sound later than the pictures show it.
    """

    material: str = "camouflage"
    motions: tuple[str, ...] = ("drift",)
    sound: str = "neutral"
    event_share: float = 1.0
    gravity: int = 1
    speed_factor: float = 1.0
    impacts_at: str = "random"
    impact_hz: tuple[float, float] = sounds.IMPACT_HZ
    sound_shift_seconds: float = 0.0


@dataclass(frozen=True)
class Clip:
    """frames: RGB with noise. samples: 16 kHz. flow: exact, px, on frame t's pixels; None if not asked for."""

    frames: UInt8[np.ndarray, "T H W 3"]
    samples: Float32[np.ndarray, " n_samples"]
    flow: Float32[np.ndarray, "steps 2 H W"] | None


def make_clip(recipe: Recipe, key: str, *, side_px: int = SIDE_PX, with_flow: bool = False) -> Clip:
    """Return the clip of this recipe and key; equal arguments give equal clips.

    Geometry, look, sound and noise each draw from a generator of their own, so that a material never changes a
    trajectory and a sound never changes a picture.
    """
    scene = make_scene(recipe, key, side_px=side_px)
    look = make_look(recipe, key, side_px=side_px)
    frames = expose(draw(scene, look), generator(key, "noise"), noise=look.noise)
    n_samples = N_FRAMES * sounds.SAMPLE_RATE // FPS
    samples = sounds.make_sound(
        recipe.sound,
        generator(key, "sound"),
        n_samples,
        times=_impact_seconds(recipe, key, scene.trajectory),
        base_hz=recipe.impact_hz,
        shift_seconds=recipe.sound_shift_seconds,
    )
    return Clip(frames, samples.astype(np.float32), exact_flow(scene) if with_flow else None)


def make_scene(recipe: Recipe, key: str, *, side_px: int = SIDE_PX) -> Scene:
    """Return the geometry of the clip with this key."""
    rng = generator(key, "geometry")
    radius = rng.uniform(*RADIUS_PX) * side_px / SIDE_PX
    start = tuple(rng.uniform(0, side_px, 2))
    pan_speed, pan_angle = rng.uniform(*PAN_PX), rng.uniform(0, 2 * np.pi)
    pan = (pan_speed * np.cos(pan_angle), pan_speed * np.sin(pan_angle))
    trajectory = _make_trajectory(recipe, generator(key, "motion"), radius)
    return Scene(trajectory, radius, start, pan, side_px)


def make_look(recipe: Recipe, key: str, *, side_px: int = SIDE_PX) -> Look:
    """Return the look of the clip with this key."""
    rng = generator(key, "look")
    # The background's field comes first, so that it is the same whatever lies on it.
    background = background_noise(rng, side_px)
    grey, contrast = rng.uniform(100, 150), rng.uniform(26, 40)
    red, green, blue = rng.uniform(0.94, 1.06, 3)
    noise = rng.uniform(1.5, 4.0)
    camouflage = recipe.material == "camouflage"
    body = (
        background_noise(rng, side_px)
        if camouflage
        else make_material(recipe.material, rng, side_px)
    )
    return Look(background, body, grey, contrast, (red, green, blue), noise)


def generator(key: str, aspect: str) -> np.random.Generator:
    """Return the random generator of one aspect of one clip, independent of all others."""
    digest = hashlib.blake2b(f"{key}:{aspect}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def _impact_seconds(recipe: Recipe, key: str, trajectory: Trajectory) -> np.ndarray | None:
    if recipe.impacts_at == "contacts":
        return trajectory.contacts / FPS
    if recipe.impacts_at == "contacts of another":
        another = make_motion(
            "bounce", generator(key, "another"), N_FRAMES - 1, speed=1.0, radius=RADIUS_PX[0]
        )
        return another.contacts / FPS
    return None


def _make_trajectory(recipe: Recipe, rng: np.random.Generator, radius: float) -> Trajectory:
    n_steps = N_FRAMES - 1
    short = recipe.event_share < 1
    n_moving = round(recipe.event_share * N_FRAMES) if short else n_steps
    first_step = int(rng.integers(0, n_steps - n_moving + 1))
    if len(recipe.motions) == 1:
        lengths = [n_moving]
    elif short:
        lengths = [n_moving // 2, n_moving - n_moving // 2]
    else:
        change = int(rng.integers(CHANGE_FRAMES[0], CHANGE_FRAMES[1] + 1))
        lengths = [change, n_moving - change]
    trajectory = rest(first_step)
    for name, length in zip(recipe.motions, lengths, strict=True):
        motion = make_motion(
            name,
            rng,
            length,
            speed=rng.uniform(*SPEED_PX),
            radius=radius,
            gravity=recipe.gravity,
            # A contact or a turn must lie inside a short event, or nothing would tell what it was.
            moment=length * rng.uniform(0.35, 0.65) if short else None,
        )
        trajectory = trajectory.then(motion.scaled(recipe.speed_factor))
    return trajectory.then(rest(n_steps - trajectory.n_steps))
