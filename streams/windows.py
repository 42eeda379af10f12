"""Windows of a video of any length, cut from a ring of its last seconds: constant memory, each flow once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from tristream.errors import TristreamError
from tristream.media.decode import SAMPLE_RATE, DecodedVideo
from tristream.streams.config import Crop, DataConfig, SamplerConfig
from tristream.streams.flow_estimators import Estimators
from tristream.streams.video import FlowSource, Video, View, part, squash

SEGMENTS_PER_SECOND = 5.0  # the paper's budget, 180 segments for 36 s (Tkachenko 2018, IV-F)
SCHEMA = 1  # raised by hand when the same video gives other windows
MEMBERSHIP = 2  # raised by hand when only some videos give others; in cache keys, not in spaces
_SLACK_SECONDS = 1e-6  # times are sums of fractions: 1.9999999999 s is 2 s


@dataclass(frozen=True)
class WindowPlan:
    """Plan for cutting a long video into windows.

        seconds 2, hop_seconds 1:   |-------|           0 – 2 s
                                        |-------|       1 – 3 s
                                          |-------|     the last one ends with the video

    Attributes:
        seconds: length of a window; 0 is the whole video.
        hop_seconds: from the start of one window to the start of the next.
        regions: rows and columns of cells that every frame is cut into; (1, 1) is the whole frame. Further cells,
            shifted by half a cell, show objects on a border whole: 4 × 6 cells give 7 × 11 regions.
    """

    seconds: float = 0.0
    hop_seconds: float = 0.0
    regions: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if self.seconds < 0 or not math.isfinite(self.seconds):
            raise TristreamError(
                f"a window of {self.seconds:g} s; its length must be above 0, or 0 for whole videos"
            )
        if self.seconds and not 0 < self.hop_seconds <= self.seconds:
            raise TristreamError(
                f"a hop of {self.hop_seconds:g} s with windows of {self.seconds:g} s; it must be above 0 and at most "
                "the window's length, so that no part of the video lies between two windows"
            )
        if min(self.regions) < 1:
            raise TristreamError(
                f"{self.regions[0]}x{self.regions[1]} regions; there must be at least 1 row and 1 column"
            )

    @property
    def n_samples(self) -> int:
        """Number of segments of one window."""
        return max(1, round(SEGMENTS_PER_SECOND * self.seconds))

    def sampler(self, sampler: SamplerConfig) -> SamplerConfig:
        """Return the sampler with a window's budget."""
        return sampler.model_copy(
            update={"n_samples": self.n_samples, "max_seconds": self.seconds or 1.0}
        )

    def identity(self) -> dict[str, Any]:
        """Return what defines the embedding of a window, besides the stream."""
        return {
            "window_seconds": self.seconds,
            "hop_seconds": self.hop_seconds,
            "regions": list(self.regions),
            "n_samples": self.n_samples,
            "schema": SCHEMA,
        }

    def cells(self) -> list[Region]:
        """Return every region, row by row."""
        rows, columns = self.regions
        return [
            Region(top / (2 * rows), left / (2 * columns), 1 / rows, 1 / columns)
            for top in range(2 * rows - 1)
            for left in range(2 * columns - 1)
        ]


