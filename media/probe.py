"""Contents of a file, and a verdict on its use."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tristream.media.decode import DecodedVideo, Decoding, decode_video, ffmpeg_messages
from tristream.media.limits import DEFAULT_LIMITS, Limits, Wanted
from tristream.media.opening import open_media
from tristream.media.reasons import Rejected, printable
from tristream.media.sound import choose_sound_track

STACK_LENGTH = 10  # flow fields of one stack, the temporal stream's default (SCIENCE.md §1.4)
RANGE_SECONDS = 36.0  # of the start of a video that the streams use by default


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Declarations of a file's header, and the size of its first frame.

    Attributes:
        n_frames: None if the container does not count them.
        fps: mean frame rate; None if not declared, or without video.
        duration_seconds: None if not declared; may be wrong.
        height: px, upright; None without video, as `width`.
        width: px.
        has_video: True if there is a video track other than cover art.
        has_audio: True if there is an audio track that can be decoded here.
        container: FFmpeg's name of the format.
        video_codec: FFmpeg's name of the decoder; "" without video.
        audio_codec: "" without audio.
    """

    n_frames: int | None
    fps: float | None
    duration_seconds: float | None
    height: int | None
    width: int | None
    has_video: bool
    has_audio: bool
    container: str
    video_codec: str
    audio_codec: str


def probe(
    path: Path,
    *,
    limits: Limits = DEFAULT_LIMITS,
    root: Path | None = None,
    follow_links: bool = False,
) -> Probe:
    """Read the declarations of a file; decode only its first frame.

    Raises:
        Rejected: it cannot be opened, or its video cannot be decoded here.
    """
    # decoding stops at the first frame: only a decoded frame has its rotation
    wanted = Wanted(start_seconds=0.0, stop_seconds=-math.inf, keep=False)
    with (
        open_media(path, limits=limits, root=root, follow_links=follow_links) as container,
        ffmpeg_messages() as messages,
    ):
        job = Decoding(container, path, wanted, limits, messages)
        job.want_pictures()
        if job.pictures is not None:
            job.run(lambda _: None)
            job.outcome().judge_pictures()
        pictures = job.pictures.track if job.pictures is not None else None
        sound = choose_sound_track(container, set())
        height, width = (job.pictures.size if job.pictures is not None else None) or (None, None)
        return Probe(
            n_frames=(pictures.frames or None) if pictures else None,
            fps=float(pictures.average_rate) if pictures and pictures.average_rate else None,
            duration_seconds=container.duration / 1e6 if container.duration else None,
            height=height,
            width=width,
            has_video=pictures is not None,
            has_audio=sound is not None,
            container=container.format.name,
            video_codec=pictures.codec_context.name if pictures else "",
            audio_codec=sound.codec_context.name if sound else "",
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """State of a file.

    Attributes:
        status: `ok`, `degraded` or `rejected`.
        reasons: sorted keys of `media.reasons`; empty for `ok`, one for `rejected`.
        message: for `rejected`, a full sentence that names the file; else "".
        n_frames: decoded frames.
        n_suspect: of these, frames from a decode error to the next clean key frame.
        n_errors: packets that could not be decoded.
        seconds: end of the decoded frames and audio.
    """

    status: str
    reasons: tuple[str, ...]
    message: str = ""
    n_frames: int = 0
    n_suspect: int = 0
    n_errors: int = 0
    seconds: float = 0.0


def judge(
    path: Path,
    *,
    pictures: bool = True,
    sound: bool = True,
    decode: Callable[..., DecodedVideo] = decode_video,
    root: Path | None = None,
    follow_links: bool = False,
    stack_length: int = STACK_LENGTH,
    range_seconds: float = RANGE_SECONDS,
) -> Verdict:
    """Decode a whole file, keep nothing, and return whether it can be used.

    A longer file is decoded a second time up to `range_seconds`, as `embed` decodes it: it is rejected where embedding
    rejects it, and every reason that embedding reports is among its reasons.

    Args:
        path: the file.
        pictures: True if any stream needs frames.
        sound: True if any stream needs audio.
        decode: `media.decode.decode_video`, or the same through a pool of processes.
        root: folder that must contain the file; None means any.
        follow_links: allow links that lead out of `root`.
        stack_length: flow fields of one stack; a video with no more frames than that is `padded_short_clip`.
        range_seconds: of the start of a file that `embed` uses.
    """
    wanted = {"pictures": pictures, "sound": sound, "root": root, "follow_links": follow_links}
    try:
        video = used = decode(path, keep=False, stop_seconds=None, **wanted)
        if max([video.samples_stop_seconds, *video.start_seconds[-1:]]) >= range_seconds:
            used = decode(path, keep=False, stop_seconds=range_seconds, **wanted)
    except Rejected as error:
        return Verdict(status="rejected", reasons=(error.reason,), message=str(error))
    n_frames = len(video.start_seconds)
    reasons = {*video.reasons, *used.reasons}
    n_used = len(used.start_seconds)
    if n_used == 1:
        reasons.add("too_short_for_flow")
    elif 1 < n_used <= stack_length:
        reasons.add("padded_short_clip")
    return Verdict(
        status="degraded" if reasons else "ok",
        reasons=tuple(sorted(reasons)),
        n_frames=n_frames,
        n_suspect=int(video.suspect.sum()),
        n_errors=video.n_decode_errors,
        seconds=max([video.samples_stop_seconds, *video.stop_seconds[-1:]]),
    )


def judge_header(
    path: Path,
    *,
    probe: Callable[..., Probe] = probe,
    root: Path | None = None,
    follow_links: bool = False,
) -> Verdict:
    """Judge a file by its header and its first frame alone; declarations are not verified."""
    try:
        header = probe(path, root=root, follow_links=follow_links)
    except Rejected as error:
        return Verdict(status="rejected", reasons=(error.reason,), message=str(error))
    missing = [
        code
        for code, present in (("no_audio", header.has_audio), ("no_video", header.has_video))
        if not present
    ]
    if len(missing) == 2:
        sentence = f"{printable(path)} has neither frames nor audio that can be decoded"
        return Verdict(status="rejected", reasons=("not_a_video",), message=sentence)
    return Verdict(
        status="degraded" if missing else "ok",
        reasons=tuple(missing),
        n_frames=header.n_frames or 0,
        seconds=header.duration_seconds or 0.0,
    )


def ffmpeg_version() -> str:
    """Version of the FFmpeg library inside PyAV."""
    import av

    return str(av.ffmpeg_version_info)
