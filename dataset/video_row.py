"""The table of videos in memory; `dataset.manifest` builds it, `dataset.videos_csv` stores it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class VideoRow:
    """One video.

    Attributes:
        video_id: path relative to the data root, with `/`.
        path: absolute; relative to the data root in the file.
        label: "" = none.
        split: train, val, test or unlabelled.
        group: the source; videos of one group share a split.
        anomaly: 1 abnormal, 0 normal, None = unknown.
        fold: as the list has it.
        content_id: sha256 of the bytes; "" where they could not be read.
        n_frames: declared in the header, as the following; None = not declared, or not probed.
        fps: mean frame rate.
        duration_seconds: of the container.
        height: px, upright.
        width: px, upright.
        has_audio: True if there is audio that can be decoded.
    """

    video_id: str
    path: Path
    label: str
    split: str
    group: str
    anomaly: int | None
    fold: str
    content_id: str
    n_frames: int | None = None
    fps: float | None = None
    duration_seconds: float | None = None
    height: int | None = None
    width: int | None = None
    has_audio: bool | None = None


@dataclass(frozen=True)
class Manifest:
    """All videos of a run.

    Attributes:
        root: the data root.
        rows: in the order they were listed.
        warnings: doubts found while it was built; not stored.
    """

    root: Path
    rows: tuple[VideoRow, ...]
    warnings: tuple[str, ...] = ()
