"""Short clip of each event, and an image of its frames, score and causes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.store.atomic import write_bytes
from tristream.videos import decode_pool
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.fusion.anomaly.window_scores import Timeline
    from tristream.report.event_strip import Origin

MARGIN_SECONDS = 1.0  # shown before and after an event
AROUND_SECONDS = 15.0  # of the score curve, before and after
MAX_CLIP_SECONDS = 20.0
MAX_SIDE_PX = 320
MAX_EVENTS = 50  # per video, highest first; too low a threshold would fill the disk


def save_events(
    workspace: Workspace,
    folder: Path,
    path: Path,
    line: Timeline,
    events: Sequence[Mapping[str, Any]],
    threshold: float,
) -> list[Path]:
    """Write NAME-START.mp4 and .png for each event of a video; return the paths."""
    from tristream.media.reasons import Rejected, printable
    from tristream.report.event_strip import Origin

    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    chosen = sorted(events, key=lambda event: -event["peak_score"])[:MAX_EVENTS]
    with decode_pool(workspace) as pool:
        for event in sorted(chosen, key=lambda event: event["start_seconds"]):
            start = max(0.0, event["start_seconds"] - MARGIN_SECONDS)
            stop = min(event["stop_seconds"] + MARGIN_SECONDS, start + MAX_CLIP_SECONDS)
            try:
                shown = pool.submit(
                    path, start_seconds=start, stop_seconds=stop, max_side=MAX_SIDE_PX
                ).result()
            except Rejected:
                continue  # the file has changed since its windows were scored
            near = np.abs(line.times - event["peak_seconds"]) <= AROUND_SECONDS
            frames = np.zeros((0, 2, 2, 3), np.uint8) if shown.frames is None else shown.frames
            origin = Origin(
                source=printable(path.name),
                samples=shown.samples,
                start_seconds=shown.samples_start_seconds,
            )
            written += write_event(
                folder / f"{_safe(path.stem)}-{event['start_seconds']:08.2f}s",
                frames,
                shown.start_seconds,
                line.times[near],
                line.scores[near],
                threshold,
                event,
                origin=origin,
            )
    return written


def write_event(
    place: Path,
    frames: np.ndarray,
    frame_seconds: np.ndarray,
    times: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    event: Mapping[str, Any],
    *,
    origin: Origin | None = None,
) -> list[Path]:
    """Write PLACE.mp4 (of two frames or more) and PLACE.png; arguments as `report.event_strip.event_strip`.

    Args:
        origin: file or camera, wall-clock time and audio of the event.
    """
    import cv2

    from tristream.media.encode import write_video
    from tristream.report.event_strip import event_strip, part_of

    place.parent.mkdir(parents=True, exist_ok=True)
    written = []
    frames = _even(frames)
    if len(frames) > 1:
        fps = 1 / float(np.median(np.diff(frame_seconds)))
        clip = place.with_name(f"{place.name}.mp4")
        samples = None if origin is None else origin.samples
        write_video(clip, frames, fps=min(fps, 60.0), samples=samples)
        written.append(clip)
    region = part_of(event["region"])
    strip = event_strip(
        frames, frame_seconds, times, scores, threshold, event, region=region, origin=origin
    )
    done, data = cv2.imencode(".png", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))
    assert done
    picture = place.with_name(f"{place.name}.png")
    write_bytes(picture, data.tobytes())
    return [*written, picture]


class LivePictures:
    """Frames of a live source: the seconds before an alarm, and the first seconds of its event.

    Args:
        folder: receives the files of each event.
        threshold: score at which an alarm starts.
        before_seconds: length of a window: an alarm comes when its window is over.
    """

    def __init__(self, folder: Path, threshold: float, before_seconds: float) -> None:
        self._folder, self._threshold = folder, threshold
        self._before_seconds = before_seconds + 2 * MARGIN_SECONDS
        self._recent: deque[tuple[float, np.ndarray]] = deque()
        self._clip: list[tuple[float, np.ndarray]] | None = None
        self._curve: deque[tuple[float, float]] = deque()

    def add_frames(self, seconds: np.ndarray, frames: np.ndarray) -> None:
        """Add the next frames and their start times."""
        self._recent.extend(zip(seconds.tolist(), frames.copy(), strict=True))
        while self._recent and self._recent[0][0] < self._recent[-1][0] - self._before_seconds:
            self._recent.popleft()
        if self._clip is not None:
            self._extend(zip(seconds.tolist(), frames, strict=True))

    def add_score(self, seconds: float, score: float) -> None:
        """Add the score of the window around `seconds`."""
        self._curve.append((seconds, score))
        while self._curve[0][0] < seconds - 2 * AROUND_SECONDS:
            self._curve.popleft()

    def begin(self, start_seconds: float) -> None:
        """Begin an event."""
        self._clip = []
        self._extend(
            (at, frame) for at, frame in self._recent if at >= start_seconds - MARGIN_SECONDS
        )

    def end(self, event: Mapping[str, Any], name: str) -> list[Path]:
        """Write NAME.mp4 and NAME.png of the finished event; return their paths."""
        from tristream.report.event_strip import Origin

        clip, self._clip = self._clip or [], None
        clip = [(at, frame) for at, frame in clip if at < event["stop_seconds"] + MARGIN_SECONDS]
        frames = (
            np.stack([frame for _, frame in clip]) if clip else np.zeros((0, 2, 2, 3), np.uint8)
        )
        times, scores = np.array(self._curve, np.float64).reshape(-1, 2).T
        near = np.abs(times - event["peak_seconds"]) <= AROUND_SECONDS
        return write_event(
            self._folder / _safe(name),
            frames,
            np.array([at for at, _ in clip]),
            times[near],
            scores[near],
            self._threshold,
            event,
            origin=Origin(wall_clock=str(event.get("at", ""))),
        )

    def restart(self) -> None:
        """Forget the frames and scores so far: the source was opened again."""
        self._recent.clear()
        self._curve.clear()
        self._clip = None

    def _extend(self, more: Iterable[tuple[float, np.ndarray]]) -> None:
        assert self._clip is not None
        for at, frame in more:
            if not self._clip:
                self._clip.append((at, frame.copy()))
            first, shape = self._clip[0][0], self._clip[0][1].shape
            if (
                self._clip[-1][0] < at < first + MAX_CLIP_SECONDS and frame.shape == shape
            ):  # cameras change their size
                self._clip.append((at, frame.copy()))


def _even(frames: np.ndarray) -> np.ndarray:
    """Return the frames with even sides, as video needs them."""
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]


def _safe(stem: str) -> str:
    """Return a file name of letters, digits, dots and dashes."""
    return re.sub(r"[^\w.-]+", "_", stem.encode("ascii", "replace").decode())[:80] or "video"
