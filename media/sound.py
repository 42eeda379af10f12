"""Audio track of a file: 16 kHz mono on the clock of the frames, holes filled with silence.

Mono is the mean of all channels, as in the code of VGGish and YAMNet. (FFmpeg's downmix adds the channels of a stereo
track at 0.71 each: equal channels come out 3 dB louder, and clipped.)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from tristream.media.limits import Limits, Wanted
from tristream.media.opening import usable
from tristream.media.pictures import GAP_SECONDS, RESTART_SECONDS
from tristream.media.reasons import Rejected
from tristream.media.resampling import Resampler

if TYPE_CHECKING:
    from av import AudioFrame, Packet
    from av.audio.stream import AudioStream
    from av.container import InputContainer

SAMPLE_RATE = 16_000
JITTER_SECONDS = 0.04  # smaller deviations of time stamps (milliseconds in Matroska) are ignored
# Hz of the source; a resampler for the 855 MHz of a damaged header never finishes its filter.
_RATES = (1_000, 768_000)
_MAX_PLANES = 7  # from 8 on PyAV reads beyond the list of planes, and the process may crash
# Silence that replaces missing audio in a stream of pieces; a longer hole stays a hole.
_LONGEST_SILENCE_SECONDS = 60.0
_SHARE_FOR_SOUND = 8  # one eighth of a decode process's memory
SILENCE_SPREAD = (
    2.0**-15
)  # one step of 16 bits; digital silence in AC-3 (1e-7) and A-law (a constant) is below
CANCELLED_SHARE = 0.01  # of the channels' energy; N channels of which one sounds keep 1 / N


def choose_sound_track(container: InputContainer, reasons: set[str]) -> AudioStream | None:
    """Return the default track, else the first, of those that can be decoded here; None if there is none."""
    from av.stream import Disposition

    tracks = container.streams.audio
    candidates = [track for track in tracks if usable(track) is None]
    reasons.update(reason for track in tracks if not candidates and (reason := usable(track)))
    return min(
        candidates,
        key=lambda track: (not track.disposition & Disposition.default, track.index),
        default=None,
    )


class Sound:
    """Collect the samples of one track.

    Args:
        track: to be decoded.
        path: for messages.
        wanted: interval, and True if samples are kept.
        limits: seconds, memory.
        reasons: degradations are added here.
    """

    def __init__(
        self,
        track: AudioStream,
        path: Path,
        wanted: Wanted,
        *,
        limits: Limits,
        reasons: set[str],
    ) -> None:
        self.track = track
        self.done = False
        self.begins_later = False  # no sample was reached, though the file has some
        self.n_packets = 0
        self.played_seconds = 0.0
        self._path = path
        # Sample numbers count from the container's start.
        self._first = round(wanted.start_seconds * SAMPLE_RATE)
        self._last = (
            None if np.isinf(wanted.stop_seconds) else round(wanted.stop_seconds * SAMPLE_RATE)
        )
        self._keep = wanted.keep
        self._limits = limits
        self._reasons = reasons
        self._resampler: Resampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._begins = 0.0  # start of the current stretch of unbroken audio
        self._n_input = 0  # samples of the current stretch so far, at the rate of the source
        self._newest = 0.0  # start of the newest frame
        self._next = 0  # number of the next sample
        self._end = 0  # one past the last sample taken; overlapping samples are dropped
        self._shift = 0.0
        self._begin: int | None = None
        self._pieces: list[tuple[int, Float32[np.ndarray, " n"]]] = []
        self._drained: int | None = None  # number of the first sample that was not drained
        self._lowest, self._highest = np.inf, -np.inf  # of the wanted samples
        self._energy = self._mixed_energy = (
            0.0  # mean over the channels; of the mean of the channels
        )

    def receive(self, frame: AudioFrame, origin_seconds: float) -> None:
        """Take the next samples.

        Raises:
            Rejected: more audio than one file may have.
        """
        if not frame.samples:
            return
        if not _RATES[0] <= frame.sample_rate <= _RATES[1]:
            self._reasons.add("decode_errors")
            return
        frame = self._finite(frame)
        self._follow_clock(frame, origin_seconds)
        self._n_input += frame.samples
        self.played_seconds += frame.samples / frame.sample_rate
        if self.played_seconds > self._limits.max_seconds:
            raise Rejected(
                "too_long",
                self._path,
                f"has more than {self._limits.max_seconds:g} s of audio; cut it",
            )
        assert self._resampler is not None
        for resampled in self._resampler.resample(frame):
            self._append(_channels(resampled))

    def move(self, seconds: float) -> None:
        """Add to the times of all samples to come."""
        self._shift += seconds

    def damaged(self, packet: Packet) -> None:
        """Do nothing: missing audio becomes silence by the time stamps that follow."""

    def finish(self) -> None:
        """Flush the resampler."""
        resampler, self._resampler, self._format = self._resampler, None, None
        for resampled in resampler.resample(None) if resampler is not None else ():
            self._append(_channels(resampled))

    @property
    def is_silent(self) -> bool:
        """True if there are wanted samples, and all of them are equal to within one step of 16 bits."""
        return self._begin is not None and not self._highest - self._lowest >= SILENCE_SPREAD

    @property
    def is_cancelled(self) -> bool:
        """True if the mean of the channels keeps less than 1 % of their energy, as of opposite phases."""
        return self._mixed_energy < CANCELLED_SHARE * self._energy

    def samples(self) -> tuple[Float32[np.ndarray, " n"] | None, float]:
        """Return all samples in [−1, 1] and the time of the first; None if there are none.

        A silent track counts as having none: it would embed to one vector for all videos.
        """
        if self._begin is None or self.is_silent:
            return None, 0.0
        begins = self._begin / SAMPLE_RATE
        if not self._keep:
            return None, begins
        n_bytes = 4 * (self._end - self._begin)
        if n_bytes > self._limits.memory_bytes // _SHARE_FOR_SOUND:
            raise Rejected(
                "too_long",
                self._path,
                f"has {n_bytes >> 20} MiB of audio; request fewer seconds at once",
            )
        samples = np.zeros(self._end - self._begin, np.float32)
        for first, piece in self._pieces:
            samples[first - self._begin : first - self._begin + len(piece)] = piece
        return self._finished(samples), begins

    def _finished(self, samples: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        if not np.isfinite(samples).all():
            self._reasons.add("nonfinite_audio")
            samples[~np.isfinite(samples)] = 0
        return np.clip(samples, -1, 1, out=samples)

    def drain(self, before_seconds: float) -> tuple[Float32[np.ndarray, " n"] | None, float]:
        """Remove and return the samples before a time, as `samples`; each call continues where the last ended."""
        first = self._undrained()
        if first is None:
            return None, 0.0
        last = min(
            self._end,
            self._end if np.isinf(before_seconds) else round(before_seconds * SAMPLE_RATE),
        )
        if last <= first:
            return None, 0.0
        samples = np.zeros(last - first, np.float32)
        rest = []
        for start, piece in self._pieces:
            low, high = max(start, first), min(start + len(piece), last)
            if low < high:
                samples[low - first : high - first] = piece[low - start : high - start]
            if start + len(piece) > last:
                rest.append((start, piece))
        self._pieces, self._drained = rest, last
        return self._finished(samples), first / SAMPLE_RATE

    @property
    def first_seconds(self) -> float | None:
        """Time of the first sample that was kept and not drained; None if there is none."""
        first = self._undrained()
        return None if first is None or first >= self._end else first / SAMPLE_RATE

    @property
    def next_seconds(self) -> float:
        """Time of the next sample; all earlier ones have arrived."""
        return self._next / SAMPLE_RATE

    @property
    def reached_seconds(self) -> float:
        """Start of the next sample, wanted or not."""
        return self.next_seconds

    @property
    def stop_seconds(self) -> float | None:
        """End of the last wanted sample; None if there is none."""
        return None if self._begin is None else self._end / SAMPLE_RATE

    def _undrained(self) -> int | None:
        """Number of the first sample that `drain` returns next: where it stopped, unless a long hole follows."""
        first = self._begin if self._drained is None else self._drained
        if first is None or not self._pieces:
            return first
        following = self._pieces[0][0]
        return following if following - first > _LONGEST_SILENCE_SECONDS * SAMPLE_RATE else first

    def _finite(self, frame: AudioFrame) -> AudioFrame:
        """Return the frame with silence for NaN and infinite samples, which a resampler would spread."""
        if (
            not frame.format.name.startswith(("flt", "dbl"))
            or len(frame.layout.channels) > _MAX_PLANES
        ):
            return frame
        values = frame.to_ndarray()
        wrong = ~np.isfinite(values)
        if not wrong.any():
            return frame
        from av import AudioFrame

        self._reasons.add("nonfinite_audio")
        values[wrong] = 0
        clean = AudioFrame.from_ndarray(values, format=frame.format.name, layout=frame.layout.name)
        clean.sample_rate, clean.pts, clean.time_base = (
            frame.sample_rate,
            frame.pts,
            frame.time_base,
        )
        return clean

    def _follow_clock(self, frame: AudioFrame, origin_seconds: float) -> None:
        """Begin a new stretch if the time stamps show that audio is missing, or if its format changes."""
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        expected = self._begins + self._n_input / frame.sample_rate
        start = expected
        if frame.pts is not None and frame.time_base:
            start = float(frame.pts * frame.time_base) - origin_seconds + self._shift
        unbroken = self._format == source and abs(start - expected) <= JITTER_SECONDS
        if self._format is not None and start < self._newest - JITTER_SECONDS:
            self._reasons.add("timestamps_not_monotonic")
            if expected - start > RESTART_SECONDS:
                self._shift += expected - start
                start, unbroken = expected, self._format == source
        self._newest = start
        if unbroken:
            return
        if self._format is not None and start - expected > GAP_SECONDS:
            self._reasons.add("timestamp_gap")
        self.finish()
        self._resampler = Resampler(frame, SAMPLE_RATE)  # one plane, however many channels
        self._format = source
        self._begins, self._n_input = start, 0
        self._next = round(start * SAMPLE_RATE)

    def _append(self, channels: Float32[np.ndarray, "n C"]) -> None:
        piece = channels.mean(axis=1, dtype=np.float32)
        first, self._next = self._next, self._next + len(piece)
        if self._last is not None and self._next >= self._last:
            self.done = True
        low = max(0, self._first - first, self._end - first)
        high = len(piece) if self._last is None else min(len(piece), self._last - first)
        if high <= low:
            return
        self._begin = first + low if self._begin is None else self._begin
        self._end = first + high
        self._measure(channels[low:high], piece[low:high])
        if self._keep:
            self._pieces.append((first + low, piece[low:high].copy()))

    def _measure(
        self, channels: Float32[np.ndarray, "n C"], mixed: Float32[np.ndarray, " n"]
    ) -> None:
        self._lowest = np.fmin(self._lowest, np.fmin.reduce(mixed))  # fmin and fmax pass over NaN
        self._highest = np.fmax(self._highest, np.fmax.reduce(mixed))
        self._energy += float(np.square(channels, dtype=np.float64).sum()) / channels.shape[1]
        self._mixed_energy += float(np.square(mixed, dtype=np.float64).sum())


def _channels(frame: AudioFrame) -> Float32[np.ndarray, "n C"]:
    """Sample of a frame of interleaved samples, one column per channel."""
    return frame.to_ndarray().reshape(-1, len(frame.layout.channels))
