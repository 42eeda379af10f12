"""Inputs of the benches: the user's videos, or workshop clips of realistic length and size."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tristream.errors import TristreamError

VIDEO_SUFFIXES = {".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv"}
N_CLIPS = 16
CLIP_FRAMES = 175  # 7 s at 25 fps: a clip of UCF101
CLIP_SIZE = (240, 320)
_PARTS = ("bounce", "spin", "conveyor")  # motions that follow one another in a clip
_DRAWN_PX = 80  # side of the square that is rendered, then enlarged: rendering large ones takes seconds a clip


@dataclass(frozen=True)
class Subject:
    """Inputs that every bench receives.

    Attributes:
        videos: files to measure on.
        described: what they are, for the table.
        scratch: an empty folder that is removed afterwards.
        repeats: how often each of a pair is timed; medians are compared.
        seed: of random weights, where a network's own are not there.
        weights_dir: where a network's own weights lie; None: nowhere.
        flow_pairs: folder of picture pairs with their true flow; None: none.
    """

    videos: Sequence[Path]
    described: str
    scratch: Path
    repeats: int = 5
    seed: int = 0
    weights_dir: Path | None = None
    flow_pairs: Path | None = None

    def pictures(self) -> np.ndarray:
        """Return the first video's frames, (T, H, W, 3) uint8, at most 320 px on their longer side."""
        from tristream.media.sandbox.pool import DecodePool

        with DecodePool(1) as pool:
            frames = pool.submit(self.videos[0], sound=False, max_side=320).result().frames
        assert frames is not None, "a decoded video without sound has pictures"
        return frames


@contextmanager
def subject(
    data: Path | None,
    *,
    repeats: int = 5,
    seed: int = 0,
    weights_dir: Path | None = None,
    n_videos: int = N_CLIPS,
    flow_pairs: Path | None = None,
) -> Iterator[Subject]:
    """The videos under `data`, or rendered clips of 7 s.

    Raises:
        TristreamError: there is no video under `data`.
    """
    with tempfile.TemporaryDirectory(prefix="tristream-bench-") as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        if data is None:
            videos = render_clips(Path(folder) / "clips", n_videos)
            height, width = CLIP_SIZE
            described = f"{len(videos)} rendered clips of {CLIP_FRAMES} frames, {width}x{height}, H.264 and AAC"
        else:
            videos = [
                path for path in sorted(data.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES
            ][:n_videos]
            if not videos:
                raise TristreamError(
                    f"--data {data} holds no video ({', '.join(sorted(VIDEO_SUFFIXES))})"
                )
            described = f"{len(videos)} videos of {data.name}"
        yield Subject(videos, described, scratch, repeats=repeats, seed=seed, weights_dir=weights_dir,
                      flow_pairs=flow_pairs)  # fmt: skip


def render_clips(
    folder: Path, n: int, *, n_frames: int = CLIP_FRAMES, size: tuple[int, int] = CLIP_SIZE
) -> list[Path]:
    """Clips of the workshop, several in a row until one is `n_frames` long, enlarged, mirrored at the sides."""
    import cv2

    from tristream.media.encode import write_video
    from tristream.workshop.clips import FPS, Recipe, make_clip

    height, width = size
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(n):
        frames: list[np.ndarray] = []
        samples: list[np.ndarray] = []
        while sum(len(part) for part in frames) < n_frames:
            n_parts = len(frames)
            recipe = Recipe(motions=(_PARTS[n_parts % len(_PARTS)],), sound="impact")
            clip = make_clip(recipe, f"bench-{index}-{n_parts}", side_px=_DRAWN_PX)
            side = (min(size), min(size))
            frames.append(
                np.stack([cv2.resize(f, side, interpolation=cv2.INTER_CUBIC) for f in clip.frames])
            )
            samples.append(clip.samples)
        beside = [(0, 0), _around(height, min(size)), _around(width, min(size)), (0, 0)]
        path = folder / f"{index:03d}.mp4"
        pictures = np.pad(np.concatenate(frames)[:n_frames], beside, mode="symmetric")
        write_video(
            path, pictures, fps=FPS, samples=np.concatenate(samples)[: n_frames * 16_000 // FPS]
        )
        paths.append(path)
    return paths


def _around(wanted: int, have: int) -> tuple[int, int]:
    return (wanted - have) // 2, wanted - have - (wanted - have) // 2
