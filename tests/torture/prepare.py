"""Inputs of the scripts in this folder: a small run with trained streams, and videos to embed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[2]
sys.path.insert(0, str(HOME))
TRISTREAM = [sys.executable, str(HOME / "orchestrate.py")]
QUICK = [
    "--preset",
    "workshop",
    "--deterministic",
    "--device",
    "cpu",
    "--set",
    "sampler.n_samples=4",
]


def render(
    folder: Path, n_videos: int, *, seconds: float = 1.2, label: str = "", side: int | None = None
) -> Path:
    """Write so many clips of the workshop, half of them bouncing with a knock, half spinning with a hum.

    Args:
        folder: made; with `label` = "class" each class has a folder of its own in it.
        n_videos: in all.
        seconds: of each; the workshop's clips are repeated to fill longer ones.
        label: "class" or "".
        side: px; None keeps the workshop's size.
    """
    import cv2
    import numpy as np

    from tristream.media.encode import write_video
    from tristream.workshop.clips import FPS, Recipe, make_clip

    kinds = {
        "bounce": Recipe(motions=("bounce",), sound="impact"),
        "spin": Recipe(motions=("spin",), sound="hum"),
    }
    n_frames = round(seconds * FPS)
    for index in range(n_videos):
        name = sorted(kinds)[index % 2]
        clip = make_clip(kinds[name], f"{name}-{index}")
        n_repeats = -(-n_frames // len(clip.frames))
        frames = np.tile(clip.frames, (n_repeats, 1, 1, 1))[:n_frames]
        if side is not None:
            frames = np.stack(
                [
                    cv2.resize(frame, (side, side), interpolation=cv2.INTER_LINEAR)
                    for frame in frames
                ]
            )
        samples = np.tile(clip.samples, n_repeats)[: round(16_000 * seconds)]
        path = folder / (name if label else "") / f"{index:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, frames, fps=FPS, samples=samples)
    return folder


def quick(name: str, epochs: int = 1) -> list[str]:
    """Arguments of a `train-stream` that takes seconds."""
    phases = ("encoder_training", "aggregator_training")
    return [
        *QUICK,
        *(
            word
            for phase in phases
            for word in ("--set", f"streams.{name}.{phase}.epochs={epochs}")
        ),
    ]


def train(folder: Path) -> Path:
    """A run in which every stream has learned a little; returns its folder."""
    from tristream import streams

    run = folder / "run"
    common = ["--run", str(run)]
    tristream("index", "--data", str(render(folder / "training", 16, label="class")), *common)
    for name in streams.names():
        tristream("train-stream", name, *common, "--cache", str(folder / "cache"), *quick(name))
    return run


def tristream(*arguments: str, codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end.

    Raises:
        RuntimeError: another exit code, with what it said.
    """
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [*TRISTREAM, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode not in codes:
        raise RuntimeError(
            f"tristream {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    return done
