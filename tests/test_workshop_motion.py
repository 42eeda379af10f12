"""workshop/motions.py and scene.py: the physics is found again in the exact flow, and in the pictures."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from tristream.workshop.classes import CLASSES, MOTION, ORDER
from tristream.workshop.clips import Recipe, generator, make_look, make_scene
from tristream.workshop.materials import NAMES, background_noise, make_material
from tristream.workshop.motions import Trajectory, make_motion, rest
from tristream.workshop.scene import Look, Scene, body_masks, draw, exact_flow, expose

RADIUS = 15.0


def _scene(
    motion: str,
    key: str,
    *,
    speed: float = 1.4,
    n_steps: int = 59,
    pan=(1.1, -0.7),
    gravity: int = 1,
) -> Scene:
    rng = generator(key, "test")
    trajectory = make_motion(motion, rng, n_steps, speed=speed, radius=RADIUS, gravity=gravity)
    return Scene(trajectory, RADIUS, (20.3, 41.8), pan)


def _body_velocity(scene: Scene) -> np.ndarray:
    """(T-1, 2) mean flow over the body, without the pan: what a viewer of the flow alone can measure."""
    flow, masks = exact_flow(scene), body_masks(scene)[:-1]
    means = [flow[t][:, masks[t]].mean(axis=1) for t in range(len(flow))]
    return np.array(means) - np.array(scene.pan_px)


def _period(signal: np.ndarray, shortest: int, longest: int) -> int:
    """Lag of the highest autocorrelation."""
    centred = signal - signal.mean()
    lags = range(shortest, longest + 1)
    return max(lags, key=lambda lag: np.mean(centred[:-lag] * centred[lag:]))


@pytest.mark.parametrize("motion", ["drift", "bounce", "pendulum", "spin", "conveyor"])
@pytest.mark.parametrize("speed", [1.0, 1.7])
def test_every_motion_has_the_mean_body_speed_it_was_asked_for(motion, speed):
    scene = _scene(motion, "speed", speed=speed)
    relative = exact_flow(scene) - np.array(scene.pan_px, np.float32)[None, :, None, None]
    masks = body_masks(scene)[:-1]
    assert np.hypot(relative[:, 0], relative[:, 1])[masks].mean() == pytest.approx(speed, rel=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_the_period_of_a_bounce_is_found_again_in_the_flow(seed):
    scene = _scene("bounce", f"period {seed}")
    flights = np.diff(scene.trajectory.contacts)
    assert flights.min() > 8
    assert flights.max() <= 21
    assert abs(_period(_body_velocity(scene)[:, 1], 8, 24) - flights.mean()) <= 1.5


def test_a_bounce_falls_with_one_acceleration_and_loses_speed_at_each_contact():
    scene = _scene("bounce", "restitution")
    contacts, velocity = scene.trajectory.contacts, _body_velocity(scene)[:, 1]
    lengths = np.diff(contacts)
    ratios = lengths[1:] / lengths[:-1]
    assert np.all((ratios > 0.9 - 1e-9) & (ratios < 0.97 + 1e-9))
    np.testing.assert_allclose(ratios, ratios[0])
    # Steps within one flight: the velocity grows downwards by the same g in every flight.
    step = np.arange(len(velocity))
    accelerations, first_speeds = [], []
    for start, stop in pairwise(contacts):
        inside = (step >= start) & (step + 1 <= stop)
        slope, intercept = np.polyfit(step[inside] + 0.5 - start, velocity[inside], 1)
        accelerations.append(slope)
        first_speeds.append(-intercept)
    np.testing.assert_allclose(accelerations, accelerations[0], rtol=1e-3)
    assert accelerations[0] > 0.1  # px per frame², downwards
    np.testing.assert_allclose(np.array(first_speeds[1:]) / first_speeds[:-1], ratios, rtol=1e-3)


def test_reversed_gravity_mirrors_the_bounce():
    down, up = (_scene("bounce", "gravity", gravity=gravity) for gravity in (1, -1))
    np.testing.assert_allclose(_body_velocity(up)[:, 1], -_body_velocity(down)[:, 1], atol=1e-3)
    np.testing.assert_array_equal(up.trajectory.contacts, down.trajectory.contacts)


@pytest.mark.parametrize("seed", range(4))
def test_a_pendulum_keeps_its_distance_from_a_point_above_and_swings_with_its_period(seed):
    scene = _scene("pendulum", f"rod {seed}", n_steps=119)
    x, y = scene.trajectory.x, scene.trajectory.y
    # Circle through the path: x² + y² = 2 a x + 2 b y + c.
    (a, b, c), *_ = np.linalg.lstsq(
        np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1), x**2 + y**2, rcond=None
    )
    rod = np.sqrt(c + a**2 + b**2)
    np.testing.assert_allclose(np.hypot(x - a, y - b), rod, rtol=1e-6)
    assert b < y.min()  # the pivot is above the bob
    turns = np.flatnonzero(np.diff(np.sign(np.diff(x)))) + 1
    assert abs(_period(_body_velocity(scene)[:, 0], 15, 40) - 2 * np.diff(turns).mean()) <= 1.5
    assert 20 - 1 <= 2 * np.diff(turns).mean() <= 34 + 1


@pytest.mark.parametrize("seed", range(4))
def test_the_rate_of_a_spin_is_half_the_curl_of_its_flow(seed):
    scene = _scene("spin", f"curl {seed}")
    flow, masks = exact_flow(scene), body_masks(scene)[:-1]
    rate = np.diff(scene.trajectory.angle)
    assert 0.09 <= abs(rate[0]) <= 0.22
    for t in (0, 17, 58):
        curl = np.gradient(flow[t, 1], axis=1) - np.gradient(flow[t, 0], axis=0)
        inside = cv2.erode(masks[t].astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        np.testing.assert_allclose(curl[inside] / 2, np.sin(rate[t]), atol=1e-4)


def test_a_conveyor_never_changes_its_velocity():
    velocity = _body_velocity(_scene("conveyor", "belt", speed=1.3))
    np.testing.assert_allclose(velocity, np.broadcast_to(velocity[0], velocity.shape), atol=1e-5)
    assert np.hypot(*velocity[0]) == pytest.approx(1.3, rel=1e-5)


def test_steps_of_a_drift_do_not_remember_the_last_one():
    steps = np.concatenate([_body_velocity(_scene("drift", f"drift {seed}")) for seed in range(20)])
    for axis in range(2):
        assert (
            abs(np.corrcoef(steps[:-1, axis], steps[1:, axis])[0, 1]) < 0.09
        )  # 3 standard errors of 1180 pairs
    assert 0.7 <= steps.std() <= 1.5


@pytest.mark.parametrize("name", sorted(ORDER))
def test_an_ordered_clip_shows_its_two_motions_in_their_order(name):
    """Spin is where the mean of the body's turning is; the change lies at frames 22 to 38."""
    changes = []
    for index in range(12):
        scene = make_scene(ORDER[name], f"order {name} {index}")
        turning = np.abs(np.diff(scene.trajectory.angle)) > 0
        acceleration = np.hypot(
            *np.diff(np.stack([np.diff(scene.trajectory.x), np.diff(scene.trajectory.y)]), axis=1)
        )
        even = np.append(
            acceleration < 1e-9, True
        )  # constant velocity: conveyor (or spin, which does not travel)
        second_half = turning if "spin" in name else even
        if name in ("spin_bounce", "conveyor_pendulum"):
            change = int(np.argmin(second_half))
            assert second_half[: change - 1].all()
            assert not second_half[change : change + 8].any()
        else:
            change = int(len(second_half) - np.argmin(second_half[::-1]))
            assert second_half[change:].all()
            assert not second_half[change - 8 : change - 1].any()
        changes.append(change)
    assert min(changes) >= 21
    assert max(changes) <= 39
    assert len(set(changes)) > 4


