"""Video as the streams see it: decoded, and its flow and motion computed, at most once."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64, UInt8

from tristream.flow import precomputed, storage
from tristream.flow.sampling import motion_lengths
from tristream.media import paged
from tristream.media.reasons import Rejected
from tristream.store.lineage import versions
from tristream.streams.config import Crop, DataConfig, SamplerConfig
from tristream.streams.flow_estimators import Estimators
from tristream.streams.segments import Absent
from tristream.streams.timings import Stages

if TYPE_CHECKING:
    from tristream.media.decode import DecodedVideo
    from tristream.store.cache import Cache

BLOCK = 32  # pairs of frames at a time: the flow of a whole video is never in memory
FLOW_SCHEMA = 2  # raised by hand when flow or motion of the same video change


@runtime_checkable
class Decoder(Protocol):
    """Decoder of frames and audio (`media.sandbox.pool.DecodePool`, with its limits)."""

    def __call__(
        self, path: Path, *, pictures: bool, sound: bool, max_side: int, stop_seconds: float
    ) -> DecodedVideo:
        """Return frames of at most `max_side` px on the longer side, of the first `stop_seconds`."""


@dataclass(frozen=True)
class Flow:
    """Optical flow of a whole video and the times of its frames.

    Attributes:
        field: (T − 1, 2, H, W) float16, px at the size it was estimated at; x, then y.
        start_seconds: of the T frames.
        stop_seconds: of the T frames.
    """

    field: Float[np.ndarray, "steps 2 H W"]
    start_seconds: Float64[np.ndarray, " T"]
    stop_seconds: Float64[np.ndarray, " T"]


@dataclass(frozen=True)
class View:
    """Part of a video that streams read.

    Attributes:
        data: how frames are scaled and cropped.
        sampler: how many seconds are read, and how motion is measured.
        pictures: True if any stream that will ask needs frames.
        sound: True if any needs audio.
    """

    data: DataConfig
    sampler: SamplerConfig
    pictures: bool = True
    sound: bool = True


@dataclass(frozen=True, eq=False)
class FlowSource:
    """Source of a video's optical flow.

    Attributes:
        estimators: what estimates flow; None: any that needs no weights.
        folder: of precomputed flow, which replaces the estimators' flow.
        known: (estimator, height, width) → flow of the whole video, where it has been estimated
            already: the windows of a longer video.
        given: precomputed flow of the whole video, cropped: of the windows of a longer video that
            has some.
    """

    estimators: Estimators | None = None
    folder: Path | None = None
    known: Callable[[str, int, int], Float[np.ndarray, "steps 2 H W"]] | None = None
    given: Callable[[], Float[np.ndarray, "steps 2 H W"]] | None = None


ESTIMATED = FlowSource()


class Video:
    """A video file, decoded when a stream first asks for its frames or its audio.

    Args:
        video_id: its name in tables.
        path: its file.
        content_id: sha256 of its bytes; results are cached under it.
        decode: called at most once.
        cache: for flow and motion; None keeps nothing.
        view: part that the streams read.
        flow_source: source of its flow.
        stages: time spent decoding and on flow is added here.
    """

    def __init__(
        self,
        video_id: str,
        path: Path,
        content_id: str,
        *,
        decode: Decoder,
        cache: Cache | None,
        view: View,
        flow_source: FlowSource = ESTIMATED,
        stages: Stages | None = None,
    ) -> None:
        self.video_id = video_id
        self.path = path
        self.content_id = content_id
        self.cache = cache
        self._decode = decode
        self._data = view.data
        self._sampler = view.sampler
        self._wants = {"pictures": view.pictures, "sound": view.sound}
        self._flow_from = flow_source.folder
        self._estimators = flow_source.estimators or Estimators()
        self._known_flow = flow_source.known
        self._given_flow = flow_source.given
        self._stages = stages or Stages()
        self._flow_sha256: str | None = None
        self._noted: tuple[str, ...] = ()  # defects of the file when its flow was cached
        self._estimated: tuple[tuple[str, int, int], Float[np.ndarray, "steps 2 H W"]] | None = None

    @cached_property
    def decoded(self) -> DecodedVideo:
        """Requested frames, cropped, and audio, as far as the file has them.

        Raises:
            Absent: only one of them is requested, and it is missing.
            Rejected: the file cannot be used at all.
        """
        try:
            with self._stages.spent("decode"):
                decoded = self._decode(
                    self.path,
                    **self._wants,
                    max_side=self._data.max_side_px,
                    stop_seconds=self._sampler.max_seconds,
                )
        except Rejected as rejected:
            if rejected.reason in ("no_audio", "silent_audio", "no_video"):
                raise Absent(rejected.reason) from rejected
            raise
        if decoded.frames is None or self._data.crop is None:
            return decoded
        rows, columns = part(decoded.frames.shape[1:3], self._data.crop)
        return replace(decoded, frames=np.ascontiguousarray(decoded.frames[:, rows, columns]))

    def forget(self) -> None:
        """Release frames, audio and flow; the cache is not changed."""
        self.__dict__.pop("decoded", None)
        self._estimated = None

    def reasons(self, more: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return stable codes of the file's defects, as far as it has been read, and `more`.

        A missing track is not among them: the stream that needs it reports it.
        """
        decoded = self.__dict__.get("decoded")
        reasons = set(more) | set(self._noted if decoded is None else decoded.reasons)
        return tuple(sorted(reasons - {"no_audio", "silent_audio", "no_video"}))

    def flow_source(self) -> str:
        """Return the sha256 of the precomputed flow, "" if flow is estimated: part of cache keys."""
        if self._flow_from is None:
            return ""
        if self._flow_sha256 is None:
            self._flow_sha256 = precomputed.sha256(self._flow_from, self.video_id)
        return self._flow_sha256

    def frames(self) -> UInt8[np.ndarray, "T H W 3"]:
        """Return the RGB frames.

        Raises:
            Absent: the file has none.
        """
        if self.decoded.frames is None:
            raise Absent("no_video")
        return self.decoded.frames

    def frames_at(self, height: int, width: int) -> UInt8[np.ndarray, "T H W 3"]:
        """Return all frames squashed to one size."""
        return squash(self.frames(), height, width)

    def flow(self, estimator: str, estimate_size: tuple[int, int], size: tuple[int, int]) -> Flow:
        """Return the flow between consecutive frames, from the cache if possible.

        Args:
            estimator: a name of `flow.estimators`; unused if the video has precomputed flow.
            estimate_size: height and width the frames are squashed to first; the unit of the flow is px at this size.
            size: height and width the fields are reduced to by averaging areas.

        Raises:
            Absent: no frames, or only one.
        """
        source = self.flow_source() or self._estimators.key(estimator)
        key, entry = self._look_up(
            "flow", **self._flow_identity(source), estimate_size=estimate_size, size=size
        )
        if entry is None:
            is_precomputed = self._given_flow is not None or self._flow_from is not None
            full = (
                self._precomputed() if is_precomputed else self._estimate(estimator, *estimate_size)
            )
            entry = {
                "flow": storage.encode_compact(reduce_flow(full, *size)),
                "start_seconds": self.decoded.start_seconds,
                "stop_seconds": self.decoded.stop_seconds,
                "reasons": np.frombuffer(json.dumps(self.decoded.reasons).encode(), np.uint8),
            }
            self._keep("flow", key, entry)
        self._noted = tuple(json.loads(entry["reasons"].tobytes()))
        field = storage.decode_compact(
            entry["flow"], empty=lambda shape: paged.empty(shape, np.float16)
        )
        paged.release(field)
        return Flow(field, entry["start_seconds"], entry["stop_seconds"])

    @property
    def motion(self) -> Float64[np.ndarray, " steps"]:
        """Mean length of the displacement (px) in each of the T − 1 steps; input of adaptive sampling."""
        return self._motion["motion"]

    @property
    def peak_motion(self) -> Float64[np.ndarray, " steps"]:
        """Largest length of the displacement (px) in each step; the simplest anomaly score."""
        return self._motion["peak"]

    @cached_property
    def _motion(self) -> Mapping[str, Float64[np.ndarray, " steps"]]:
        key, entry = self._look_up(
            "motion",
            **self._flow_identity(self._estimators.key(self._sampler.estimator)),
            motion=[self._sampler.max_side_px, self._sampler.mean_removed, "peak"],
        )
        if entry is None:
            height, width = fit(self.frames().shape[1:3], self._sampler.max_side_px)
            flow = self._estimate(self._sampler.estimator, height, width)
            entry = {
                "motion": motion_lengths(flow, subtract_mean=self._sampler.mean_removed),
                "peak": np.array([np.hypot(*field).max() for field in flow], np.float64),
            }
            self._keep("motion", key, entry)
        return entry

    def _look_up(self, kind: str, **what: object) -> tuple[str, dict[str, np.ndarray] | None]:
        if self.cache is None:
            return "", None
        key = self.cache.key(**what)
        return key, self.cache.get(kind, key)

    def _keep(self, kind: str, key: str, entry: Mapping[str, np.ndarray]) -> None:
        if self.cache is not None:
            self.cache.put(kind, key, entry)

    def _flow_identity(self, source: str) -> dict[str, object]:
        crop = {} if self._data.crop is None else {"crop": self._data.crop}
        return {
            **crop,
            "content_id": self.content_id,
            "source": source,  # estimator and weights, or sha256 of precomputed flow
            "max_side_px": self._data.max_side_px,
            "max_seconds": self._sampler.max_seconds,
            "schema": FLOW_SCHEMA,
            "libraries": _libraries(),
        }

    def _precomputed(self) -> Float[np.ndarray, "steps 2 H W"]:
        if len(self.frames()) < 2:
            raise Absent("too_short_for_flow")
        if self._given_flow is not None:
            return self._given_flow()
        assert self._flow_from is not None
        flow = precomputed.read(self._flow_from, self.video_id, n_steps=len(self.frames()) - 1)
        if self._data.crop is None:
            return flow
        rows, columns = part(flow.shape[2:], self._data.crop)
        return flow[:, :, rows, columns]

    def _estimate(
        self, estimator: str, height: int, width: int
    ) -> Float[np.ndarray, "steps 2 H W"]:
        """Return full flow; the last one is kept, because sampler and temporal stream often need the same."""
        frames = self.frames()
        if len(frames) < 2:
            raise Absent("too_short_for_flow")
        wanted = (estimator, height, width)
        if self._known_flow is not None:
            return self._known_flow(*wanted)
        if self._estimated is None or self._estimated[0] != wanted:
            with self._stages.spent("flow"):
                estimate = self._estimators.load(estimator)
                flow = paged.empty((len(frames) - 1, 2, height, width), np.float32)
                for first in range(0, len(flow), BLOCK):
                    flow[first : first + BLOCK] = estimate(
                        squash(frames[first : first + BLOCK + 1], height, width)
                    )
                paged.release(flow)
            self._estimated = (wanted, flow)
        return self._estimated[1]


