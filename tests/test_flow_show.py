from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tristream.flow.sheet import (
    CURVE_HEIGHT_PX,
    common_radius,
    contact_sheet,
    motion_curve,
    side_by_side,
)

HOME = Path(__file__).parents[1]
RED, BLUE = (214, 69, 65), (38, 110, 190)


def columns_of(picture: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """Columns that hold this very colour."""
    return np.flatnonzero((picture == colour).all(axis=2).any(axis=0)).tolist()


def test_the_curve_has_a_tick_at_every_chosen_frame_and_a_line_at_the_present_one():
    motion = np.linspace(0, 2, 100)  # 101 frames, from column 6 to column 206
    curve = motion_curve(motion, np.array([0, 50, 100]), width=213)
    assert curve.shape == (CURVE_HEIGHT_PX, 213, 3)
    assert columns_of(curve, RED) == [6, 106, 206]
    assert columns_of(motion_curve(motion, np.array([0]), width=213, now=25), BLUE) == [56]


def test_the_curve_rises_with_the_motion():
    """Its lowest ink, row by row: a step up in the middle."""
    curve = motion_curve(np.repeat([0.0, 1.0], 50), np.array([], int), width=213)[16:80]
    dark = (curve < 150).all(axis=2)
    left, right = (np.flatnonzero(part.any(axis=1)) for part in (dark[:, 20:90], dark[:, 125:190]))
    assert len(left) == 0  # at the bottom, below the part that is looked at
    assert len(right) > 0


def test_no_motion_at_all_is_a_flat_curve():
    assert motion_curve(np.zeros(5), np.array([1]), width=100).shape == (CURVE_HEIGHT_PX, 100, 3)


def test_every_step_shows_its_frame_its_flow_and_whether_it_is_chosen():
    frames = np.full((4, 31, 40, 3), 90, np.uint8)
    flow = np.zeros((3, 2, 31, 40), np.float32)
    flow[1, 0] = 5.0  # to the right: red
    pages = list(side_by_side(frames, flow, np.array([0.0, 5.0, 0.0]), np.array([2])))
    assert len(pages) == 3
    assert {page.shape for page in pages} == {(128, 84, 3)}  # 31 + 96, made even
    assert (pages[0][10, :40] == 90).all()
    assert (pages[0][10, 44:84] == 255).all()
    right = pages[1][10, 60].astype(int)
    assert right[0] > 200
    assert right[1:].max() < 60
    assert tuple(pages[2][0, 0]) == RED


def test_the_contact_sheet_has_a_cell_for_every_chosen_frame():
    frames = (
        np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(30, 1).repeat(40, 2).repeat(3, 3)
        * 20
    )
    flow = np.zeros((9, 2, 30, 40), np.float32)
    sheet = contact_sheet(
        frames,
        flow,
        np.ones(9),
        np.array([1, 4, 9]),
        np.arange(10) / 25,
        n_columns=2,
        cell_width=80,
    )
    cell = 14 + 60 + 2 + 60 + 4
    assert sheet.shape == (CURVE_HEIGHT_PX + 2 * cell, 2 * 84, 3)
    middles = [
        sheet[CURVE_HEIGHT_PX + 40 + row * cell, 40 + column * 84, 0]
        for row in (0, 1)
        for column in (0, 1)
    ]
    assert middles == [20, 80, 180, 255]  # the fourth cell is empty


def test_one_wild_vector_does_not_wash_out_the_colours_of_a_video():
    flow = np.full((5, 2, 40, 40), 3.0, np.float32)
    flow[2, 0, 3, 4] = 500
    assert common_radius(flow) == pytest.approx(np.hypot(3, 3))
    assert common_radius(np.zeros((2, 2, 4, 4), np.float32)) == 1


def tristream(*arguments):
    command = [sys.executable, HOME / "orchestrate.py", "flow", "show", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=HOME)


def test_flow_show_writes_a_sheet_and_a_video(tmp_path):
    from tristream.media.decode import decode_video
    from tristream.media.encode import write_video
    from tristream.workshop.clips import Recipe, make_clip

    write_video(
        tmp_path / "v.mp4", make_clip(Recipe(motions=("conveyor",)), "show").frames[:20], fps=25
    )
    done = tristream(
        tmp_path / "v.mp4",
        "--set",
        "sampler.n_samples=6",
        "--set",
        "sampler.n_segments=3",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["chosen"]) == 6
    assert len(found["motion_px"]) == 19
    assert min(found["motion_px"]) > 0.2  # a conveyor never rests
    assert cv2.imread(str(tmp_path / "v-flow.png")).shape[1] == 6 * 164
    done = tristream(tmp_path / "v.mp4", "--out", tmp_path / "side.mp4", "--estimator", "farneback")
    assert done.returncode == 0, done.stderr
    assert decode_video(tmp_path / "side.mp4", max_side=500).frames.shape == (
        19,
        64 + 96,
        2 * 64 + 4,
        3,
    )


def test_flow_show_says_what_it_cannot_do(tmp_path):
    done = tristream(tmp_path / "v.mp4", "--out", "v.gif")
    assert done.returncode == 2
    assert "ends in '.gif'; it must be NAME.mp4" in done.stderr
    (tmp_path / "v.mp4").write_bytes(b"no video")
    done = tristream(tmp_path / "v.mp4")
    assert done.returncode == 3, done.stderr
    done = tristream(tmp_path / "v.mp4", "--estimator", "tvl1")
    assert done.returncode == 2
    assert "unknown flow estimator 'tvl1'" in done.stderr