def test_following_motion_begins_where_and_when_the_first_ends():
    first, second = (_scene("bounce", f"then {i}", n_steps=30).trajectory for i in range(2))
    both = first.then(second)
    np.testing.assert_allclose(
        np.diff(both.y), np.concatenate([np.diff(first.y), np.diff(second.y)])
    )
    np.testing.assert_allclose(
        both.contacts, np.concatenate([first.contacts, 30 + second.contacts])
    )
    assert both.then(rest(5)).n_steps == 65


def test_an_unknown_motion_is_named():
    with pytest.raises(ValueError, match="unknown motion 'jump'"):
        make_motion("jump", generator("a", "b"), 5, speed=1.0, radius=RADIUS)


# ---- flow against pictures


def _flat_look(key: str, side_px: int = 64) -> Look:
    rng = generator(key, "look")
    return Look(background_noise(rng, side_px), background_noise(rng, side_px))


def test_a_still_body_under_a_pan_of_whole_pixels_is_the_rolled_picture():
    scene = Scene(rest(9), RADIUS, (50.0, 12.0), (3.0, -2.0))
    pictures = draw(scene, _flat_look("roll"))
    for t in range(1, 10):
        rolled = np.roll(pictures[0], (-2 * t, 3 * t), axis=(0, 1))
        np.testing.assert_allclose(pictures[t], rolled, atol=0.5)
    flow = exact_flow(scene)
    np.testing.assert_array_equal(
        flow, np.broadcast_to(np.float32([3, -2])[None, :, None, None], flow.shape)
    )


def test_a_planted_translation_is_the_flow_on_the_body_and_nowhere_else():
    way = np.arange(20) * 1.75
    scene = Scene(Trajectory(way, -way, 0 * way), RADIUS, (55.0, 8.0), (0.0, 0.0))
    flow, masks = exact_flow(scene), body_masks(scene)[:-1]
    np.testing.assert_allclose(flow[:, 0][masks], 1.75, atol=1e-4)
    np.testing.assert_allclose(flow[:, 1][masks], -1.75, atol=1e-4)
    assert not flow[:, 0][~masks].any()


