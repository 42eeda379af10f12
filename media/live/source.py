"""A source that never ends, opened: growing file, pipe, camera, network stream. Runs inside its own decode process."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristream.errors import TristreamError
from tristream.media.chunks import complete_pieces, last_piece
from tristream.media.clocks import LiveClocks
from tristream.media.decode import DecodedVideo, Decoding, ffmpeg_messages
from tristream.media.limits import FORMATS, Limits, Wanted
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
PATIENCE_SECONDS = (
    2.0  # how far one track may lag behind the other before a piece goes out without it
)
_POLL_SECONDS = 0.05
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")


@dataclass(frozen=True)
class LiveSource:
    """Where pictures and sound come from.

    Attributes:
        kind: 'file', 'pipe', 'camera' or 'network'.
        address: path, URL, or "-" for the standard input.
        shown: the same without secrets, for screens and files.
        protocols: what FFmpeg may speak; empty but for the network.
    """

    kind: str
    address: str
    shown: str
    protocols: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether more may come where nothing comes now; else its silence means that it must be opened again."""
        return self.kind in ("file", "pipe")


def parse_source(text: str, protocols: Sequence[str] = ()) -> LiveSource:
    """What `--follow SOURCE` means.

    Args:
        protocols: those the user allows; of a scheme's own carriers (rtsp: rtp, tcp, udp; https: tls, tcp) none need be
            named.

    Raises:
        TristreamError: a protocol that is never allowed, a scheme that the user has not allowed, no
            such file.
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
    """Pieces as `media.chunks.decode_chunks` gives them, for as long as there are any; no limit of time or frames.

    Args:
        open_seconds: how long a network source may take to answer, at the start and between two packets.
        stdin: file descriptor of "-".

    Raises:
        Rejected: it cannot be opened, or holds nothing that is decoded here.
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
        job = Decoding(container, path, wanted, endless, messages, clocks=LiveClocks())
        if pictures:
            job.want_pictures()
        if sound:
            job.want_sound()
        for reached_seconds in job.steps():
            report(reached_seconds)
            yield from complete_pieces(job, chunk_seconds, patience_seconds=PATIENCE_SECONDS)
        job.outcome().judge(pictures=pictures, sound=sound)
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
    file: _Arriving | None = None
    if source.kind == "network":
        options |= _network_options(source, open_seconds)
        arguments["timeout"] = (open_seconds, open_seconds)
        opened: Any = source.address
    elif source.kind == "camera":
        options |= {"format_whitelist": "video4linux2,v4l2", "protocol_whitelist": "none"}
        arguments["format"] = "video4linux2"
        opened = source.address
    else:
        options |= {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}
        file = opened = _Arriving(source, stdin)
    try:
        container = av.open(opened, options=options, **arguments)
    except (FFmpegError, OSError) as error:
        why = redact(str(getattr(error, "strerror", None) or error))
        raise Rejected("not_a_video", path, f"cannot be opened: {why}") from error
    finally:
        if file is not None and "container" not in locals():
            file.close()
    with contextlib.closing(container):
        yield container


def _network_options(source: LiveSource, open_seconds: float) -> dict[str, str]:
    """No playlist, no file, no list of other sources; what is answered must be pictures and sound themselves."""
    microseconds = str(round(open_seconds * 1e6))
    options = {
        "format_whitelist": ",".join((*FORMATS, "rtsp", "rtp")),
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


class _Arriving:
    """Bytes of a file that grows, or of a pipe, as FFmpeg reads them: never sought, and waited for.

    A file that shrinks or is replaced has ended: whoever follows it opens it again.
    """

    def __init__(self, source: LiveSource, stdin: int | None) -> None:
        self._grows = source.kind == "file"
        self._path = source.address
        if source.address == "-":
            assert stdin is not None
            self._fd = stdin
        else:
            self._fd = os.open(
                source.address, os.O_RDONLY | os.O_CLOEXEC
            )  # a pipe waits here for its writer

    def read(self, n: int) -> bytes:
        """The next bytes; b"" at the end."""
        while True:
            data = os.read(self._fd, n)
            if data or not self._grows or self._was_replaced():
                return data
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _was_replaced(self) -> bool:
        ours = os.fstat(self._fd)
        try:
            there = Path(self._path).stat()
        except OSError:
            return True
        position = os.lseek(self._fd, 0, os.SEEK_CUR)
        return (there.st_ino, there.st_dev) != (
            ours.st_ino,
            ours.st_dev,
        ) or there.st_size < position
