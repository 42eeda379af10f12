"""Limits of resources per file, and the containers and codecs that are decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits per file: our choices, generous for real recordings and small compared with a machine.

    Attributes:
        max_pixels: of one frame; 8.3 million hold a 4K frame.
        min_side_px: of the shorter side; smaller frames hold too little for networks and optical flow.
        max_seconds: playing time, holes in time not counted.
        max_bytes: of the file.
        max_streams: tracks of any kind.
        max_frames: decoded frames.
        open_seconds: wall time before the first progress.
        realtime_factor: wall seconds allowed per decoded second of video, in addition to `open_seconds`.
        memory_bytes: address space of one decode process.
        pictures_bytes: memory of the kept frames of one video; more frames are thinned evenly. It changes results, so
            it is not a setting.
    """

    max_pixels: int = 8_300_000
    min_side_px: int = 16
    max_seconds: float = 4 * 3600.0
    max_bytes: int = 2 << 30
    max_streams: int = 32
    max_frames: int = 1_000_000
    open_seconds: float = 10.0
    realtime_factor: float = 10.0
    memory_bytes: int = 3 << 29
    pictures_bytes: int = 3 << 28


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Wanted part of one file.

    Attributes:
        start_seconds: earlier frames and samples are decoded, because later ones depend on them, and dropped.
        stop_seconds: exclusive; inf means the end of the file.
        max_side: frames are scaled down until their longer side has at most so many px; None keeps their size.
        keep: False counts and judges without keeping pixels or samples.
    """

    start_seconds: float
    stop_seconds: float
    max_side: int | None = None
    keep: bool = True


# Containers that hold their own frames and audio. Excluded on purpose: playlists (hls, concat, dash), still images,
# sdp, and everything that opens a second file or a socket.
FORMATS = (
    *(
        "mov",
        "mp4",
        "m4a",
        "3gp",
        "3g2",
        "mj2",
        "matroska",
        "webm",
        "avi",
        "mpegts",
        "mpeg",
        "flv",
        "asf",
    ),
    *("ogg", "wav", "w64", "flac", "mp3", "aac", "aiff"),
)
# Names of FFmpeg's decoders. Rare ones are excluded: most vulnerabilities are found there.
PICTURE_CODECS = (
    *(
        "h264",
        "hevc",
        "vp8",
        "vp9",
        "libdav1d",
        "av1",
        "mpeg1video",
        "mpeg2video",
        "mpeg4",
        "msmpeg4v2",
        "msmpeg4",
    ),
    *(
        "wmv1",
        "wmv2",
        "wmv3",
        "vc1",
        "h263",
        "flv",
        "theora",
        "mjpeg",
        "dvvideo",
        "prores",
        "dnxhd",
        "ffv1",
        "huffyuv",
    ),
    *("rawvideo", "png"),
)
SOUND_CODECS = (
    *(
        "aac",
        "aac_latm",
        "mp3",
        "mp3float",
        "mp2",
        "mp2float",
        "ac3",
        "eac3",
        "vorbis",
        "opus",
        "libopus",
        "flac",
    ),
    *(
        "alac",
        "wmav1",
        "wmav2",
        "wmapro",
        "amrnb",
        "amrwb",
        "adpcm_ms",
        "adpcm_ima_wav",
        "adpcm_ima_qt",
        "gsm_ms",
    ),
    *(
        "pcm_u8",
        "pcm_s8",
        "pcm_s16le",
        "pcm_s16be",
        "pcm_s24le",
        "pcm_s24be",
        "pcm_s32le",
        "pcm_s32be",
        "pcm_f32le",
    ),
    *("pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw"),
)
