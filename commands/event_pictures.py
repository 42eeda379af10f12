"""detect --save: per event a short clip and a strip of frames with its score and its causes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from commands.workspace import decode_pool
from store.atomic import write_bytes

if TYPE_CHECKING:
    from fusion.window_scores import Timeline
    from media.limits import Limits

MARGIN_SECONDS = 1.0  # shown before and after an event
AROUND_SECONDS = 15.0  # of the score curve, before and after
MAX_CLIP_SECONDS = 20.0
MAX_SIDE_PX = 320
MAX_EVENTS = 50  # a video, the highest first; a threshold that is too low would fill the disk


def save_events(
    folder: Path,
    path: Path,
    line: Timeline,
    events: Sequence[Mapping[str, Any]],
    threshold: float,
    *,
    workers: int,
    limits: Limits,
) -> list[Path]:
    """Writes NAME-START.mp4 and .png for each event of a video; returns what was written."""
    import cv2

    from media.encode import write_video
    from media.reasons import Rejected
    from report.event_strip import event_strip, part_of

    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    chosen = sorted(events, key=lambda event: -event["peak_score"])[:MAX_EVENTS]
    with decode_pool(workers, limits) as pool:
        for event in sorted(chosen, key=lambda event: event["start_seconds"]):
            start = max(0.0, event["start_seconds"] - MARGIN_SECONDS)
            stop = min(event["stop_seconds"] + MARGIN_SECONDS, start + MAX_CLIP_SECONDS)
            try:
                shown = pool.submit(path, start_seconds=start, stop_seconds=stop, max_side=MAX_SIDE_PX).result()
            except Rejected:
                continue  # its windows were scored: what fails now is the file, and was said
            name = f"{_safe(path.stem)}-{event['start_seconds']:08.2f}s"
            frames = np.zeros((0, 2, 2, 3), np.uint8) if shown.frames is None else _even(shown.frames)
            if len(frames) > 1:
                fps = 1 / float(np.median(np.diff(shown.start_seconds)))
                write_video(folder / f"{name}.mp4", frames, fps=min(fps, 60.0), samples=shown.samples)
                written.append(folder / f"{name}.mp4")
            near = np.abs(line.times - event["peak_seconds"]) <= AROUND_SECONDS
            region = part_of(event["region"])
            strip = event_strip(
                frames, shown.start_seconds, line.times[near], line.scores[near], threshold, event, region=region
            )
            done, data = cv2.imencode(".png", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))
            assert done
            write_bytes(folder / f"{name}.png", data.tobytes())
            written.append(folder / f"{name}.png")
    return written


def _even(frames: np.ndarray) -> np.ndarray:
    """Frames with even sides, as video has them."""
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]


def _safe(stem: str) -> str:
    """A file name of letters, digits, dots and dashes."""
    return re.sub(r"[^\w.-]+", "_", stem.encode("ascii", "replace").decode())[:80] or "video"
