"""One suite for every estimator of `flow.estimators`; a new one passes it unchanged.

Learned ones have random weights here, which show the structure; truth is asked of those whose trained weights are here.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from tristream.flow import estimators

LEARNED = [name for name in estimators.names() if estimators.is_learned(name)]
CLASSICAL = [name for name in estimators.names() if name not in LEARNED]
QUICK = ("flownetc", "flownets", "raft_small")


def marked(name: str) -> object:
    if name in CLASSICAL or name in QUICK:
        return name
    return pytest.param(name, marks=pytest.mark.slow)


every_estimator = pytest.mark.parametrize("name", [marked(name) for name in estimators.names()])
every_learned = pytest.mark.parametrize("name", [marked(name) for name in LEARNED])
every_classical = pytest.mark.parametrize("name", CLASSICAL)
with_truth = pytest.mark.parametrize("name", estimators.names())


@functools.cache
def load(name: str) -> estimators.FlowEstimator:
    """The estimator, with random weights where it learns."""
    if name.startswith("flownet") and importlib.util.find_spec("ptlflow") is None:
        pytest.skip("ptlflow is not installed")
    return estimators.load(name, weights=0 if name in LEARNED else None)


@functools.cache
def load_trained(name: str) -> estimators.FlowEstimator:
    """The estimator with the weights it was published with."""
    if name in CLASSICAL:
        return estimators.load(name)
    weights = Path(os.environ.get("TRISTREAM_WEIGHTS", "nowhere")) / f"{name}.safetensors"
    if not weights.is_file():
        pytest.skip(f"no trained weights of {name} here")
    return estimators.load(name, weights=weights)


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


@with_truth
@pytest.mark.parametrize("size", [(72, 96), (63, 65), (145, 191)])
@pytest.mark.parametrize(
    "motion", [(2.0, 0.0), (-2.0, 0.0), (0.0, 3.0), (0.0, -3.0), (1.5, -2.5), (-0.5, 0.5)]
)
def test_a_planted_translation_is_found_with_its_signs(name, size, motion):
    estimator = load_trained(name)
    flow = estimator(panned_texture([(0, 0), motion], *size))
    np.testing.assert_allclose(flow[0].mean(axis=(1, 2)), motion, atol=estimator.tolerance_px)
    np.testing.assert_allclose(np.median(flow[0], axis=(1, 2)), motion, atol=estimator.tolerance_px)


@with_truth
@pytest.mark.parametrize("size", [(72, 96), (63, 65), (240, 320)])
def test_a_still_scene_does_not_move(name, size):
    flow = load_trained(name)(panned_texture([(0, 0), (0, 0)], *size))
    assert np.hypot(flow[:, 0], flow[:, 1]).max() < 0.05


@with_truth
def test_a_path_is_found_step_by_step(name):
    estimator = load_trained(name)
    positions = [(0, 0), (2, 0), (2, 3), (0, 3), (0, 3), (1, 1)]
    flow = estimator(panned_texture(positions))
    np.testing.assert_allclose(
        flow.mean(axis=(2, 3)),
        np.diff(positions, axis=0),
        atol=estimator.tolerance_px,
        err_msg=name,
    )


@every_estimator
def test_each_field_belongs_to_its_pair_of_pictures_in_order(name):
    estimator = load(name)
    frames = panned_texture([(0, 0), (2, 0), (2, 3), (0, 3)])
    flow = estimator(frames)
    for t in range(len(frames) - 1):
        np.testing.assert_array_equal(flow[t], estimator(frames[t : t + 2])[0])
    assert np.abs(estimator(frames[1::-1])[0] - flow[0]).max() > 1e-3


@with_truth
def test_an_object_moves_where_it_is_and_the_ground_stays(name):
    ground = panned_texture([(0, 0), (0, 0)], 144, 192)
    body = panned_texture([(40, 0)], 144, 192)[0, 40:104, 60:124]
    frames = ground.copy()
    frames[0, 40:104, 60:124] = body
    frames[1, 40:104, 63:127] = body
    flow = load_trained(name)(frames)[0]
    assert np.median(flow[0, 52:92, 72:112]) == pytest.approx(3, abs=0.8)
    assert np.abs(np.median(flow[:, :, :40], axis=(1, 2))).max() < 0.1
    assert np.abs(np.median(flow[:, :, 150:], axis=(1, 2))).max() < 0.1


@every_estimator
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 50), (2, 3), (31, 33), (12, 100), (3, 200), (100, 12), (20, 500), (500, 9)]
)
def test_pictures_of_any_size_give_finite_float32_fields_of_that_size(name, size):
    flow = load(name)(panned_texture([(0, 0), (1, 0), (2, 0)], *size))
    assert flow.shape == (2, 2, *size)
    assert flow.dtype == np.float32
    assert np.isfinite(flow).all()


@with_truth
def test_tiny_pictures_still_show_the_motion(name):
    flow = load_trained(name)(panned_texture([(0, 0), (1, 0)], 24, 28, sigma=1.5))
    np.testing.assert_allclose(np.median(flow[0], axis=(1, 2)), (1, 0), atol=0.3)


@every_estimator
def test_a_single_picture_has_no_motion(name):
    flow = load(name)(panned_texture([(0, 0)], 20, 30))
    assert flow.shape == (0, 2, 20, 30)
    assert flow.dtype == np.float32


@every_estimator
def test_flow_depends_neither_on_threads_nor_on_a_second_call(name):
    estimator = load(name)
    frames = panned_texture(
        [(1.3 * t, 0.7 * t) for t in range(2 if name in LEARNED else 4)], 120, 160
    )
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
    estimator = load(name)
    frames = panned_texture([(0, 0), (1, 0), (2, 0), (3, 0)])
    np.testing.assert_array_equal(
        estimator(frames[::2, 3:, 5:]), estimator(frames[::2, 3:, 5:].copy())
    )
    reversed_colours = frames[..., ::-1]
    np.testing.assert_array_equal(estimator(reversed_colours), estimator(reversed_colours.copy()))


@every_classical
def test_pictures_are_rgb_and_only_their_luma_counts(name):
    estimator = load(name)
    frames = panned_texture([(0, 0), (1.5, -1)])
    luma = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    np.testing.assert_array_equal(
        estimator(frames), estimator(np.repeat(luma[..., None], 3, axis=3))
    )


@every_estimator
def test_a_loaded_estimator_names_itself_by_a_loadable_name(name):
    canonical = load(name).name
    assert canonical in estimators.names()
    assert load(canonical).name == canonical
    assert load(name).identity.startswith(canonical)


@every_learned
def test_a_pair_does_not_depend_on_its_batch(name):
    import torch

    estimator = load(name)
    frames = panned_texture([(0, 0), (3, 1), (1, 2), (-2, 0)], 64, 96)
    pairs = torch.from_numpy(np.stack([frames[:2], frames[1:3], frames[2:]]))
    with torch.inference_mode():
        together = estimator.network(pairs).numpy()
    np.testing.assert_allclose(together, estimator(frames), atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 1e-3  # ten times what is allowed above


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


def test_names_are_listed_without_importing_heavy_libraries():
    heavy = "{'cv2', 'torch', 'torchvision', 'ptlflow'}"
    code = "import sys; from tristream.flow import estimators; estimators.names(); "
    code += f"sys.exit(bool({heavy} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


def test_an_unknown_estimator_is_refused_with_the_names_there_are():
    with pytest.raises(
        ValueError, match=r"unknown flow estimator 'tvl1'; available: .*dis, .*farneback"
    ):
        estimators.load("tvl1")
