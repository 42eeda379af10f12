"""Decode a media file to upright RGB frames and 16 kHz audio on one clock.

Runs inside decode processes (media/sandbox). Of a damaged file everything that can be decoded is
decoded: errors are counted, and frames from the first error to the next clean key frame are marked.
One decoder thread: pixels of damaged files depend on the number of threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from tristream.media.clocks import Clocks, FileClocks
from tristream.media.judging import Outcome
from tristream.media.limits import DEFAULT_LIMITS, Limits, Wanted
from tristream.media.opening import decoder_options, open_media
from tristream.media.pictures import GAP_SECONDS, Pictures, choose_picture_track, too_large
from tristream.media.reasons import Rejected
from tristream.media.sound import SAMPLE_RATE, Sound, choose_sound_track

if TYPE_CHECKING:
    from av import AudioFrame, Packet, VideoFrame
    from av.container import InputContainer

__all__ = ["SAMPLE_RATE", "DecodedVideo", "Limits", "Rejected", "decode_video", "decoder_build"]

DECODE_SCHEMA = 3  # raised by hand when the same file decodes to other values; 3: resampling filter
PATIENCE_SECONDS = 10.0  # by which one track may lag behind the other in the file


@dataclass(frozen=True, kw_only=True)
class DecodedVideo:
    """Frames and audio of one file, on one clock: presentation times minus the container's start.

    Attributes:
        frames: RGB, upright, all of one size; None if not requested, or not usable.
        start_seconds: start of each frame; strictly increasing.
        stop_seconds: start of the next frame; the last, and one before a hole, lasts one median step.
        suspect: frames from a decode error to the next clean key frame.
        samples: 16 kHz mono in [−1, 1], holes are silent; None if not requested, or not usable.
        samples_start_seconds: time of samples[0].
        samples_stop_seconds: end of the last sample; both 0 without audio.
        reasons: sorted keys of `media.reasons.DEGRADED`; empty means ok.
        source_height: px of the first frame, upright; None without frames, as the next two.
        source_width: px.
        source_fps: declared mean frame rate; None if the container declares none.
        n_declared_frames: None if the container does not count them.
        n_decoded_frames: all decoded frames, inside the requested interval or not.
        n_decode_errors: packets of either track that could not be decoded, and read errors.
        known_seconds: of a piece (media/chunks.py): everything before it is in this piece or an earlier one.
    """

    frames: UInt8[np.ndarray, "T H W 3"] | None
    start_seconds: Float64[np.ndarray, " T"]
    stop_seconds: Float64[np.ndarray, " T"]
    suspect: Bool[np.ndarray, " T"]
    samples: Float32[np.ndarray, " n"] | None
    samples_start_seconds: float
    samples_stop_seconds: float
    reasons: tuple[str, ...]
    source_height: int | None
    source_width: int | None
    source_fps: float | None
    n_declared_frames: int | None
    n_decoded_frames: int
    n_decode_errors: int
    known_seconds: float = np.inf


def decoder_build() -> str:
    """Version of the decoder, for cache keys: another version may decode to other pixels."""
    import av

    return f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}, schema {DECODE_SCHEMA}"


def decode_video(
    path: Path,
    *,
    pictures: bool = True,
    sound: bool = True,
    keep: bool = True,
    max_side: int | None = None,
    start_seconds: float = 0.0,
    stop_seconds: float | None = 36.0,
    limits: Limits = DEFAULT_LIMITS,
    root: Path | None = None,
    follow_links: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> DecodedVideo:
    """Decode the frames and audio of a file in the half-open interval [start_seconds, stop_seconds).

    Args:
        path: the file.
        pictures: True if frames are wanted.
        sound: True if audio is wanted.
        keep: False decodes and judges everything in constant memory: `frames` and `samples` are None.
        max_side: frames are scaled down by averaging areas, never up, until the longer side has at most so many px.
        start_seconds: start of the interval; decoding begins at the file's start, so that no time is estimated.
        stop_seconds: None means the end of the file.
        limits: resources that one file may use.
        root: folder that must contain the file; None means any.
        follow_links: allow links that lead out of `root`.
        on_progress: called with the seconds decoded so far.

    Raises:
        Rejected: nothing that was requested is usable, or frames were requested and the file has a video track without
            any. (A file without a video track is degraded, `no_video`. One with a broken video track is a broken file,
            and its audio is not trusted either; its audio alone can be requested.)
    """
    stop = np.inf if stop_seconds is None else float(stop_seconds)
    wanted = Wanted(start_seconds=start_seconds, stop_seconds=stop, max_side=max_side, keep=keep)
    with (
        open_media(path, limits=limits, root=root, follow_links=follow_links) as container,
        ffmpeg_messages() as messages,
    ):
        clocks = FileClocks(
            lambda: open_media(path, limits=limits, root=root, follow_links=follow_links)
        )
        job = Decoding(container, path, wanted, limits, messages, clocks=clocks)
        if pictures:
            job.want_pictures()
        if sound:
            job.want_sound()
        job.run(on_progress or (lambda _: None))
        return job.result(pictures=pictures, sound=sound)


class Decoding:
    """One pass over the packets of a file."""

    def __init__(
        self,
        container: InputContainer,
        path: Path,
        wanted: Wanted,
        limits: Limits,
        messages: list,
        *,
        clocks: Clocks | None = None,
        by_arrival: bool = False,
    ) -> None:
        self.pictures: Pictures | None = None
        self.sound: Sound | None = None
        self._container = container
        self._path = path
        self._wanted = wanted
        self._limits = limits
        self._messages = messages
        self._reasons: set[str] = set()
        self._origin = None if container.start_time is None else container.start_time / 1e6
        self._n_errors = 0
        self._read_to_the_end = False
        self._clocks = clocks
        self._by_arrival = by_arrival
        self._started: set[int] = set()  # tracks with a frame
        self._early: dict[int, float] = {}  # seconds by which tracks were moved ahead

    def want_pictures(self) -> None:
        """Choose the video track, if there is one."""
        track = choose_picture_track(self._container, self._path, self._reasons)
        if track is not None:
            self.pictures = Pictures(
                track,
                self._path,
                self._wanted,
                limits=self._limits,
                reasons=self._reasons,
                by_arrival=self._by_arrival,
            )

    def want_sound(self) -> None:
        """Choose the audio track, if there is one."""
        track = choose_sound_track(self._container, self._reasons)
        if track is not None:
            self.sound = Sound(
                track, self._path, self._wanted, limits=self._limits, reasons=self._reasons
            )

    def run(self, on_progress: Callable[[float], None]) -> None:
        """Decode until both tracks have reached the end of the wanted interval, or of the file."""
        for reached_seconds in self.steps():
            on_progress(reached_seconds)

    def steps(self) -> Iterator[float]:
        """Run packet by packet; yield the seconds decoded so far after each."""
        from av.error import FFmpegError

        parts: list[Pictures | Sound] = [
            part for part in (self.pictures, self.sound) if part is not None
        ]
        for part in parts:
            part.track.codec_context.thread_count = 1
            part.track.codec_context.options = decoder_options(self._limits)
        for packet in self._packets(parts):
            part = next(part for part in parts if part.track.index == packet.stream.index)
            if not part.done:
                self._decode(packet, part)
                yield max(part.played_seconds for part in parts)
            elif self._time(packet) > self._wanted.stop_seconds + PATIENCE_SECONDS and not any(
                self._will_begin(part) for part in parts
            ):
                break
            if all(part.done for part in parts):
                break
        else:
            self._read_to_the_end = True
        if self.sound is not None:
            try:
                self.sound.finish()
            except FFmpegError:  # its sample format cannot be converted
                self._error()

    def _packets(self, parts: list[Pictures | Sound]) -> Iterator[Packet]:
        from av.error import FFmpegError

        if not parts:
            return
        packets = self._container.demux(*(part.track for part in parts))
        try:
            yield from packets
        except FFmpegError:
            self._error()
        except IndexError:  # PyAV fails at the very end over tracks that appeared after opening
            return

    def _decode(self, packet: Packet, part: Pictures | Sound) -> None:
        from av.error import FFmpegError

        part.n_packets += bool(packet.size)
        try:
            frames = packet.decode()
        except MemoryError as error:
            raise Rejected(
                "out_of_memory", self._path, "needs more memory to decode than allowed"
            ) from error
        except FFmpegError as error:
            if any(
                "exceeds specified max pixel count" in message for _, _, message in self._messages
            ):
                raise too_large(self._path, self._limits) from error
            self._error()
            part.damaged(packet)
            return
        self._messages.clear()
        for frame in frames:
            if self._origin is None:  # not declared: time begins with the first decoded frame
                self._origin = 0.0 if frame.pts is None else float(frame.pts * frame.time_base)
            if part.track.index not in self._started:
                self._started.add(part.track.index)
                self._close_first_gap(frame, part)
            try:
                part.receive(frame, self._origin)  # type: ignore[arg-type]  # a track gives its own kind of frame
            except FFmpegError:  # its pixel or sample format cannot be converted
                self._error()

    def _close_first_gap(self, frame: VideoFrame | AudioFrame, part: Pictures | Sound) -> None:
        """Move a track ahead that has a clock of its own (media/clocks.py)."""
        if self._clocks is None or frame.pts is None or not frame.time_base:
            return
        start = float(frame.pts * frame.time_base) - (self._origin or 0.0)
        if start <= GAP_SECONDS:
            return
        other = self.sound if part is self.pictures else self.pictures
        reached = 0.0 if other is None else other.reached_seconds
        early = self._clocks.early_seconds(part.track.index, start, reached)
        if early:
            self._reasons.add("timestamp_gap")
            self._early[part.track.index] = early
            part.move(-early)

    def _will_begin(self, part: Pictures | Sound) -> bool:
        """True if a track without a frame so far has a clock of its own, and begins later in the file."""
        if part.n_packets or part.done or self._clocks is None:
            return False
        span = self._clocks.span(part.track.index)
        part.begins_later = span is not None
        return span is not None and bool(self._clocks.early_seconds(part.track.index, span[0], 0.0))

    def _error(self) -> None:
        self._n_errors += 1
        self._reasons.add("decode_errors")

    def _time(self, packet: Packet) -> float:
        return (
            -np.inf
            if packet.pts is None
            else float(packet.pts * packet.time_base)
            - (self._origin or 0.0)
            - self._early.get(packet.stream.index, 0.0)
        )

    def result(self, *, pictures: bool, sound: bool) -> DecodedVideo:
        """Return the decoded video, judged.

        Raises:
            Rejected: nothing is usable.
        """
        nothing = np.empty(0), np.empty(0), np.empty(0, bool)
        starts, stops, suspect = self.pictures.times() if self.pictures else nothing
        samples, begins = self.sound.samples() if self.sound else (None, 0.0)
        self.outcome().judge(pictures=pictures, sound=sound)
        heard = self.sound.stop_seconds if self.sound and not self.sound.is_silent else None
        return DecodedVideo(
            frames=self.pictures.frames() if self.pictures else None,
            start_seconds=starts,
            stop_seconds=stops,
            suspect=suspect,
            samples=samples,
            samples_start_seconds=begins,
            samples_stop_seconds=heard or 0.0,
            **self.findings(),
        )

    def findings(self) -> dict[str, Any]:
        """Return the findings so far as fields of `DecodedVideo`."""
        track = self.pictures.track if self.pictures else None
        return {
            "reasons": tuple(sorted(self._reasons)),
            "source_height": self.pictures.size[0]
            if self.pictures and self.pictures.size
            else None,
            "source_width": self.pictures.size[1] if self.pictures and self.pictures.size else None,
            "source_fps": float(track.average_rate)
            if track is not None and track.average_rate
            else None,
            "n_declared_frames": (track.frames or None) if track is not None else None,
            "n_decoded_frames": self.pictures.n_decoded if self.pictures else 0,
            "n_decode_errors": self._n_errors,
        }

    def outcome(self) -> Outcome:
        """State of this decoding, to be judged once everything has been decoded."""
        return Outcome(
            path=self._path,
            container=self._container,
            pictures=self.pictures,
            sound=self.sound,
            reasons=self._reasons,
            n_errors=self._n_errors,
            read_to_the_end=self._read_to_the_end,
            early_seconds=max(self._early.values(), default=0.0),
        )


@contextlib.contextmanager
def ffmpeg_messages() -> Iterator[list]:
    """Collect FFmpeg's error messages of this thread: only they tell some failures apart."""
    import av.logging

    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture() as messages:
            yield messages
    finally:
        av.logging.set_level(level)