@dataclass(frozen=True)
class Region:
    """Rectangle of the frame, in parts of its height and width."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0

    @property
    def name(self) -> str:
        """Media fragment of a URL (W3C Media Fragments); "" for the whole frame."""
        if (self.height, self.width) == (1, 1):
            return ""
        parts = (self.left, self.top, self.width, self.height)
        return "#xywh=percent:" + ",".join(f"{100 * part:.6g}" for part in parts)

    def of(self, size: tuple[int, ...]) -> tuple[slice, slice]:
        """Return rows and columns of a frame of this height and width."""
        height, width = max(1, round(self.height * size[0])), max(1, round(self.width * size[1]))
        top = min(round(self.top * size[0]), size[0] - height)
        left = min(round(self.left * size[1]), size[1] - width)
        return slice(top, top + height), slice(left, left + width)


@dataclass(eq=False)
class Window:
    """Content of one window. Its flow must be read before the ring takes the next piece."""

    start_seconds: float
    stop_seconds: float
    decoded: DecodedVideo
    ring: Ring = field(repr=False)
    first_frame: int

    def video(
        self, video_id: str, path: Path, region: Region, *, data: DataConfig, sampler: SamplerConfig
    ) -> Video:
        """Return one region of the window as the streams see a video.

        Args:
            video_id, path: of the long video.
            region: part of the frame.
            data: of the streams; the ring has cropped the frames.
            sampler: with a window's budget (`WindowPlan.sampler`).
        """
        decoded = self.decoded
        n_frames = len(decoded.start_seconds)
        if decoded.frames is not None:
            rows, columns = region.of(decoded.frames.shape[1:3])
            decoded = replace(decoded, frames=decoded.frames[:, rows, columns])

        def estimate(estimator: str, height: int, width: int) -> Float[np.ndarray, "steps 2 H W"]:
            return self.ring.flow(
                estimator,
                (height, width),
                region,
                self.first_frame,
                self.first_frame + n_frames - 1,
            )

        def given() -> Float[np.ndarray, "steps 2 H W"]:
            last = self.first_frame + n_frames - 1
            return self.ring.given_flow(region, self.first_frame, last)

        window = Video(
            video_id + region.name,
            path,
            "",
            decode=lambda *_, **__: decoded,
            cache=None,
            view=View(data.model_copy(update={"crop": None}), sampler),  # the ring has cropped it
            flow_source=FlowSource(
                known=estimate, given=given if self.ring.has_given_flow else None
            ),
        )
        window.decoded = decoded
        return window


class Ring:
    """Last seconds of a video that arrives in pieces.

    Args:
        plan: of the windows; not of whole videos.
        crop: part of every frame that is used, as in `[data]`; regions are parts of it.
        estimators: of optical flow; None: those that need no weights.
        precomputed: (first, last) → precomputed flow of the whole frame between the frames
            first … last; None: there is none.
    """

    def __init__(
        self,
        plan: WindowPlan,
        crop: Crop | None = None,
        estimators: Estimators | None = None,
        precomputed: Callable[[int, int], Float[np.ndarray, "steps 2 H W"]] | None = None,
    ) -> None:
        if not plan.seconds:
            raise TristreamError("a ring needs windows; the plan says whole videos (0 s)")
        self._plan = plan
        self._estimators = estimators or Estimators()
        self._precomputed = precomputed
        self._crop = crop or (0.0, 0.0, 1.0, 1.0)
        self._frames: deque[UInt8[np.ndarray, "H W 3"]] = deque()
        self._times: deque[tuple[float, float, bool]] = deque()  # start, stop, suspect
        self._first = 0  # number of the oldest frame
        self._flows: dict[tuple[str, int, int], dict[int, Float32[np.ndarray, "2 H W"]]] = {}
        self._samples: Float32[np.ndarray, " n"] = np.zeros(0, np.float32)
        self._samples_start: float | None = None
        self._latest: DecodedVideo | None = None
        self._n_cut = 0  # windows on the grid that have been cut, or held nothing
        self._last_stop = -math.inf
        self._end = 0.0

    def add(self, piece: DecodedVideo) -> Iterator[Window]:
        """Add the next piece; yield the windows that are complete."""
        self._take(piece)
        known = min(piece.known_seconds, self._end) + _SLACK_SECONDS
        while (stop := self._grid(self._n_cut) + self._plan.seconds) <= known:
            yield from self._cut(self._grid(self._n_cut), stop)
            self._n_cut += 1
            self._forget(self._grid(self._n_cut))

    def finish(self) -> Iterator[Window]:
        """Yield the windows that are complete because the video ends: the rest of the grid, and one that ends with it.

        A video shorter than a window is one window.
        """
        seconds, hop = self._plan.seconds, self._plan.hop_seconds
        while self._grid(self._n_cut) + seconds <= self._end + _SLACK_SECONDS:
            start = self._grid(self._n_cut)
            yield from self._cut(start, start + seconds)
            self._n_cut += 1
        if self._end > 0 and (
            self._last_stop == -math.inf or self._end - self._last_stop > hop / 2
        ):
            yield from self._cut(max(0.0, self._end - seconds), self._end)

    def flow(
        self, estimator: str, size: tuple[int, int], region: Region, first: int, last: int
    ) -> Float[np.ndarray, "steps 2 H W"]:
        """Return the flow of a region between the frames first … last, in px of the region at `size`.

        It is estimated on the whole frame, once for each pair of frames, and never at a larger size than the frame's.
        """
        height, width = size
        frame = self._frames[0].shape
        whole = (round(height / region.height), round(width / region.width))
        if whole[0] * whole[1] > frame[0] * frame[1] and region.name:
            whole = (frame[0], frame[1])
        known = self._flows.setdefault((estimator, *whole), {})
        missing = [step for step in range(first, last) if step not in known]
        if missing:
            frames = [self._frames[n - self._first] for n in range(missing[0], missing[-1] + 2)]
            fields = self._estimators.load(estimator)(squash(np.stack(frames), *whole))
            known.update(zip(range(missing[0], missing[-1] + 1), fields, strict=True))
        rows, columns = region.of(whole)
        return _resize(
            np.stack([known[step][:, rows, columns] for step in range(first, last)]), height, width
        )

    @property
    def has_given_flow(self) -> bool:
        """True if the video has precomputed flow."""
        return self._precomputed is not None

    def given_flow(self, region: Region, first: int, last: int) -> Float[np.ndarray, "steps 2 H W"]:
        """Return precomputed flow of a region between the frames first … last.

        Its unit is px of the region at the size of the whole cropped field, as if the region had
        been magnified to that size before its flow was computed.
        """
        assert self._precomputed is not None
        flow = self._precomputed(first, last)
        rows, columns = part(flow.shape[2:], self._crop)
        flow = flow[:, :, rows, columns]
        height, width = flow.shape[2:]
        rows, columns = region.of((height, width))
        return _resize(flow[:, :, rows, columns], height, width)

    def _grid(self, k: int) -> float:
        return k * self._plan.hop_seconds

    def _take(self, piece: DecodedVideo) -> None:
        self._latest = piece
        for n, (start, stop, suspect) in enumerate(
            zip(
                piece.start_seconds.tolist(),
                piece.stop_seconds.tolist(),
                piece.suspect.tolist(),
                strict=True,
            )
        ):
            self._times.append((start, stop, suspect))
            if piece.frames is not None:
                rows, columns = part(piece.frames.shape[1:3], self._crop)
                self._frames.append(piece.frames[n, rows, columns])
            self._end = max(self._end, stop)
        if piece.samples is not None:
            self._append(piece.samples, piece.samples_start_seconds)
            self._end = max(self._end, piece.samples_stop_seconds)

    def _append(self, samples: Float32[np.ndarray, " n"], start_seconds: float) -> None:
        """Append samples at their time; a hole before them is silent."""
        if self._samples_start is None or not len(self._samples):
            self._samples, self._samples_start = samples, start_seconds
            return
        gap = round((start_seconds - self._samples_start) * SAMPLE_RATE) - len(self._samples)
        longest = round((self._plan.seconds + 1) * SAMPLE_RATE)
        if gap > longest:  # no window reaches across
            self._samples, self._samples_start = samples, start_seconds
            return
        self._samples = np.concatenate([self._samples, np.zeros(max(0, gap), np.float32), samples])

    def _cut(self, start: float, stop: float) -> Iterator[Window]:
        """Yield the window [start, stop), unless it is empty."""
        assert self._latest is not None
        inside = self._frames_in(start, stop)
        samples, audio_start = self._audio(start, stop)
        if not inside and samples is None:
            return
        chosen = [self._times[n] for n in inside]
        starts, stops, suspect = (np.array([time[i] for time in chosen]) for i in range(3))
        frames = np.stack([self._frames[n] for n in inside]) if inside and self._frames else None
        decoded = replace(
            self._latest,
            frames=frames,
            start_seconds=starts.astype(np.float64),
            stop_seconds=stops.astype(np.float64),
            suspect=suspect.astype(bool),
            samples=samples,
            samples_start_seconds=audio_start,
            samples_stop_seconds=audio_start
            + (0 if samples is None else len(samples)) / SAMPLE_RATE,
            reasons=(),
        )
        self._last_stop = stop
        yield Window(start, stop, decoded, self, self._first + (inside[0] if inside else 0))

    def _frames_in(self, start: float, stop: float) -> list[int]:
        """Return the places in the ring of the frames of the window [start, stop).

        They are those that begin in it. If fewer than two do, the video is slow, and the frame
        that is shown when the window starts belongs to it too.

            frames      |--- 0 ---|--- 1 ---|
            window 1         |----|             0
            window 2           |----|           0, 1
        """
        low, high = start - _SLACK_SECONDS, stop - _SLACK_SECONDS
        begun = [n for n, (begins, _, _) in enumerate(self._times) if low <= begins < high]
        if len(begun) >= 2:
            return begun
        shown_from = start + _SLACK_SECONDS
        return [
            n
            for n, (begins, ends, _) in enumerate(self._times)
            if begins < high and (begins >= low or ends > shown_from)
        ]

    def _audio(self, start: float, stop: float) -> tuple[Float32[np.ndarray, " n"] | None, float]:
        if self._samples_start is None:
            return None, 0.0
        begins = round(self._samples_start * SAMPLE_RATE)
        low = max(0, round(start * SAMPLE_RATE) - begins)
        high = min(len(self._samples), round(stop * SAMPLE_RATE) - begins)
        if high <= low:
            return None, 0.0
        return self._samples[low:high].copy(), (begins + low) / SAMPLE_RATE

    def _forget(self, before: float) -> None:
        """Drop what no window can need: all before the next window and before one that ends with the video."""
        kept_from = min(before, self._end - self._plan.seconds) - _SLACK_SECONDS
        while self._times:
            begins, ends, _ = self._times[0]
            if begins >= kept_from or ends > kept_from + 2 * _SLACK_SECONDS:
                break  # it begins in a window to come, or is still shown when one starts
            self._times.popleft()
            if self._frames:
                self._frames.popleft()
            self._first += 1
        for known in self._flows.values():
            for step in [step for step in known if step < self._first]:
                del known[step]
        if self._samples_start is not None:
            n = round((kept_from - self._samples_start) * SAMPLE_RATE)
            if n > 0:
                n = min(n, len(self._samples))
                self._samples = self._samples[n:].copy()
                self._samples_start = (round(self._samples_start * SAMPLE_RATE) + n) / SAMPLE_RATE


def _resize(
    fields: Float[np.ndarray, "steps 2 H W"], height: int, width: int
) -> Float32[np.ndarray, "steps 2 H2 W2"]:
    """Resize fields and scale their vectors."""
    if fields.shape[2:] == (height, width):
        return fields
    import cv2

    scale = np.array([width / fields.shape[3], height / fields.shape[2]], np.float32)
    how = cv2.INTER_AREA if height * width < fields.shape[2] * fields.shape[3] else cv2.INTER_LINEAR
    resized = [
        cv2.resize(np.ascontiguousarray(one.transpose(1, 2, 0)), (width, height), interpolation=how)
        for one in fields
    ]
    return (np.stack(resized) * scale).transpose(0, 3, 1, 2)
