"""Decoding of a source that never ends: growing file, pipe, camera, network stream; in a decode process of its own."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tristream.errors import TristreamError
from tristream.media.chunks import complete_pieces, last_piece
from tristream.media.clocks import LiveClocks
from tristream.media.decode import DecodedVideo, Decoding, ffmpeg_messages
from tristream.media.limits import FORMATS, Limits, Wanted
from tristream.media.live.arriving import Arriving
from tristream.media.live.redact import redact
from tristream.media.opening import decoder_options, title_options
from tristream.media.reasons import Rejected

if TYPE_CHECKING:
    from av.container import InputContainer

PROTOCOLS = ("tcp", "udp", "rtp", "rtsp", "http", "https", "tls")
_CARRIED_BY = {"rtsp": ("rtsp", "rtp", "tcp", "udp"), "http": ("http", "tcp"), "https": ("https", "tls", "tcp"),
               "tls": ("tls", "tcp"), "rtp": ("rtp", "udp"), "tcp": ("tcp",), "udp": ("udp",)}  # fmt: skip
MAX_REDIRECTS = 3
MAX_PACKET_BYTES = 65_536  # of UDP and RTP, the largest there can be
PATIENCE_SECONDS = 2.0  # by which one track may lag before a piece goes out without it
# Video without a container: it has no time stamps, so frames are timed by their arrival.
BARE_FORMATS = ("mpjpeg", "mjpeg", "h264", "hevc")
BARE_PROBE_SECONDS = 0.1  # frames read while probing arrive all at once
# What a camera that is not up yet, or a network that is down, ends in.
_TRANSIENT = (
    *(errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET),
    *(errno.EBUSY, errno.ENODEV, errno.ENXIO),
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")


@dataclass(frozen=True)
class LiveSource:
    """Origin of live frames and audio.

    Attributes:
        kind: 'file', 'pipe', 'camera' or 'network'.
        address: path, URL, or "-" for the standard input.
        shown: the same without secrets, for screens and files.
        protocols: network protocols allowed for FFmpeg; empty for other kinds.
    """

    kind: str
    address: str
    shown: str
    protocols: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """True if a silent source is waited for; False if it must be opened again."""
        return self.kind in ("file", "pipe")


def parse_source(text: str, protocols: Sequence[str] = ()) -> LiveSource:
    """Parse the SOURCE of `--follow`.

    Args:
        text: path, URL or "-".
        protocols: those the user allows; the carriers of a scheme (rtsp: rtp, tcp, udp; https: tls, tcp) are implied.

    Raises:
        TristreamError: a protocol that is never allowed, a scheme that the user has not allowed, no such file.
    """
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise TristreamError(
                f"protocol '{protocol}' is never opened; available: {', '.join(PROTOCOLS)}"
            )
    shown = redact(text)
    if text == "-":
        return LiveSource("pipe", "-", "standard input")
    path = Path(text)
    mode = None
    with contextlib.suppress(OSError, ValueError):  # no such file, or no name of one
        mode = path.stat().st_mode
    if mode is not None:
        for is_kind, kind in (
            (stat.S_ISFIFO, "pipe"),
            (stat.S_ISCHR, "camera"),
            (stat.S_ISREG, "file"),
        ):
            if is_kind(mode):
                return LiveSource(kind, str(path.absolute()), shown)
        raise TristreamError(
            f"{shown} is a directory or a socket; follow a file, a pipe, a camera or a URL"
        )
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise TristreamError(
            f"{shown} does not exist; follow a file, a pipe, '-', a camera (/dev/video0) or a URL"
        )
    name = scheme[0].lower()
    if name not in PROTOCOLS or "://" not in text:
        raise TristreamError(
            f"'{name}:' is never opened; available: {', '.join(PROTOCOLS)}, each as {name}://…"
        )
    if name not in protocols:
        raise TristreamError(f"{shown} needs the network; allow it with --protocols {name}")
    allowed = {carrier for protocol in protocols for carrier in _CARRIED_BY[protocol]}
    return LiveSource("network", text, shown, tuple(sorted(allowed)))


def decode_live(
    source: LiveSource,
    *,
    pictures: bool,
    sound: bool,
    max_side: int | None,
    chunk_seconds: float,
    open_seconds: float,
    limits: Limits,
    stdin: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[DecodedVideo]:
    """Yield pieces as `media.chunks.decode_chunks` does until the source ends; no limit of time or frames.

    Frames of a video without time stamps (`BARE_FORMATS`) are timed by their arrival.

    Args:
        source: what is followed.
        pictures: True if frames are wanted.
        sound: True if audio is wanted.
        max_side: as in `decode_video`.
        chunk_seconds: length of a piece.
        open_seconds: time a network source may take to answer, at the start and between two packets.
        limits: of one decode process.
        stdin: file descriptor of "-".
        on_progress: called with the seconds decoded so far.

    Raises:
        Rejected: `not_reachable` if opening it again may succeed; another reason if it will not.
    """
    report = on_progress or (lambda _: None)
    endless = replace(limits, max_seconds=float("inf"), max_frames=1 << 62)
    path = Path(source.shown)
    with (
        _open(source, path, limits, open_seconds, stdin) as container,
        ffmpeg_messages() as messages,
    ):
        if len(container.streams) > limits.max_streams:
            n = len(container.streams)
            raise Rejected(
                "too_many_streams", path, f"has {n} tracks; at most {limits.max_streams} allowed"
            )
        wanted = Wanted(start_seconds=0.0, stop_seconds=float("inf"), max_side=max_side)
        is_bare = container.format.name in BARE_FORMATS
        job = Decoding(
            container, path, wanted, endless, messages, clocks=LiveClocks(), by_arrival=is_bare
        )
        if pictures:
            job.want_pictures()
        if sound:
            job.want_sound()
        for reached_seconds in job.steps():
            report(reached_seconds)
            yield from complete_pieces(job, chunk_seconds, patience_seconds=PATIENCE_SECONDS)
        try:
            job.outcome().judge(pictures=pictures, sound=sound)
        except Rejected as error:
            if error.reason == "no_frames_decoded" and "mp4" in container.format.name:
                raise _not_streamable(path) from error
            raise
        yield last_piece(job)


@contextlib.contextmanager
def _open(
    source: LiveSource, path: Path, limits: Limits, open_seconds: float, stdin: int | None
) -> Iterator[InputContainer]:
    import av
    from av.error import FFmpegError

    options: dict[str, str] = {
        **decoder_options(limits),
        "analyzeduration": "2000000",
        "probesize": "1000000",
    }
    arguments: dict[str, Any] = {"mode": "r", **title_options()}
    file: Arriving | None = None
    if source.kind == "network":
        options |= _network_options(source, open_seconds)
        arguments["timeout"] = (open_seconds, open_seconds)
        opened: Any = source.address
    elif source.kind == "camera":
        options |= {"format_whitelist": "video4linux2,v4l2", "protocol_whitelist": "none"}
        arguments["format"] = "video4linux2"
        opened = source.address
    else:
        allowed = (*FORMATS, *BARE_FORMATS)
        options |= {"format_whitelist": ",".join(allowed), "protocol_whitelist": "none"}
        file = opened = _arriving(source, stdin)
    try:
        if file is not None and file.is_bare():
            options["analyzeduration"] = str(round(BARE_PROBE_SECONDS * 1e6))
        container = av.open(opened, options=options, **arguments)
    except (FFmpegError, OSError) as error:
        if file is not None and file.index_is_late:
            raise _not_streamable(path) from error
        raise _cannot_open(error, source, path) from error
    finally:
        if file is not None and "container" not in locals():
            file.close()
    with contextlib.closing(container):
        if source.kind == "file" and container.format.name in BARE_FORMATS:
            raise Rejected(
                "container_not_allowed",
                path,
                f"is bare {container.format.name} video, and a file without time stamps cannot be followed; "
                f"give it some at its frame rate: ffmpeg -r 25 -i {path} -c copy {path}.mp4",
            )
        yield container


def _arriving(source: LiveSource, stdin: int | None) -> Arriving:
    growing = source.address if source.kind == "file" else None
    if source.address != "-":  # opening a pipe waits for its writer
        return Arriving(os.open(source.address, os.O_RDONLY | os.O_CLOEXEC), growing=growing)
    assert stdin is not None
    return Arriving(stdin, growing=growing)


def _not_streamable(path: Path) -> Rejected:
    return Rejected(
        "not_streamable",
        path,
        "is an MP4 whose index (moov) comes after its frames, and a stream cannot be read backwards; give the file to "
        "`tristream detect` without --follow, or write it for streaming: "
        "ffmpeg -i IN.mp4 -c copy -movflags +faststart OUT.mp4",
    )


def _cannot_open(error: Exception, source: LiveSource, path: Path) -> Rejected:
    from av.error import ArgumentError, InvalidDataError

    why = redact(str(getattr(error, "strerror", None) or error))
    if _is_transient(error, source):
        return Rejected("not_reachable", path, f"cannot be opened: {why}")
    if isinstance(error, (ArgumentError, InvalidDataError)):
        why = (
            "its format is not followed here; convert it: "
            f"ffmpeg -i {path} -f mpegts - | tristream detect --follow -"
        )
    return Rejected("not_a_video", path, f"cannot be opened: {why}")


def _is_transient(error: Exception, source: LiveSource) -> bool:
    """True if the source may be there later: no answer, no such host name, an error of its server."""
    from av.error import EOFError, ExitError, HTTPServerError

    if source.kind not in ("network", "camera"):
        return False
    if isinstance(error, (EOFError, ExitError, HTTPServerError)):
        return True
    code = getattr(error, "errno", None)
    if code == errno.EIO and source.kind == "network":  # a host name without an address, or others
        return not _has_address(source.address)
    return code in _TRANSIENT


def _has_address(url: str) -> bool:
    host = urlsplit(url).hostname
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


def _network_options(source: LiveSource, open_seconds: float) -> dict[str, str]:
    """Options of av.open by which the answer must be media itself: no playlist, no file, no list of other sources."""
    microseconds = str(round(open_seconds * 1e6))
    options = {
        "format_whitelist": ",".join((*FORMATS, *BARE_FORMATS, "rtsp", "rtp")),
        "protocol_whitelist": ",".join(source.protocols),
        "rw_timeout": microseconds,
    }
    scheme = source.address.partition(":")[0].lower()
    if scheme in ("http", "https"):
        options |= {"max_redirects": str(MAX_REDIRECTS), "seekable": "0", "reconnect": "0"}
    if scheme == "rtsp":
        options |= {
            "rtsp_transport": "tcp",
            "timeout": microseconds,
            "allowed_media_types": "video+audio",
        }
    if scheme in ("udp", "rtp"):
        options |= {"pkt_size": str(MAX_PACKET_BYTES), "timeout": microseconds}
    return options
