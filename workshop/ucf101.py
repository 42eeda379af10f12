"""Rendered videos with the layout, names, encoding and lists of UCF101, to rehearse a run on the real data set.

    ROOT/Archery/v_Archery_g08_c01.avi …      ROOT/lists/{classInd,trainlist01,testlist01}.txt

Traps of the original are kept: lists end their lines with CR LF and count classes from 1, the test list has no class
column, and the files of the folder HandstandPushups are spelled v_HandStandPushups_….
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from tristream.media.encode import write_bytes, write_video
from tristream.workshop.classes import MOTION
from tristream.workshop.clips import FPS, make_clip
from tristream.workshop.sounds import SAMPLE_RATE

# Classes of UCF101, and the motion of the workshop that each shows.
CLASSES = dict(zip(("Archery", "HandstandPushups", "PlayingGuitar", "YoYo"), MOTION, strict=True))
TRAIN_GROUPS, TEST_GROUPS = (8, 9, 10), (1, 2)  # of the official split 1: 8 … 25 and 1 … 7
N_CLIPS = 2  # of each group
SIZE_PX = (240, 320)
_MISSPELT = {"HandstandPushups": "HandStandPushups"}


def render(
    root: Path,
    *,
    n_frames: int = 26,
    seed: int = 0,
    n_workers: int = 2,
    progress: Callable[[int, int], None] = lambda n_done, n_total: None,
) -> Path:
    """Render the missing videos and write the lists; return the folder of the lists.

    Args:
        root: becomes the folder of the class folders.
        n_frames: of each video, at 25 fps and 320 × 240 px; at most 60.
        seed: random seed.
        n_workers: processes.
        progress: (videos done, videos in all).
    """
    videos = [
        (label, f"{label}/v_{_MISSPELT.get(label, label)}_g{group:02d}_c{clip:02d}.avi")
        for label in CLASSES
        for group in (*TRAIN_GROUPS, *TEST_GROUPS)
        for clip in range(1, N_CLIPS + 1)
    ]
    for label in CLASSES:
        (root / label).mkdir(parents=True, exist_ok=True)
    jobs = [(root / path, label, f"ucf101/{seed}/{path}", n_frames) for label, path in videos]
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for n_done, _ in enumerate(pool.map(_render_one, *zip(*jobs, strict=True)), start=1):
            progress(n_done, len(jobs))
    lists = root / "lists"
    lists.mkdir(exist_ok=True)
    numbers = {label: number for number, label in enumerate(CLASSES, start=1)}
    train = [f"{path} {numbers[label]}" for label, path in videos if _group(path) in TRAIN_GROUPS]
    test = [path for _, path in videos if _group(path) in TEST_GROUPS]
    contents = {
        "classInd": [f"{n} {label}" for label, n in numbers.items()],
        "trainlist01": train,
        "testlist01": test,
    }
    for name, lines in contents.items():
        write_bytes(lists / f"{name}.txt", "".join(f"{line}\r\n" for line in lines).encode())
    return lists


def _group(path: str) -> int:
    return int(path.rpartition("_g")[2][:2])


def _render_one(path: Path, label: str, key: str, n_frames: int) -> None:
    if path.exists():
        return
    height, width = SIZE_PX
    clip = make_clip(MOTION[CLASSES[label]], key, side_px=height)
    margin = (width - height) // 2
    frames = np.pad(
        clip.frames[:n_frames], ((0, 0), (0, 0), (margin, margin), (0, 0)), mode="reflect"
    )
    samples = clip.samples[: n_frames * SAMPLE_RATE // FPS]
    write_video(path, frames, fps=FPS, samples=samples, sample_rate=SAMPLE_RATE, codecs="xvid_mp3")
