"""Neutral parts are independent of the class: simple classifiers on them stay at chance."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tristream.workshop.classes import APPEARANCE, CLASSES, MOTION, ORDER, SOUND
from tristream.workshop.clips import (
    FPS,
    N_FRAMES,
    Recipe,
    generator,
    make_clip,
    make_look,
    make_scene,
)
from tristream.workshop.scene import SEAM_PX, body_masks, draw, exact_flow, expose
from tristream.workshop.sounds import SAMPLE_RATE, make_sound

N_PER_CLASS = 24


def _accuracies(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Cross-validated accuracy of a linear and a curved classifier."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    classifiers = {
        "linear": make_pipeline(
            StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        ),
        "curved": make_pipeline(StandardScaler(), SVC(C=1.0)),
    }
    return {
        name: cross_val_score(c, features, labels, cv=folds).mean()
        for name, c in classifiers.items()
    }


def _at_most(n_classes: int, n_clips: int) -> float:
    """Chance and three standard errors."""
    return 1 / n_classes + 3 * np.sqrt((1 / n_classes) * (1 - 1 / n_classes) / n_clips)


def _frame_statistics(frame: np.ndarray) -> np.ndarray:
    """Grey levels, edges and their spread over places: what a camouflaged body could change."""
    grey = frame.mean(axis=2)
    scaled = (grey - grey.mean()) / grey.std()
    edges = np.hypot(scaled - np.roll(scaled, 1, 0), scaled - np.roll(scaled, 1, 1))
    curvature = np.abs(4 * scaled - sum(np.roll(scaled, s, a) for s in (1, -1) for a in (0, 1)))
    features = [frame.mean((0, 1)), [grey.std(), edges.std(), curvature.std()]]
    for image in (scaled, scaled**2, edges, curvature):
        coarse = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)
        features.append(np.quantile(coarse, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]))
        features.append([coarse.std(), np.abs(np.fft.fft2(coarse))[:3, :3].mean()])
    return np.concatenate(features)


def _first_frame(recipe: Recipe, key: str) -> np.ndarray:
    scene, look = make_scene(recipe, key), make_look(recipe, key)
    return expose(draw(scene, look)[30:31], generator(key, "noise"), noise=look.noise)[0]


@pytest.mark.slow
def test_no_single_frame_shows_a_class_that_is_not_made_of_a_material():
    classes = MOTION | SOUND | ORDER
    frames = {
        name: [_first_frame(r, f"frame {name} {i}") for i in range(N_PER_CLASS)]
        for name, r in classes.items()
    }
    features = np.array([_frame_statistics(frame) for clips in frames.values() for frame in clips])
    accuracies = _accuracies(features, np.repeat(np.arange(len(classes)), N_PER_CLASS))
    assert max(accuracies.values()) < _at_most(len(classes), len(features)), accuracies


def test_the_same_statistics_do_tell_materials():
    """The classifier above is no straw man: on the four materials it is nearly always right."""
    frames = [
        _first_frame(r, f"material {n} {i}") for n, r in APPEARANCE.items() for i in range(16)
    ]
    accuracies = _accuracies(
        np.array([_frame_statistics(f) for f in frames]), np.repeat(np.arange(4), 16)
    )
    assert max(accuracies.values()) > 0.8, accuracies


def test_inside_a_camouflaged_body_and_across_its_seam_the_texture_is_the_backgrounds():
    inside, outside, seam = [], [], []
    for index in range(60):
        recipe, key = Recipe(motions=("spin",)), f"camouflage {index}"
        scene = make_scene(recipe, key)
        look = make_look(recipe, key)
        grey = (
            (draw(scene, look)[40] / np.array(look.tint, np.float32)).mean(axis=2) - look.grey
        ) / look.contrast
        across = (np.roll(grey, -1, 1) - grey) ** 2
        wrapped = np.pad(body_masks(scene)[40].astype(np.uint8), 16, mode="wrap")
        reach = np.ones((2 * int(SEAM_PX) + 3,) * 2, np.uint8)
        core, wide = (
            cv2.erode(wrapped, reach)[16:-16, 16:-16] > 0,
            cv2.dilate(wrapped, reach)[16:-16, 16:-16] > 0,
        )
        for store, where in ((inside, core), (outside, ~wide), (seam, wide & ~core)):
            store.append([np.mean(grey[where] ** 2), np.mean(across[where])])
    inside, outside, seam = (np.mean(values, axis=0) for values in (inside, outside, seam))
    np.testing.assert_allclose(inside, outside, rtol=0.06)
    assert seam[0] == pytest.approx(outside[0], rel=0.08)  # variance
    assert (
        seam[1] < 1.25 * outside[1]
    )  # squared differences of neighbours; a cut without a seam gives 3 times these


@pytest.mark.slow
def test_mean_flow_length_is_flat_over_the_classes():
    """Relative to the pan within 12 %; with the pan it does not tell the eight moving classes from one another."""
    relative, total = {}, {}
    for name, recipe in CLASSES.items():
        scenes = [make_scene(recipe, f"flat {name} {index}") for index in range(40)]
        flows = [exact_flow(scene)[::3] for scene in scenes]
        total[name] = [np.hypot(flow[:, 0], flow[:, 1]).mean() for flow in flows]
        relative[name] = [
            np.hypot(flow[:, 0] - scene.pan_px[0], flow[:, 1] - scene.pan_px[1]).mean()
            / body_masks(scene)[0].mean()
            for flow, scene in zip(flows, scenes, strict=True)
        ]
    means = np.array([np.mean(values) for values in relative.values()])
    assert np.abs(means / means.mean() - 1).max() < 0.12, dict(
        zip(relative, means.round(3), strict=True)
    )
    moving = [name for name in CLASSES if name in MOTION | ORDER]
    features = np.array([[value] for name in moving for value in total[name]])
    accuracies = _accuracies(features, np.repeat(np.arange(len(moving)), 40))
    assert max(accuracies.values()) < _at_most(len(moving), len(features)), accuracies


def _loudness(samples: np.ndarray) -> list[float]:
    return [20 * np.log10(np.sqrt(np.mean(samples**2)))]


def _band_levels(samples: np.ndarray) -> np.ndarray:
    """Log energies of 12 bands and how they vary over time."""
    spectra = np.abs(np.fft.rfft(samples.reshape(-1, 800) * np.hanning(800), axis=1)) ** 2
    bands = np.log(
        np.add.reduceat(spectra, np.unique(np.geomspace(2, 380, 12).astype(int)), axis=1)
    )
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0)])


def _sounds_of(classes: dict[str, Recipe], n: int) -> list[np.ndarray]:
    n_samples = N_FRAMES * SAMPLE_RATE // FPS
    return [
        make_sound(recipe.sound, generator(f"sound {name} {index}", "sound"), n_samples)
        for name, recipe in classes.items()
        for index in range(n)
    ]


@pytest.mark.slow
def test_loudness_does_not_tell_the_sounds_and_spectra_do():
    clips = _sounds_of(SOUND | {"neutral": Recipe()}, 40)
    labels = np.repeat(np.arange(5), 40)
    loudness = _accuracies(np.array([_loudness(samples) for samples in clips]), labels)
    assert max(loudness.values()) < _at_most(5, len(clips)), loudness
    spectra = _accuracies(np.array([_band_levels(samples) for samples in clips]), labels)
    assert max(spectra.values()) > 0.9, spectra


@pytest.mark.slow
def test_sounds_of_the_classes_without_a_sound_are_alike():
    clips = _sounds_of(APPEARANCE | MOTION | ORDER, N_PER_CLASS)
    accuracies = _accuracies(
        np.array([_band_levels(s) for s in clips]), np.repeat(np.arange(12), N_PER_CLASS)
    )
    assert max(accuracies.values()) < _at_most(12, len(clips)), accuracies


@pytest.mark.slow
def test_brightness_pan_and_noise_are_drawn_alike_for_every_class():
    features, labels = [], []
    for label, (name, recipe) in enumerate(CLASSES.items()):
        for index in range(N_PER_CLASS):
            key = f"nuisance {name} {index}"
            scene, look = make_scene(recipe, key), make_look(recipe, key)
            features.append(
                [
                    *scene.pan_px,
                    *scene.start_px,
                    scene.radius_px,
                    look.grey,
                    look.contrast,
                    look.noise,
                ]
            )
            labels.append(label)
    accuracies = _accuracies(np.array(features), np.array(labels))
    assert max(accuracies.values()) < _at_most(len(CLASSES), len(labels)), accuracies


def test_every_clip_has_sound():
    for name, recipe in CLASSES.items():
        samples = make_clip(recipe, f"heard {name}").samples
        assert len(samples) == 38400
        assert _loudness(samples)[0] > -38.5