def fit(size: tuple[int, ...], max_side: int) -> tuple[int, int]:
    """Return height and width, scaled down with their aspect until the longer is at most `max_side`."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def part(size: tuple[int, ...], crop: Crop) -> tuple[slice, slice]:
    """Return the rows and columns of a frame of this size that a crop keeps: every pixel it touches."""
    (height, width), (top, left, bottom, right) = size, crop
    least = 1e-6  # px; .55 × 100 is a little more than 55
    return (
        slice(math.floor(top * height + least), math.ceil(bottom * height - least)),
        slice(math.floor(left * width + least), math.ceil(right * width - least)),
    )


def squash(
    frames: UInt8[np.ndarray, "T H W 3"], height: int, width: int
) -> UInt8[np.ndarray, "T H2 W2 3"]:
    """Resize frames, ignoring their aspect: areas are averaged when smaller, bilinear when larger."""
    import cv2

    if frames.shape[1:3] == (height, width):
        return frames
    how = cv2.INTER_AREA if height * width < frames.shape[1] * frames.shape[2] else cv2.INTER_LINEAR
    small = paged.empty((len(frames), height, width, 3), np.uint8)
    for frame, out in zip(frames, small, strict=True):
        cv2.resize(frame, (width, height), dst=out, interpolation=how)
    paged.release(small)
    return small


def reduce_flow(
    flow: Float[np.ndarray, "steps 2 H W"], height: int, width: int
) -> Float[np.ndarray, "steps 2 H2 W2"]:
    """Resize fields by averaging areas; the vectors keep their unit."""
    import cv2

    if flow.shape[2:] == (height, width):
        return flow
    how = cv2.INTER_AREA if height * width < flow.shape[2] * flow.shape[3] else cv2.INTER_LINEAR
    small = paged.empty((len(flow), 2, height, width), np.float32)
    for field, out in zip(flow, small, strict=True):
        out[:] = cv2.resize(field.transpose(1, 2, 0), (width, height), interpolation=how).transpose(
            2, 0, 1
        )
    paged.release(small)
    return small


@functools.cache
def _libraries() -> str:
    """Return the versions of decoder and OpenCV: another build may give other bits."""
    installed = versions()
    return ", ".join(f"{name} {installed[name]}" for name in ("av", "opencv-python"))
