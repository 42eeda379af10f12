"""Small pictures out of videos, as data URIs: decoded in the pool's processes, limited in number and size."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tristream.media.decode import DecodedVideo
from tristream.media.reasons import Rejected
from tristream.media.sandbox.pool import DecodePool

BESIDE_SECONDS = 1.0  # decoded on either side of a moment: a slow camera has a frame there
FARTHEST_SECONDS = (
    900.0  # a decoder starts at the beginning of its file: later moments cost minutes
)
JPEG_QUALITY = 78  # found by eye at these sizes; 1 to 4 kB a picture


@dataclass(frozen=True)
class Moment:
    """A picture that is wanted: of a file, at a time in seconds."""

    path: Path
    seconds: float


def pictures(
    moments: Mapping[str, Moment],
    pool: DecodePool,
    *,
    root: Path | None = None,
    follow_links: bool = False,
    height_px: int,
    move: Callable[[], None] = lambda: None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Return JPEGs of frames at the given times, as data URIs.

    Args:
        moments: {key: moment}.
        pool: what decodes.
        root: files outside it are refused, unless links that lead there are to be followed.
        follow_links: whether they are.
        height_px: of a picture.
        move: called after each moment.

    Returns:
        {key: data URI}, and {key: why there is none} for the others.
    """
    uris: dict[str, str] = {}
    missing: dict[str, str] = {}
    for key, moment, result in _decoded(moments, pool, root, follow_links, 2 * height_px):
        move()
        if isinstance(result, str):
            missing[key] = result
        elif result.frames is None or not len(result.frames):
            missing[key] = "no_video"
        else:
            uris[key] = data_uri(
                result.frames[frame_at(result.start_seconds, moment.seconds)], height_px=height_px
            )
    return uris, missing


def _decoded(
    moments: Mapping[str, Moment],
    pool: DecodePool,
    root: Path | None,
    follow_links: bool,
    max_side: int,
) -> Iterator[tuple[str, Moment, DecodedVideo | str]]:
    """A few seconds around each moment, in order, with only a few in memory at any time; or a reason code."""
    waiting: deque[tuple[str, Moment, Future[DecodedVideo]]] = deque()

    def first() -> tuple[str, Moment, DecodedVideo | str]:
        key, moment, future = waiting.popleft()
        try:
            return key, moment, future.result()
        except Rejected as rejected:
            return key, moment, rejected.reason

    for key, moment in moments.items():
        if moment.seconds > FARTHEST_SECONDS:
            yield key, moment, f"more than {FARTHEST_SECONDS / 60:.0f} min into the file"
            continue
        inside = root if root is not None and moment.path.is_relative_to(root) else None
        future = pool.submit(
            moment.path,
            sound=False,
            max_side=max_side,
            start_seconds=max(0.0, moment.seconds - BESIDE_SECONDS),
            stop_seconds=moment.seconds + BESIDE_SECONDS,
            root=inside,
            follow_links=follow_links,
        )
        waiting.append((key, moment, future))
        if len(waiting) > 2 * pool.n_workers:
            yield first()
    while waiting:
        yield first()


def frame_at(starts: Sequence[float] | np.ndarray, seconds: float) -> int:
    """Return the index of the frame shown at a time, else of the nearest one."""
    return int(
        np.clip(np.searchsorted(np.asarray(starts), seconds, side="right") - 1, 0, len(starts) - 1)
    )


def strip(
    frames: UInt8[np.ndarray, "T H W 3"], starts: np.ndarray, *, n_frames: int, height_px: int
) -> list[tuple[float, str]]:
    """Return evenly spaced frames of a video with their times in seconds."""
    n_frames = min(n_frames, len(frames))
    chosen = [(2 * i + 1) * len(frames) // (2 * n_frames) for i in range(n_frames)]
    return [
        (float(starts[index]), data_uri(frames[index], height_px=height_px)) for index in chosen
    ]


def data_uri(frame: UInt8[np.ndarray, "H W 3"], *, height_px: int) -> str:
    """Return a frame as a JPEG data URI."""
    import cv2

    height, width = frame.shape[:2]
    if height != height_px:
        size = (max(1, min(4 * height_px, round(width * height_px / height))), height_px)
        how = cv2.INTER_AREA if height > height_px else cv2.INTER_LINEAR
        frame = cv2.resize(frame, size, interpolation=how)
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    assert done, "a picture of three channels can be written as JPEG"
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def spread(labels: Sequence[str], n: int) -> list[int]:
    """Return `n` indices that alternate between the labels, so that rare ones are represented."""
    turns: dict[str, Iterator[int]] = {}
    for label in dict.fromkeys(labels):
        turns[label] = (index for index, other in enumerate(labels) if other == label)
    chosen: list[int] = []
    while turns and len(chosen) < n:
        for label in list(turns):
            index = next(turns[label], None)
            if index is None:
                del turns[label]
            elif len(chosen) < n:
                chosen.append(index)
    return chosen


def middle(duration_seconds: float | None) -> float:
    """Return the time of a video's thumbnail: its middle, within the first 36 s."""
    return min(36.0, duration_seconds or 0.0) / 2