@pytest.mark.parametrize("name", sorted(MOTION | ORDER))
def test_warping_a_picture_by_its_flow_gives_the_next_one(name):
    """Pixel x of frame t is found at x + d in frame t + 1, around the torus; seams and covered ground left out."""
    scene = make_scene(CLASSES[name], f"warp {name}")
    pictures = draw(scene, _flat_look(f"warp {name}"))[..., 0]
    flow, masks = exact_flow(scene), body_masks(scene)
    y, x = np.mgrid[:64, :64].astype(np.float32)
    thick = np.ones((9, 9), np.uint8)  # 4 px: the seam, 2 px, and the reach of the interpolation
    errors, still_errors = [], []
    for t in range(0, 59, 6):
        moved = cv2.remap(
            np.ascontiguousarray(pictures[t + 1]), x + flow[t, 0], y + flow[t, 1], cv2.INTER_LANCZOS4,
            borderMode=cv2.BORDER_WRAP,
        )  # fmt: skip
        wrapped = np.pad(masks[t].astype(np.uint8), 8, mode="wrap")
        sure = (cv2.erode(wrapped, thick) | (1 - cv2.dilate(wrapped, thick)))[8:-8, 8:-8].astype(
            bool
        )
        next_body = cv2.remap(
            cv2.dilate(np.pad(masks[t + 1].astype(np.uint8), 8, mode="wrap"), thick)[8:-8, 8:-8],
            x + flow[t, 0], y + flow[t, 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP,
        )  # fmt: skip
        sure &= masks[t] | (next_body == 0)
        errors.append((moved - pictures[t])[sure])
        still_errors.append((pictures[t + 1] - pictures[t])[sure & masks[t]])
    error, still_error = (np.sqrt(np.mean(np.concatenate(e) ** 2)) for e in (errors, still_errors))
    assert error < 1.0  # grey levels; the texture's standard deviation is 34
    assert still_error > 10


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_nothing_enters_or_leaves_the_frame(name):
    scene = make_scene(CLASSES[name], f"torus {name}")
    areas = body_masks(scene).sum(axis=(1, 2))
    assert np.abs(areas / (np.pi * scene.radius_px**2) - 1).max() < 0.03
    assert 13 <= scene.radius_px <= 17
    assert np.abs(exact_flow(scene)).max() < 12  # a wrapped difference would be about 64


def test_subtracting_each_fields_mean_leaves_no_background_but_the_bodys_share():
    for motion in ("drift", "bounce", "pendulum", "spin", "conveyor"):
        scene = _scene(motion, "mean", pan=(2.5, 1.5))
        flow, masks = exact_flow(scene), body_masks(scene)[:-1]
        free = flow - flow.mean(axis=(2, 3), keepdims=True)
        share = masks.mean(axis=(1, 2))
        expected = -share[:, None] * _body_velocity(
            scene
        )  # the body's own part of the mean; 0 for a spin
        for t in (0, 30, 58):
            for axis in range(2):
                np.testing.assert_allclose(free[t, axis][~masks[t]], expected[t, axis], atol=1e-4)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(motions=("bounce", "spin"))])
def test_a_material_never_changes_the_trajectory(recipe):
    reference = make_scene(recipe, "same")
    for material in NAMES:
        scene = make_scene(replace(recipe, material=material), "same")
        np.testing.assert_array_equal(exact_flow(scene), exact_flow(reference))


def test_a_material_never_changes_the_background():
    masks = body_masks(make_scene(Recipe(), "a")).astype(np.uint8)
    far = ~np.array([cv2.dilate(mask, np.ones((9, 9))) for mask in masks], bool)
    far[:, :6], far[:, -6:], far[:, :, :6], far[:, :, -6:] = (
        False,
    ) * 4  # a body across the border
    plain = draw(make_scene(Recipe(), "a"), make_look(Recipe(), "a"))
    for material in NAMES:
        recipe = Recipe(material=material)
        np.testing.assert_allclose(
            draw(make_scene(recipe, "a"), make_look(recipe, "a"))[far], plain[far], atol=1e-3
        )


def test_materials_are_told_apart_by_their_mean_colour():
    rng = generator("colours", "test")
    means = np.array(
        [
            [make_material(name, rng, 64).texture.mean(axis=(0, 1)) for _ in range(5)]
            for name in NAMES
        ]
    )
    between = np.linalg.norm(
        means.mean(axis=1)[:, None] - means.mean(axis=1)[None], axis=2
    ) + 1e6 * np.eye(len(NAMES))
    assert between.min() > 4 * means.std(axis=1).max()


def test_an_unknown_material_is_named():
    with pytest.raises(ValueError, match="unknown material 'jelly'"):
        make_material("jelly", generator("a", "b"), 64)


def test_noise_is_of_the_given_strength_and_rounds_without_bias():
    pictures = np.full((20, 64, 64, 3), 100.3, np.float32)
    exposed = expose(pictures, generator("noise", "test"), noise=3.0)
    assert exposed.std() == pytest.approx(3.0, rel=0.03)
    assert exposed.mean() == pytest.approx(100.3, abs=0.05)
    np.testing.assert_array_equal(expose(pictures, generator("noise", "test"), noise=0.0), 100)
