"""Tracks on a clock of their own: a hole before a track's first frame that is longer than the track is closed.

Recorders, dash cams and careless muxing write frames and audio whose time stamps lie minutes or hours apart. Tracks
that overlap in time share a clock. A group of overlapping tracks whose distance from the start of the file is longer
than the group itself is moved to the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tristream.media.pictures import GAP_SECONDS

if TYPE_CHECKING:
    from av.container import InputContainer

LIVE_GAP_SECONDS = (
    60.0  # tracks of a live source arrive side by side; further apart they have two clocks
)


@runtime_checkable
class Clocks(Protocol):
    """Decides where a track begins that starts late."""

    def early_seconds(self, track: int, start_seconds: float, reached_seconds: float) -> float:
        """Return by how much to move a track ahead.

        Args:
            track: index in the container.
            start_seconds: of its first frame, since the container's start.
            reached_seconds: of the other track.
        """
        ...

    def span(self, track: int) -> tuple[float, float] | None:
        """First and last second of a track; None if it has no packets, or they are not known."""
        ...


class FileClocks:
    """Clocks of a file, from one pass over the time stamps of its packets; made only if a track starts late.

    Args:
        open_again: opens the file from its beginning.
    """

    def __init__(self, open_again: Callable[[], AbstractContextManager[InputContainer]]) -> None:
        self._open_again = open_again

    def early_seconds(self, track: int, start_seconds: float, reached_seconds: float) -> float:
        del start_seconds, reached_seconds
        return self._early.get(track, 0.0)

    def span(self, track: int) -> tuple[float, float] | None:
        return self._spans.get(track)

    @cached_property
    def _early(self) -> dict[int, float]:
        return early_tracks(self._spans)

    @cached_property
    def _spans(self) -> dict[int, tuple[float, float]]:
        with self._open_again() as container:
            return track_spans(container)


class LiveClocks:
    """Clocks of a source whose end is not known."""

    def early_seconds(self, track: int, start_seconds: float, reached_seconds: float) -> float:
        del track
        gap = start_seconds - max(0.0, reached_seconds)
        return gap if gap > LIVE_GAP_SECONDS else 0.0

    def span(self, track: int) -> tuple[float, float] | None:
        del track
        return None


def early_tracks(spans: Mapping[int, tuple[float, float]]) -> dict[int, float]:
    """Return the seconds by which tracks must be moved ahead, by track; those that stay are left out.

    Args:
        spans: first and last second of each track, since the container's start.
    """
    groups: list[tuple[float, float, list[int]]] = []
    for track, (first, last) in sorted(spans.items(), key=lambda item: item[1]):
        if groups and first <= groups[-1][1]:
            begin, end, tracks = groups[-1]
            groups[-1] = (begin, max(end, last), [*tracks, track])
        else:
            groups.append((first, last, [track]))
    return {
        track: begin
        for begin, end, tracks in groups
        if begin > max(GAP_SECONDS, end - begin)
        for track in tracks
    }


def track_spans(container: InputContainer) -> dict[int, tuple[float, float]]:
    """Return the first and the last second of each video and audio track with packets, since the container's start."""
    from av.error import FFmpegError
    from av.stream import Disposition

    origin = (container.start_time or 0) / 1e6
    tracks = [
        track
        for track in container.streams
        if track.type in ("video", "audio") and not track.disposition & Disposition.attached_pic
    ]
    spans: dict[int, tuple[float, float]] = {}
    try:
        for packet in container.demux(*tracks) if tracks else ():
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or not packet.size:
                continue
            begin = float(stamp * packet.time_base) - origin
            end = begin + float((packet.duration or 0) * packet.time_base)
            first, last = spans.get(packet.stream.index, (begin, end))
            spans[packet.stream.index] = (min(first, begin), max(last, end))
    except (FFmpegError, IndexError):  # PyAV fails so at the end over tracks that appeared late
        pass
    return spans
