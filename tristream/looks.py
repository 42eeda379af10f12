"""Segments of the trained streams in a few videos of a run, for the report. No encoder runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tristream.videos import contents, decode_pool, decoder, make_video
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.video_row import VideoRow
    from tristream.report.charts import Looks
    from tristream.report.collect import Run
    from tristream.streams.model import TrainedStream
    from tristream.streams.video import Video

N_VIDEOS = 3
N_FRAMES = 8
FRAME_PX = 90


def sampled_segments(workspace: Workspace, run: Run) -> list[Looks]:
    """Return frames, motion and segments of every stream, of a few test videos of different classes.

    Raises:
        TristreamError: a checkpoint cannot be read, or a video has become unusable.
    """
    rows = _few(run)
    if not rows or run.manifest is None or not workspace.trained_names():
        return []
    workspace = workspace.reading_from(run.manifest.root)
    trained, cache = workspace.load_streams(), workspace.cache()
    content = contents(rows, workspace.reading)
    looks = []
    with decode_pool(workspace) as pool:
        decode = decoder(pool, workspace.reading)
        for number, row in enumerate(rows):
            content_id = content[row.video_id]
            video = make_video(row, content_id, trained, decode=decode, cache=cache)
            looks.append(_look(f"looks-{number}", row.label, video, trained))
    return looks


def _few(run: Run) -> list[VideoRow]:
    """Return the first usable test video of a few classes, far apart in the alphabet."""
    from tristream.report.thumbnails import spread

    rejected = {row.get("video_id") for row in run.failures}
    rows = [row for row in run.rows if row.video_id not in rejected and row.path.exists()]
    rows = [row for row in rows if row.split == "test"] or rows
    first = spread([row.label for row in rows], len({row.label for row in rows}))
    return [rows[index] for index in first[:: max(1, len(first) // N_VIDEOS)][:N_VIDEOS]]


def _look(name: str, label: str, video: Video, trained: Sequence[TrainedStream]) -> Looks:
    from tristream.report.charts import Looks
    from tristream.report.thumbnails import strip
    from tristream.streams.segments import Absent

    starts, spans, absent, ends = {}, {}, {}, []
    for stream in trained:
        if (stream.data, stream.sampler) != (trained[0].data, trained[0].sampler):
            absent[stream.name] = f"its data settings differ from those of {trained[0].name}"
            continue
        try:
            segments = stream.stream.cut(stream.stream.footage(video))
        except Absent as why:
            absent[stream.name] = why.reason
            continue
        starts[stream.name] = segments.start_seconds
        spans[stream.name] = float(np.median(segments.stop_seconds - segments.start_seconds))
        ends.append(float(segments.stop_seconds.max()))
    decoded, frames, times, motion = video.decoded, [], np.zeros(0), np.zeros(0)
    if decoded.frames is not None:
        ends.append(float(decoded.stop_seconds[-1]))
        frames = strip(decoded.frames, decoded.start_seconds, n_frames=N_FRAMES, height_px=FRAME_PX)
        if len(decoded.frames) > 1:
            motion = video.motion
            times = (decoded.start_seconds[:-1] + decoded.start_seconds[1:]) / 2
    video.forget()
    return Looks(
        name=name, video_id=video.video_id, label=label, stop_seconds=max(ends, default=1.0), times=times,
        motion=motion, starts=starts, spans=spans, absent=absent, frames=frames,
    )  # fmt: skip
