"""Windows of files and of live sources, cut for several trained streams: one constructor for both."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tristream.errors import TristreamError
from tristream.flow import precomputed
from tristream.media.decode import DecodedVideo
from tristream.streams.backend import Backend
from tristream.streams.flow_estimators import Estimators
from tristream.streams.model import TrainedStream, check_same_reading, shared_estimators
from tristream.streams.segments import Absent
from tristream.streams.stream import Stream
from tristream.streams.window_rows import Row
from tristream.streams.windows import Region, Ring, Window, WindowPlan


class DecodeOptions(TypedDict):
    """Keyword arguments of whatever decodes a video in pieces.

    Attributes:
        pictures, sound: True if any stream needs frames, or audio.
        max_side: px on the longer side of a frame.
    """

    pictures: bool
    sound: bool
    max_side: int


@dataclass(frozen=True, eq=False)
class WindowCutter:
    """Way of cutting windows for some trained streams. Make it with `for_streams`.

    Attributes:
        trained: the streams, all of which read videos in the same way.
        plan: length, hop and regions of the windows.
        backend: runs encoders and learned flow.
        estimators: of optical flow.
        streams: {name: the stream with a window's budget of segments}.
        flow_from: folder of precomputed flow; None: flow is estimated.
    """

    trained: Sequence[TrainedStream]
    plan: WindowPlan
    backend: Backend
    estimators: Estimators
    streams: dict[str, Stream]
    flow_from: Path | None = None

    @classmethod
    def for_streams(
        cls,
        trained: Sequence[TrainedStream],
        plan: WindowPlan,
        *,
        backend: Backend,
        flow_from: Path | None = None,
    ) -> WindowCutter:
        """Return the cutter of some trained streams.

        Args:
            trained: at least one.
            plan: with windows.
            backend: runs encoders and learned flow.
            flow_from: folder of precomputed flow, looked up by video_id; None: flow is estimated.

        Raises:
            UsageError: streams that read videos differently.
            TristreamError: a plan of whole videos, or streams with other random weights of one
                estimator.
        """
        check_same_reading(trained)
        if not plan.seconds:
            raise TristreamError("windows of 0 s: the plan says whole videos; give a window length")
        estimators = shared_estimators(trained)
        estimators.backend = backend
        bound = {one.name: one.rebound(sampler=plan.sampler(one.sampler)).stream for one in trained}
        return cls(trained, plan, backend, estimators, bound, flow_from)

    @property
    def decode_options(self) -> DecodeOptions:
        """Options with which the pieces of a video are decoded for these streams."""
        streams = self.streams.values()
        return {
            "pictures": any(stream.needs_pictures for stream in streams),
            "sound": any(stream.needs_sound for stream in streams),
            "max_side": self.trained[0].data.max_side_px,
        }

    def flow_source(self, video_id: str) -> str:
        """Return the sha256 of a video's precomputed flow; "" where flow is estimated."""
        return "" if self.flow_from is None else precomputed.sha256(self.flow_from, video_id)

    def begin(self, video_id: str = "", path: Path = Path()) -> WindowFeed:
        """Return a feed for one video, or for one connection to a live source.

        Args:
            video_id: name of the video, under which its precomputed flow is looked up.
            path: of the file.
        """
        given = None
        if self.flow_from is not None:
            given = functools.partial(precomputed.read_range, self.flow_from, video_id)
        ring = Ring(self.plan, self.trained[0].data.crop, self.estimators, given)
        return WindowFeed(self, ring, video_id, path)


class WindowFeed:
    """Rows of the windows of one video that arrives in pieces."""

    def __init__(self, cutter: WindowCutter, ring: Ring, video_id: str, path: Path) -> None:
        self._cutter = cutter
        self._ring = ring
        self._video_id = video_id
        self._path = path

    def add(self, piece: DecodedVideo) -> Iterator[list[Row]]:
        """Yield the rows of each window that is complete with this piece, one for each region."""
        for window in self._ring.add(piece):
            yield self._rows(window)

    def finish(self) -> Iterator[list[Row]]:
        """Yield the rows of the windows that are complete because the video ends."""
        for window in self._ring.finish():
            yield self._rows(window)

    def _rows(self, window: Window) -> list[Row]:
        cells = enumerate(self._cutter.plan.cells())
        return [self._row(window, number, region) for number, region in cells]

    def _row(self, window: Window, number: int, region: Region) -> Row:
        peak = self._peak_motion(window, region)
        row = Row(window.start_seconds, window.stop_seconds, number, peak)
        for trained in self._cutter.trained:
            stream = self._cutter.streams[trained.name]
            video = window.video(
                self._video_id, self._path, region, data=trained.data, sampler=stream.sampler
            )
            try:
                row.segments[trained.name] = stream.cut(stream.footage(video))
            except Absent as absent:
                row.absent[trained.name] = absent.reason
        return row

    def _peak_motion(self, window: Window, region: Region) -> float:
        first = self._cutter.trained[0]
        sampler = self._cutter.streams[first.name].sampler
        video = window.video(self._video_id, self._path, region, data=first.data, sampler=sampler)
        try:
            return float(video.peak_motion.max())
        except Absent:
            return float("nan")
