"""One suite for every estimator of `flow.estimators`; a new one passes it unchanged."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow import estimators

every_estimator = pytest.mark.parametrize("name", estimators.names())


def panned_texture(
    positions: list[tuple[float, float]], height: int = 72, width: int = 96, sigma: float = 2.0
) -> np.ndarray:
    """Pictures of a coloured random texture that has moved to each position (x right, y down), px."""
    margin = 16
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(height + 2 * margin, width + 2 * margin, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), sigma)
    texture = 128 + 40 * texture / texture.std()
    frames = []
    for x, y in positions:
        shift = np.array([[1, 0, x - margin], [0, 1, y - margin]], dtype=np.float32)
        frames.append(cv2.warpAffine(texture, shift, (width, height), flags=cv2.INTER_CUBIC))
    return np.stack(frames).round().clip(0, 255).astype(np.uint8)


@every_estimator
@pytest.mark.parametrize("size", [(72, 96), (63, 65), (145, 191)])
@pytest.mark.parametrize("motion", [(2.0, 0.0), (-2.0, 0.0), (0.0, 3.0), (0.0, -3.0), (1.5, -2.5), (-0.5, 0.5)])
def test_a_planted_translation_is_found_with_its_signs(name, size, motion):
    estimator = estimators.load(name)
    flow = estimator(panned_texture([(0, 0), motion], *size))
    np.testing.assert_allclose(flow[0].mean(axis=(1, 2)), motion, atol=estimator.tolerance_px)
    np.testing.assert_allclose(np.median(flow[0], axis=(1, 2)), motion, atol=estimator.tolerance_px)


@every_estimator
@pytest.mark.parametrize("size", [(72, 96), (63, 65), (240, 320)])
def test_a_still_scene_does_not_move(name, size):
    flow = estimators.load(name)(panned_texture([(0, 0), (0, 0)], *size))
    assert np.hypot(flow[:, 0], flow[:, 1]).max() < 0.05


@every_estimator
def test_each_field_belongs_to_its_pair_of_pictures_in_order(name):
    estimator = estimators.load(name)
    positions = [(0, 0), (2, 0), (2, 3), (0, 3), (0, 3), (1, 1)]
    frames = panned_texture(positions)
    flow = estimator(frames)
    np.testing.assert_allclose(
        flow.mean(axis=(2, 3)), np.diff(positions, axis=0), atol=estimator.tolerance_px, err_msg=name
    )
    for t in range(len(frames) - 1):
        np.testing.assert_array_equal(flow[t], estimator(frames[t : t + 2])[0])


@every_estimator
def test_an_object_moves_where_it_is_and_the_ground_stays(name):
    ground = panned_texture([(0, 0), (0, 0)], 144, 192)
    body = panned_texture([(40, 0)], 144, 192)[0, 40:104, 60:124]
    frames = ground.copy()
    frames[0, 40:104, 60:124] = body
    frames[1, 40:104, 63:127] = body
    flow = estimators.load(name)(frames)[0]
    assert np.median(flow[0, 52:92, 72:112]) == pytest.approx(3, abs=0.8)
    assert np.abs(np.median(flow[:, :, :40], axis=(1, 2))).max() < 0.1
    assert np.abs(np.median(flow[:, :, 150:], axis=(1, 2))).max() < 0.1


@every_estimator
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 50), (2, 3), (31, 33), (12, 100), (3, 200), (100, 12), (20, 500), (500, 9)]
)
def test_pictures_of_any_size_give_finite_float32_fields_of_that_size(name, size):
    flow = estimators.load(name)(panned_texture([(0, 0), (1, 0), (2, 0)], *size))
    assert flow.shape == (2, 2, *size)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


@every_estimator
def test_tiny_pictures_still_show_the_motion(name):
    flow = estimators.load(name)(panned_texture([(0, 0), (1, 0)], 24, 28, sigma=1.5))
    np.testing.assert_allclose(np.median(flow[0], axis=(1, 2)), (1, 0), atol=0.3)


@every_estimator
def test_a_single_picture_has_no_motion(name):
    flow = estimators.load(name)(panned_texture([(0, 0)], 20, 30))
    assert flow.shape == (0, 2, 20, 30)
    assert flow.dtype == np.float32


@every_estimator
def test_flow_depends_neither_on_threads_nor_on_a_second_call(name):
    estimator = estimators.load(name)
    frames = panned_texture([(1.3 * t, 0.7 * t) for t in range(4)], 120, 160)
    n_threads = cv2.getNumThreads()
    try:
        flows = []
        for n in (1, 2, 5):
            cv2.setNumThreads(n)
            flows.append(estimator(frames))
    finally:
        cv2.setNumThreads(n_threads)
    with ThreadPoolExecutor(4) as pool:
        flows += pool.map(estimator, [frames] * 8)
    for flow in flows[1:]:
        np.testing.assert_array_equal(flow, flows[0])


@every_estimator
def test_frames_that_are_views_give_the_same_flow(name):
    estimator = estimators.load(name)
    frames = panned_texture([(0, 0), (1, 0), (2, 0), (3, 0)])
    np.testing.assert_array_equal(estimator(frames[::2, 3:, 5:]), estimator(frames[::2, 3:, 5:].copy()))
    reversed_colours = frames[..., ::-1]
    np.testing.assert_array_equal(estimator(reversed_colours), estimator(reversed_colours.copy()))


@every_estimator
def test_pictures_are_rgb_and_only_their_luma_counts(name):
    estimator = estimators.load(name)
    frames = panned_texture([(0, 0), (1.5, -1)])
    luma = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    np.testing.assert_array_equal(estimator(frames), estimator(np.repeat(luma[..., None], 3, axis=3)))


@every_estimator
def test_a_loaded_estimator_names_itself_by_a_loadable_name(name):
    canonical = estimators.load(name).name
    assert canonical in estimators.names()
    assert estimators.load(canonical).name == canonical


def test_dis_alone_is_its_fast_preset_and_the_presets_differ():
    assert estimators.load("dis").name == "dis_fast"
    frames = panned_texture([(0, 0), (2.5, 1.5)], 240, 320)
    flows = [estimators.load(f"dis_{preset}")(frames) for preset in ("ultrafast", "fast", "medium")]
    assert not np.array_equal(flows[0], flows[1])
    assert not np.array_equal(flows[1], flows[2])


def test_every_file_of_the_folder_is_listed():
    files = {path.stem for path in Path(estimators.__file__).parent.glob("*.py")} - {"__init__"}
    for file in files:
        assert any(name.startswith(file) for name in estimators.names())


def test_names_are_listed_without_importing_opencv():
    code = "import sys; from flow import estimators; estimators.names(); sys.exit('cv2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


def test_an_unknown_estimator_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"unknown flow estimator 'tvl1'; available: .*dis, .*farneback"):
        estimators.load("tvl1")
