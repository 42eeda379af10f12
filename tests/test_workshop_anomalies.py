"""workshop/anomalies.py: normal clips are coherent, and every kind of anomaly breaks one thing and no other."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from tristream.workshop import dataset
from tristream.workshop.anomalies import KINDS, NORMAL, NORMAL_IMPACT_HZ
from tristream.workshop.clips import FPS, Clip, make_clip, make_look, make_scene
from tristream.workshop.dataset import ANOMALY_SIZES, plan, read_kinds, render
from tristream.workshop.materials import NAMES
from tristream.workshop.scene import exact_flow
from tristream.workshop.sounds import SAMPLE_RATE

BOUNCE = NORMAL["metal_bounce"]


def _envelope(samples: np.ndarray) -> np.ndarray:
    """Root mean square of every 5 ms."""
    return np.sqrt(np.mean(samples.reshape(-1, 80) ** 2, axis=1))


def _onsets_at(clip: Clip, seconds: np.ndarray) -> np.ndarray:
    """Ratio of loudness of the 15 ms after each moment to the 15 ms before."""
    envelope = _envelope(clip.samples)
    at = [round(s * 200) for s in seconds if 0.03 < s < 2.37]
    return np.array([envelope[a : a + 3].mean() / envelope[a - 4 : a - 1].mean() for a in at])


def _strongest_hz(samples: np.ndarray) -> float:
    return float(
        np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))))
        * SAMPLE_RATE
        / len(samples)
    )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_of_anomaly_changes_one_property_of_its_normal_class(kind):
    property_of = {
        "glass": {"material"},
        "unseen_material": {"material"},
        "speed_x3": {"speed_factor"},
        "gravity_reversed": {"gravity"},
        "impact_removed": {"sound"},
        "impact_detuned": {"impact_hz"},
        "audio_shifted": {"sound_shift_seconds"},
        "swapped_pairing": {"sound", "impacts_at", "impact_hz"},
    }
    for label, recipes in KINDS[kind].items():
        for recipe in recipes:
            normal = asdict(NORMAL[label])
            changed = {name for name, value in asdict(recipe).items() if value != normal[name]}
            assert changed
            assert changed <= property_of[kind]


def test_impacts_of_normal_clips_sound_when_the_body_hits_the_floor():
    for index in range(8):
        contacts = make_scene(BOUNCE, f"normal {index}").trajectory.contacts / FPS
        assert len(contacts) >= 2
        assert _onsets_at(make_clip(BOUNCE, f"normal {index}"), contacts).min() > 2.5


def test_shifted_audio_sounds_half_a_second_late_over_the_same_pictures():
    (recipe,) = KINDS["audio_shifted"]["metal_bounce"]
    for index in range(8):
        key = f"shifted {index}"
        contacts = make_scene(recipe, key).trajectory.contacts / FPS
        normal, shifted = make_clip(BOUNCE, key), make_clip(recipe, key)
        np.testing.assert_array_equal(shifted.frames, normal.frames)
        assert _onsets_at(shifted, (contacts + 0.5) % 2.4).min() > 2.5


def test_a_removed_impact_leaves_the_pictures_and_no_onset():
    (recipe,) = KINDS["impact_removed"]["metal_bounce"]
    for index in range(8):
        key = f"removed {index}"
        contacts = make_scene(recipe, key).trajectory.contacts / FPS
        removed = make_clip(recipe, key)
        np.testing.assert_array_equal(removed.frames, make_clip(BOUNCE, key).frames)
        assert _onsets_at(removed, contacts).max() < 2.5


def test_detuned_impacts_ring_outside_the_normal_range_at_the_same_moments():
    (recipe,) = KINDS["impact_detuned"]["metal_bounce"]
    assert recipe.impact_hz[0] > 1.5 * NORMAL_IMPACT_HZ[1] * 0.9
    ratios = []
    for index in range(12):
        key = f"detuned {index}"
        detuned, normal = make_clip(recipe, key), make_clip(BOUNCE, key)
        np.testing.assert_array_equal(detuned.frames, normal.frames)
        ratios.append(_strongest_hz(detuned.samples) / _strongest_hz(normal.samples))
    assert np.median(ratios) == pytest.approx(1.6, rel=0.02)


def test_reversed_gravity_pulls_up_and_leaves_sound_and_material():
    (recipe,) = KINDS["gravity_reversed"]["metal_bounce"]
    for index in range(4):
        key = f"gravity {index}"
        curvature = [np.diff(make_scene(r, key).trajectory.y, 2) for r in (BOUNCE, recipe)]
        np.testing.assert_allclose(curvature[1], -curvature[0])
        assert np.median(curvature[0]) > 0 > np.median(curvature[1])
        np.testing.assert_array_equal(
            make_clip(recipe, key).samples, make_clip(BOUNCE, key).samples
        )


@pytest.mark.parametrize("label", ["rubber_spin", "wood_conveyor"])
def test_speed_x3_is_three_times_the_motion_under_the_same_pan_and_sound(label):
    (recipe,) = KINDS["speed_x3"][label]
    key = "speed"
    slow, fast = make_scene(NORMAL[label], key), make_scene(recipe, key)
    for axis in ("x", "y", "angle"):
        np.testing.assert_allclose(
            getattr(fast.trajectory, axis), 3 * getattr(slow.trajectory, axis)
        )
    assert fast.pan_px == slow.pan_px
    np.testing.assert_array_equal(
        make_clip(recipe, key).samples, make_clip(NORMAL[label], key).samples
    )


@pytest.mark.parametrize(("kind", "material"), [("glass", "glass"), ("unseen_material", "ceramic")])
def test_an_abnormal_material_changes_nothing_but_the_look(kind, material):
    assert material in NAMES
    assert material not in {recipe.material for recipe in NORMAL.values()}
    for label, (recipe,) in KINDS[kind].items():
        assert recipe.material == material
        normal_flow, flow = (exact_flow(make_scene(r, "look")) for r in (NORMAL[label], recipe))
        np.testing.assert_array_equal(flow, normal_flow)
        np.testing.assert_array_equal(
            make_clip(recipe, "look").samples, make_clip(NORMAL[label], "look").samples
        )
        look, normal_look = make_look(recipe, "look"), make_look(NORMAL[label], "look")
        np.testing.assert_array_equal(look.background, normal_look.background)


def test_a_swapped_pairing_shows_and_sounds_as_normal_clips_do_one_at_a_time():
    """So no stream alone can find it: each picture and each sound occurs as often as among the normal clips."""
    swapped = [
        clip for clip in plan(size="small", variant="anomalies") if clip.kind == "swapped_pairing"
    ]
    assert {(c.label, c.recipe.sound) for c in swapped} == {
        (label, recipe.sound)
        for label in NORMAL
        for recipe in NORMAL.values()
        if recipe.sound != NORMAL[label].sound
    }
    assert set(Counter(clip.label for clip in swapped).values()) == {10}
    assert set(Counter(clip.recipe.sound for clip in swapped).values()) == {10}
    for clip in swapped:
        picture = NORMAL[clip.label]
        assert (clip.recipe.material, clip.recipe.motions) == (picture.material, picture.motions)
        if clip.recipe.sound == "impact":
            assert clip.recipe.impact_hz == NORMAL_IMPACT_HZ


def test_impacts_without_a_bounce_come_as_those_of_a_bounce_do():
    (recipe,) = (r for r in KINDS["swapped_pairing"]["wood_conveyor"] if r.sound == "impact")
    gaps = []
    for index in range(6):
        envelope = _envelope(make_clip(recipe, f"lonely {index}").samples)
        rises = np.flatnonzero(
            (envelope[3:] > 4 * envelope[:-3]) & (envelope[3:] > 0.4 * envelope.max())
        )
        starts = [rises[0], *(b for a, b in pairwise(rises) if b - a > 20)]
        gaps += list(np.diff(starts) / 200 * FPS)
    assert len(gaps) >= 6
    assert min(gaps) > 8  # frames; flights last 13–21 at first
    assert max(gaps) < 45  # a softer one in between may be missed


@pytest.mark.parametrize("size", sorted(ANOMALY_SIZES))
def test_every_kind_can_be_compared_with_normal_clips_of_its_classes(size):
    clips = plan(size=size, variant="anomalies")
    counts, n_per_kind = ANOMALY_SIZES[size]
    normal = Counter((clip.label, clip.split) for clip in clips if clip.kind == "normal")
    assert normal == {
        (label, split): n for label in NORMAL for split, n in zip(("train", "val", "test"), counts)
    }
    for kind, recipes_of in KINDS.items():
        mine = [clip for clip in clips if clip.kind == kind]
        assert len(mine) == n_per_kind
        assert {clip.split for clip in mine} == {"test"}
        assert set(Counter(clip.label for clip in mine).values()) == {n_per_kind // len(recipes_of)}
        assert set(recipes_of) <= set(NORMAL)


def test_the_tables_say_what_is_abnormal_and_how(tmp_path, monkeypatch):
    monkeypatch.setitem(ANOMALY_SIZES, "tiny", ((1, 1, 1), 1))
    monkeypatch.setattr(
        dataset, "KINDS", {kind: KINDS[kind] for kind in ("glass", "impact_removed")}
    )
    manifest = render(tmp_path / "w", size="tiny", variant="anomalies", n_workers=1)
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = read_kinds(manifest.parent)
    assert list(kinds) == [row["path"] for row in rows]
    assert Counter((row["anomaly"], kinds[row["path"]]) for row in rows) == {
        ("0", "normal"): 9,
        ("1", "glass"): 1,
        ("1", "impact_removed"): 1,
    }
    assert all((tmp_path / "w" / row["path"]).exists() for row in rows)
    assert {row["label"] for row in rows} == set(NORMAL)


def test_kinds_of_a_folder_without_anomalies_are_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"kinds\.csv"):
        read_kinds(tmp_path)
