"""Motions of a body: drift, bounce, pendulum, spin, conveyor; exact positions, no pixels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float64

from tristream.errors import TristreamError

# All ranges of this room: SCIENCE.md §3, "What it took".
BOUNCE_PERIOD_FRAMES = (13.0, 21.0)
RESTITUTION = (0.9, 0.97)  # speed after a contact / speed before
PENDULUM_PERIOD_FRAMES = (20.0, 34.0)
PENDULUM_SWING_RAD = (
    0.45,
    0.9,
)  # ours: wide enough to show the arc, narrow enough to swing like a sine
SPIN_RAD = (0.09, 0.22)  # per frame
CONVEYOR_TILT_RAD = (-0.2, 0.2)  # ours: belts are nearly level


@dataclass(frozen=True)
class Trajectory:
    """Position of a body in every frame relative to its start, without the camera's pan.

    x grows to the right, y downwards (px), angle clockwise on screen (rad). `contacts` are the times, in frames and
    not rounded, at which it hits the floor.
    """

    x: Float64[np.ndarray, " T"]
    y: Float64[np.ndarray, " T"]
    angle: Float64[np.ndarray, " T"]
    contacts: Float64[np.ndarray, " n_contacts"] = field(default_factory=lambda: np.zeros(0))

    @property
    def n_steps(self) -> int:
        return len(self.x) - 1

    def scaled(self, factor: float) -> Trajectory:
        """Return the same path with `factor` times the displacement per frame; contacts stay."""
        return replace(self, x=self.x * factor, y=self.y * factor, angle=self.angle * factor)

    def then(self, following: Trajectory) -> Trajectory:
        """Return this motion followed by another that starts at its end."""
        return Trajectory(
            x=np.concatenate([self.x, self.x[-1] + following.x[1:]]),
            y=np.concatenate([self.y, self.y[-1] + following.y[1:]]),
            angle=np.concatenate([self.angle, self.angle[-1] + following.angle[1:]]),
            contacts=np.concatenate([self.contacts, self.n_steps + following.contacts]),
        )


def rest(n_steps: int) -> Trajectory:
    """Return a body at rest."""
    still = np.zeros(n_steps + 1)
    return Trajectory(still, still, still)


def make_motion(
    name: str,
    rng: np.random.Generator,
    n_steps: int,
    *,
    speed: float,
    radius: float,
    gravity: int = 1,
    moment: float | None = None,
) -> Trajectory:
    """Return a motion of `n_steps` steps whose mean body speed is `speed`, for every kind.

    Mean |flow| is therefore independent of the class: every motion is drawn with its own period and phase, then scaled
    until the displacement per frame, averaged over the disc and over time, is `speed` px.

    Args:
        radius: of the disc, px; what a spin turns into a speed.
        gravity: 1 pulls down the picture, -1 up; only a bounce feels it.
        moment: step at which the telling thing happens (a bounce's contact, a pendulum's turn); None: anywhere.
    """
    if name == "drift":
        return _drift(rng, n_steps, speed)
    if name == "bounce":
        return _bounce(rng, n_steps, speed, gravity, moment)
    if name == "pendulum":
        return _pendulum(rng, n_steps, speed, moment)
    if name == "spin":
        return _spin(rng, n_steps, speed, radius)
    if name == "conveyor":
        return _conveyor(rng, n_steps, speed)
    raise TristreamError(
        f"unknown motion {name!r}; available: bounce, conveyor, drift, pendulum, spin"
    )


def _drift(rng: np.random.Generator, n_steps: int, speed: float) -> Trajectory:
    """Brownian: independent Gaussian steps, .7–1.5 px per axis over the speeds that the workshop draws."""
    steps = np.vstack([np.zeros((1, 2)), rng.standard_normal((n_steps, 2))])
    x, y = np.cumsum(steps, axis=0).T
    return _at_speed(x, y, speed)


def _bounce(
    rng: np.random.Generator, n_steps: int, speed: float, gravity: int, moment: float | None
) -> Trajectory:
    """Parabolas from contact to contact; each flight is e times as long and e² times as high as the one before."""
    period, e = rng.uniform(*BOUNCE_PERIOD_FRAMES), rng.uniform(*RESTITUTION)
    phase = rng.uniform()  # of the first flight, already over at frame 0
    if moment is not None:
        phase = 1 - moment / period
    n_flights = 40  # more than fit: flights get shorter, but .9 ** 40 × 13 frames is still a positive length
    lengths = period * e ** np.arange(n_flights)
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]]) - phase * period
    t = np.arange(n_steps + 1.0)
    flight = np.searchsorted(starts, t, side="right") - 1
    progress = (t - starts[flight]) / lengths[flight]
    height = e ** (2.0 * flight) * 4 * progress * (1 - progress)
    contacts = starts[1:][(starts[1:] > 0) & (starts[1:] < n_steps)]
    trajectory = _at_speed(np.zeros(n_steps + 1), -gravity * height, speed)
    return replace(trajectory, contacts=contacts)


def _pendulum(
    rng: np.random.Generator, n_steps: int, speed: float, moment: float | None
) -> Trajectory:
    """A bob on a rod of fixed length, swinging as a sine in angle; the bob itself does not turn."""
    period, swing, phase = (
        rng.uniform(*PENDULUM_PERIOD_FRAMES),
        rng.uniform(*PENDULUM_SWING_RAD),
        rng.uniform(),
    )
    if moment is not None:
        phase = round(phase) / 2 - moment / period  # a turn, to the left or to the right
    rod = swing * np.cos(2 * np.pi * (np.arange(n_steps + 1) / period + phase))
    return _at_speed(np.sin(rod), np.cos(rod), speed)


def _spin(rng: np.random.Generator, n_steps: int, speed: float, radius: float) -> Trajectory:
    """Turning in place; a disc's mean speed is 2/3 of its rim's."""
    rate = np.clip(1.5 * speed / radius, *SPIN_RAD) * rng.choice([-1.0, 1.0])
    still = np.zeros(n_steps + 1)
    return Trajectory(still, still, rate * np.arange(n_steps + 1))


def _conveyor(rng: np.random.Generator, n_steps: int, speed: float) -> Trajectory:
    """Straight on at constant speed, to the left or to the right."""
    tilt, direction = rng.uniform(*CONVEYOR_TILT_RAD), rng.choice([-1.0, 1.0])
    way = speed * np.arange(n_steps + 1)
    return Trajectory(direction * np.cos(tilt) * way, np.sin(tilt) * way, np.zeros(n_steps + 1))


def _at_speed(x: np.ndarray, y: np.ndarray, speed: float) -> Trajectory:
    mean_step = np.hypot(np.diff(x), np.diff(y)).mean()
    factor = speed / mean_step
    return Trajectory((x - x[0]) * factor, (y - y[0]) * factor, np.zeros(len(x)))
