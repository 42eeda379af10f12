"""Video track of a file: upright RGB frames of one size, their times, and a mark for suspect frames."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from tristream.media.limits import Limits, Wanted
from tristream.media.opening import usable
from tristream.media.reasons import Rejected

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

GAP_SECONDS = 2.0  # a longer step between two frames is a hole, unless all steps are that long
GAP_STEPS = 10  # … that is, unless it is at most ten median steps long
RESTART_SECONDS = 0.5  # a longer step back means that the clock of the camera was reset
_LONG_AGO = -(1 << 63)
SMALLEST_STEP_SECONDS = 1e-4  # by which a frame with a repeated or earlier time stamp is moved on


def choose_picture_track(
    container: InputContainer, path: Path, reasons: set[str]
) -> VideoStream | None:
    """Return the video track with the most pixels, the first of equals; None if there is none but cover art.

    Raises:
        Rejected: there is a video track, and it cannot be decoded here.
    """
    from av.stream import Disposition

    tracks = [
        track
        for track in container.streams.video
        if not track.disposition & Disposition.attached_pic
    ]
    if not tracks:
        return None
    if len(tracks) > 1:
        reasons.add("multiple_video_streams")
    candidates = [track for track in tracks if usable(track) is None]
    if not candidates:
        reason = usable(tracks[0]) or "no_decoder"
        context = tracks[0].codec_context
        codec = (
            f"in {context.name}, which is not decoded here"
            if context
            else "in a codec that FFmpeg does not know"
        )
        raise Rejected(reason, path, f"has its video {codec}; convert it to H.264")
    return max(
        candidates,
        key=lambda track: (track.codec_context.width * track.codec_context.height, -track.index),
    )


class Pictures:
    """Collect the frames of one track in presentation order.

    Args:
        track: to be decoded.
        path: for messages.
        wanted: interval, size, and True if pixels are kept.
        limits: pixels, seconds, frames, memory.
        reasons: degradations are added here.
        by_arrival: a frame begins when it is decoded, whatever its time stamp.
    """

    def __init__(
        self,
        track: VideoStream,
        path: Path,
        wanted: Wanted,
        *,
        limits: Limits,
        reasons: set[str],
        by_arrival: bool = False,
    ) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self.track = track
        self.n_decoded = 0
        self.n_packets = 0
        self.played_seconds = 0.0  # of all decoded frames, wanted or not, without holes
        self.size: tuple[int, int] | None = None  # height and width of the first frame, upright
        self.done = False
        self.begins_later = False  # no frame was reached, though the file has some
        self._path = path
        self._wanted = wanted
        self._limits = limits
        self._reasons = reasons
        self._times: list[float] = []
        self._last_kept: float | None = None
        self._suspect: list[bool] = []
        self._last: float | None = None
        self._last_step = 1 / float(track.average_rate) if track.average_rate else 0.04
        self._by_arrival = by_arrival
        self._first_arrival: float | None = None  # time.monotonic
        self._shift = 0.0  # added to every time since the clock was reset
        self._next_start: float | None = None  # of the first frame after the wanted ones
        self._damage: int | None = None  # pts of the latest damage; None after a clean key frame
        self._without_pts = track.container.format.name == "avi"
        self._decoder_delay: int | None = None
        self._n_wanted = 0
        self._stride = 1  # one of so many wanted frames is kept
        self._reformatter = VideoReformatter()
        self._scaling = (
            Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        )
        self._buffer = _FrameBuffer(limits.pictures_bytes) if wanted.keep else None

    def move(self, seconds: float) -> None:
        """Add to the times of all frames to come."""
        self._shift += seconds

    def damaged(self, packet: Packet) -> None:
        """Mark every frame from here to the next clean key frame as suspect."""
        self._note_damage(packet.pts if packet.pts is not None else packet.dts)

    def receive(self, frame: VideoFrame, origin_seconds: float) -> None:
        """Take the next frame in presentation order.

        Raises:
            Rejected: its size is out of limits, or there are too many frames.
        """
        self.n_decoded += 1
        self._check_size(frame)
        suspect = self._is_suspect(frame)
        start = self._place(frame, origin_seconds)
        if self.n_decoded > self._limits.max_frames:
            raise Rejected(
                "too_many_frames",
                self._path,
                f"has over {self._limits.max_frames} frames in {start:.0f} s; cut it",
            )
        if self.played_seconds > self._limits.max_seconds:
            raise Rejected(
                "too_long",
                self._path,
                f"plays for more than {self._limits.max_seconds:g} s; cut it",
            )
        if start >= self._wanted.stop_seconds:
            self.done = True
            self._next_start = start if self._next_start is None else self._next_start
        elif start >= self._wanted.start_seconds:
            self._keep(frame, start, suspect)

    def times(
        self,
    ) -> tuple[Float64[np.ndarray, " T"], Float64[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
        """Return start, stop and suspect mark of every kept frame.

        A frame lasts until the next one; the last, and one before a hole, lasts one median step.
        """
        starts = np.asarray(self._times, np.float64)
        following = (
            starts[1:] if self._next_start is None else np.append(starts[1:], self._next_start)
        )
        steps = following - starts[: len(following)]
        usual = float(np.quantile(steps, 0.5, method="lower")) if len(steps) else self._last_step
        if len(steps) == 1 and usual > GAP_SECONDS:
            usual = self._last_step
        hole = steps > max(GAP_SECONDS, GAP_STEPS * usual)
        if hole.any():
            self._reasons.add("timestamp_gap")
            usual = float(np.median(steps[~hole])) if not hole.all() else self._last_step
        stops = starts + usual
        stops[: len(following)] = np.where(hole, stops[: len(following)], following)
        return starts, stops, np.asarray(self._suspect, bool)

    def frames(self) -> UInt8[np.ndarray, "T H W 3"] | None:
        """Return the kept frames; None if there are none."""
        return self._buffer.array() if self._buffer is not None and self._times else None

    def drain(
        self, before_seconds: float
    ) -> tuple[
        UInt8[np.ndarray, "n H W 3"],
        Float64[np.ndarray, " n"],
        Float64[np.ndarray, " n"],
        Bool[np.ndarray, " n"],
    ]:
        """Remove the kept frames that begin before a time; return frames, starts, stops, suspect marks."""
        assert self._buffer is not None
        starts, stops, suspect = self.times()
        n = int(np.searchsorted(starts, before_seconds))
        self._times, self._suspect = self._times[n:], self._suspect[n:]
        return self._buffer.take(n), starts[:n], stops[:n], suspect[:n]

    @property
    def first_start_seconds(self) -> float | None:
        """Start of the first frame that was kept and not drained."""
        return self._times[0] if self._times else None

    @property
    def reached_seconds(self) -> float:
        """Start of the latest frame, wanted or not; 0 before the first."""
        return self._last or 0.0

    @property
    def last_start_seconds(self) -> float | None:
        """Start of the last kept frame."""
        return self._last_kept

    def _check_size(self, frame: VideoFrame) -> None:
        if frame.width * frame.height > self._limits.max_pixels:
            raise too_large(self._path, self._limits)
        size = (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)
        if self.size is None:
            if min(size) < self._limits.min_side_px:
                raise Rejected(
                    "resolution_too_small",
                    self._path,
                    f"has frames of {size[1]}x{size[0]} px; the shorter side must have {self._limits.min_side_px} px",
                )
            self.size = size
        elif size != self.size:
            self._reasons.add("resolution_changed")

    def _is_suspect(self, frame: VideoFrame) -> bool:
        if frame.is_corrupt:
            self._reasons.add("decode_errors")
            self._note_damage(frame.pts)
        elif (
            self._damage is not None
            and frame.key_frame
            and self._is_after_damage(frame, self._damage)
        ):
            self._damage = None
        return self._damage is not None

    def _is_after_damage(self, frame: VideoFrame, damage: int) -> bool:
        """True by time stamp, because B-frames delay key frames; also far before it, after the clock was reset."""
        if frame.pts is None or frame.pts > damage:
            return True
        step = frame.time_base
        return bool(step) and float((damage - frame.pts) * step) > GAP_SECONDS  # type: ignore[operator]

    def _note_damage(self, pts: int | None) -> None:
        known = [time for time in (pts, self._damage) if time is not None]
        self._damage = max(known, default=_LONG_AGO)

    def _place(self, frame: VideoFrame, origin_seconds: float) -> float:
        """Return the start of the frame on a clock that only goes forward."""
        stamp = self._stamp(frame)
        if self._by_arrival:
            now = time.monotonic()
            self._first_arrival = now if self._first_arrival is None else self._first_arrival
            start = max(now - self._first_arrival, (self._last or -1.0) + SMALLEST_STEP_SECONDS)
        elif stamp is None or not frame.time_base:
            start = 0.0 if self._last is None else self._last + self._last_step
        else:
            start = float(stamp * frame.time_base) - origin_seconds + self._shift
        if self._last is not None and start <= self._last:
            self._reasons.add("timestamps_not_monotonic")
            if self._last - start > RESTART_SECONDS:
                self._shift += self._last + self._last_step - start
                start = self._last + self._last_step
            else:
                start = self._last + SMALLEST_STEP_SECONDS
        if self._last is not None:
            self._last_step = (
                start - self._last if start - self._last < GAP_SECONDS else self._last_step
            )
            self.played_seconds += min(start - self._last, GAP_SECONDS)
        self._last = start
        return start

    def _stamp(self, frame: VideoFrame) -> int | None:
        """Return the presentation time stamp of the frame.

        AVI has none: it keeps decoding order, and FFmpeg's estimate swaps B-frames (in all of UT-Interaction). Decoding
        times are used instead, moved so that the first frame keeps its estimate.
        """
        if not self._without_pts or frame.pts is None or frame.dts is None:
            return None if self._without_pts else frame.pts
        if self._decoder_delay is None:
            self._decoder_delay = max(0, frame.dts - frame.pts)
        return frame.dts - self._decoder_delay

    def _keep(self, frame: VideoFrame, start: float, suspect: bool) -> None:
        index, self._n_wanted = self._n_wanted, self._n_wanted + 1
        if index % self._stride:
            return
        if self._buffer is not None:
            pixels = self._upright(frame)
            if not self._buffer.has_room(pixels):
                self._thin()
                if index % self._stride:
                    return
            self._buffer.append(pixels)
        self._times.append(start)
        self._last_kept = start
        self._suspect.append(suspect)

    def _upright(self, frame: VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        """Return the frame in RGB, rotated and scaled by averaging areas to the common size."""
        assert self.size is not None
        height, width = fit(self.size, self._wanted.max_side)
        if frame.rotation % 180:
            height, width = width, height
        scaled = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation=self._scaling,
            threads=1,
        )
        return np.rot90(
            scaled.to_ndarray(), round(frame.rotation / 90)
        )  # both angles are counterclockwise

    def _thin(self) -> None:
        """Drop every second kept frame, and keep every second of those to come."""
        assert self._buffer is not None
        if len(self._times) < 2:
            raise Rejected(
                "out_of_memory", self._path, "has frames larger than a decode process may hold"
            )
        self._buffer.halve()
        self._times, self._suspect = self._times[::2], self._suspect[::2]
        self._stride *= 2
        self._reasons.add("frames_thinned")


def fit(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """Return height and width scaled down, aspect kept, until the longer is at most `max_side`; never up."""
    scale = 1.0 if max_side is None else min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def too_large(path: Path, limits: Limits) -> Rejected:
    """Rejection of a frame with too many pixels."""
    return Rejected(
        "resolution_too_large",
        path,
        f"has frames of more than {limits.max_pixels} px in all; scale it down first",
    )


class _FrameBuffer:
    """Frames of one size in one array that grows in place, so that they are never held twice."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._array: np.ndarray = np.empty((0, 0, 0, 3), np.uint8)
        self._n = 0

    def has_room(self, frame: UInt8[np.ndarray, "H W 3"]) -> bool:
        return (self._n + 1) * frame.nbytes <= self._max_bytes

    def append(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        if self._n == len(self._array):
            most = self._max_bytes // frame.nbytes
            self._array.resize(
                (min(most, max(32, self._n + self._n // 2)), *frame.shape), refcheck=False
            )
        self._array[self._n] = frame
        self._n += 1

    def halve(self) -> None:
        n_half = (self._n + 1) // 2
        for target in range(n_half):
            self._array[target] = self._array[2 * target]
        self._n = n_half

    def take(self, n: int) -> UInt8[np.ndarray, "n H W 3"]:
        """Remove and return the first n."""
        taken, rest = self._array[:n].copy(), self._array[n : self._n].copy()
        self._array[: len(rest)] = rest
        self._n = len(rest)
        return taken

    def array(self) -> UInt8[np.ndarray, "T H W 3"]:
        self._array.resize((self._n, *self._array.shape[1:]), refcheck=False)
        return self._array
