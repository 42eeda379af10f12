"""Encode arrays to small video files: clips of the workshop and of events."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from tristream.errors import TristreamError

KEY_FRAME_EVERY = 25  # frames; a damaged or sought file recovers within a second at 25 fps
AUDIO_BIT_RATE = (
    48_000  # bit/s; keeps log-mel energies of the workshop's audio within a few percent
)
XVID_BIT_RATE = 1_000_000  # bit/s; about that of UCF101's files
_AVX_512F = 13  # OpenCV's number of the feature
_AAC_FRAME, _MP3_FRAME = 1024, 576  # samples; 576 is MP3's at 16 kHz


def write_video(
    path: Path,
    frames: UInt8[np.ndarray, "T H W 3"] | None,
    *,
    fps: float,
    samples: Float32[np.ndarray, " n"] | None = None,
    sample_rate: int = 16000,
    crf: int = 18,
    codecs: Literal["h264_aac", "xvid_mp3"] = "h264_aac",
) -> None:
    """Write an MP4 file of H.264 (yuv420p, BT.601) and AAC (mono), or an AVI as in old data sets.

    Both tracks start at 0 s.

    The same arrays give the same bytes on one machine. The file is written completely or not at all. The encoder's 1024
    samples of AAC priming are cut off by the container's edit list, so a click is decoded at its original time.

    Args:
        path: of the new file; its folder must exist.
        frames: RGB, even height and width; None writes audio only.
        fps: frames per second; kept to the nearest fraction with a denominator up to 1001.
        samples: amplitude, clipped to [-1, 1]; None writes no audio track.
        sample_rate: Hz.
        crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually lossless. XVID ignores it.
        codecs: "xvid_mp3" is an AVI with MPEG-4 part 2 and MP3, as in UCF101.

    Raises:
        TristreamError: nothing to write, odd or empty frames, a frame rate that is not positive, samples that are
            empty or not finite.
    """
    if frames is None and samples is None:
        raise TristreamError(
            f"{path}: neither frames nor samples given; a media file needs at least one of them"
        )
    buffer = io.BytesIO()
    _mux(buffer, path, frames, fps, samples, sample_rate, crf, codecs)
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file completely or not at all: a temporary file beside it, then one rename."""
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)  # noqa: PTH105 (the name of the guarantee)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _mux(
    buffer: io.BytesIO,
    path: Path,
    frames: np.ndarray | None,
    fps: float,
    samples: np.ndarray | None,
    sample_rate: int,
    crf: int,
    codecs: str,
) -> None:
    import av

    is_avi = codecs == "xvid_mp3"
    options = {"fflags": "+bitexact"}
    if (
        is_avi
    ):  # else MP3's priming before 0 s moves the frames and leaves empty ones in their place
        options["avoid_negative_ts"] = "disabled"
    with av.open(buffer, "w", format="avi" if is_avi else "mp4", options=options) as container:
        tracks: list[tuple[Any, Iterator[Any]]] = []  # all streams first: the header lists them
        if frames is not None:
            tracks.append(
                (
                    _add_picture_stream(container, path, frames, fps, crf, is_avi),
                    _picture_frames(frames),
                )
            )
        if samples is not None:
            blocks = _sound_frames(samples, sample_rate, _MP3_FRAME if is_avi else _AAC_FRAME)
            tracks.append(
                (_add_sound_stream(container, path, samples, sample_rate, is_avi), blocks)
            )
        for stream, raw_frames in tracks:
            for raw_frame in raw_frames:
                container.mux(stream.encode(raw_frame))
            container.mux(stream.encode())  # flush the encoder


def _add_picture_stream(
    container: Any, path: Path, frames: np.ndarray, fps: float, crf: int, is_avi: bool
) -> Any:
    n_frames, height, width = frames.shape[:3]
    if n_frames == 0 or height == 0 or width == 0 or height % 2 or width % 2:
        raise TristreamError(
            f"{path}: {n_frames} frames of {width}x{height} px; yuv420p needs at least one frame with even sides; "
            "pad or crop the frames, or pass frames=None"
        )
    if not (np.isfinite(fps) and fps > 0):
        raise TristreamError(
            f"{path}: fps is {fps}; it must be a positive number of frames per second"
        )
    from av.video.reformatter import ColorRange, Colorspace

    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream("mpeg4" if is_avi else "libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.thread_count = 1  # more threads may change the bytes
    context.colorspace, context.color_range = (
        Colorspace.ITU601,
        ColorRange.MPEG,
    )  # as cv2's conversion below
    if is_avi:
        context.codec_tag = "XVID"
        stream.bit_rate, stream.options = XVID_BIT_RATE, {"flags": "+bitexact"}
        return stream
    stream.options = {
        "preset": "veryfast",
        "crf": str(crf),
        "flags": "+bitexact",
        # No B-frames: decoding order is presentation order, and the first frame is at 0 without an edit list.
        "x264-params": f"threads=1:lookahead-threads=1:bframes=0:keyint={KEY_FRAME_EVERY}"
        + _same_bits(),
    }
    return stream


def _same_bits() -> str:
    """Return the option without which x264 is not reproducible on CPUs with AVX-512.

    There about one file in 150 has other motion vectors: its macroblock tree reads memory that was
    never written. With the code for AVX2, 2,500 files of 2,500 were equal, and equal to the others.
    """
    import cv2

    return ":asm=AVX2" if cv2.checkHardwareSupport(_AVX_512F) else ""


def _add_sound_stream(
    container: Any, path: Path, samples: np.ndarray, sample_rate: int, is_avi: bool
) -> Any:
    n_bad = int((~np.isfinite(samples)).sum())
    if n_bad or len(samples) == 0:
        raise TristreamError(
            f"{path}: {n_bad} of {len(samples)} samples are not finite; an audio track needs at least one sample, "
            "all in [-1, 1]; pass samples=None to write none"
        )
    stream = container.add_stream(
        "libmp3lame" if is_avi else "aac", rate=sample_rate, layout="mono"
    )
    stream.bit_rate = AUDIO_BIT_RATE
    if is_avi:
        return stream
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {
        "flags": "+bitexact",
        "aac_coder": "fast",
    }  # three times as fast as "twoloop"
    return stream


def _picture_frames(frames: np.ndarray) -> Iterator[Any]:
    import av
    import cv2

    for index, frame in enumerate(frames):
        yuv: Any = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2YUV_I420)
        picture = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
        picture.pts = index  # in the stream's time base, 1 / fps
        yield picture


def _sound_frames(samples: np.ndarray, sample_rate: int, block_size: int) -> Iterator[Any]:
    import av

    planar = np.clip(samples, -1, 1).astype(np.float32)[None]
    for start in range(0, planar.shape[1], block_size):
        block = av.AudioFrame.from_ndarray(
            planar[:, start : start + block_size], format="fltp", layout="mono"
        )
        block.sample_rate = sample_rate
        block.pts = start
        block.time_base = Fraction(1, sample_rate)
        yield block
