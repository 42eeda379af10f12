"""Open untrusted media files: stat first, then our own file object, then white lists.

FFmpeg never gets the name: it would follow `concat:`, `http:` and printf patterns in it, and end the name at a NUL.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tristream.media.limits import FORMATS, PICTURE_CODECS, SOUND_CODECS, Limits
from tristream.media.reasons import Rejected

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream

# Text that makes FFmpeg open something else; refused by its first bytes, whatever the name ends in.
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"v=0\r\n", b"v=0\n", b"<MPD", b"<?xml")
_MAX_BOXES = 10_000


@contextlib.contextmanager
def open_media(
    path: Path, *, limits: Limits, root: Path | None, follow_links: bool
) -> Iterator[InputContainer]:
    """Open the container of a file for the length of a `with` block.

    Raises:
        Rejected: the file cannot be opened, or is in no container that is decoded here.
    """
    with open_file(path, limits=limits, root=root, follow_links=follow_links) as file:
        container = _open_container(file, path, limits)
        with contextlib.closing(container):
            if len(container.streams) > limits.max_streams:
                n = len(container.streams)
                raise Rejected(
                    "too_many_streams",
                    path,
                    f"has {n} tracks; at most {limits.max_streams} allowed",
                )
            yield container


def open_file(path: Path, *, limits: Limits, root: Path | None, follow_links: bool) -> BinaryIO:
    """Open a regular file inside `root` for reading.

    Args:
        path: of the file.
        limits: `max_bytes`.
        root: folder that must contain it; None means any.
        follow_links: allow links that lead out of `root`; a path outside of `root` stays forbidden.

    Raises:
        Rejected: not_found, not_readable, outside_root, not_a_regular_file, empty_file, file_too_large.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
        _check_inside(path, real, root, follow_links)
        # before opening: opening a pipe blocks, and opening a device may have effects
        _check_kind(path, real.stat(), limits)
        handle = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Rejected("not_found", path, "does not exist, or is a broken link") from error
    except ValueError as error:
        if isinstance(error, Rejected):
            raise
        raise Rejected("not_found", path, f"is not a valid file name: {error}") from error
    except OSError as error:
        reason = (
            "not_found"
            if "symbolic link" in str(error) or "too long" in str(error)
            else "not_readable"
        )
        raise Rejected(reason, path, f"cannot be opened: {error.strerror}") from error
    file = os.fdopen(handle, "rb", buffering=0)
    try:
        _check_kind(path, os.fstat(handle), limits)  # again: it may have been replaced since
    except Rejected:
        file.close()
        raise
    return file  # type: ignore[return-value]


def _check_inside(path: Path, real: Path, root: Path | None, follow_links: bool) -> None:
    if root is None:
        return
    inside = (
        Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))  # noqa: PTH100  (resolve() follows links)
        if follow_links
        else real.is_relative_to(os.path.realpath(root))
    )
    if not inside:
        raise Rejected(
            "outside_root",
            path,
            "leads outside the data root; copy the file in, name its own folder, or allow links with --follow-links",
        )


def _check_kind(path: Path, status: os.stat_result, limits: Limits) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "pipe, socket or device"
        raise Rejected("not_a_regular_file", path, f"is a {kind}, not a regular file")
    if status.st_size == 0:
        raise Rejected("empty_file", path, "is empty (0 bytes); copy or download it again")
    if status.st_size > limits.max_bytes:
        raise Rejected(
            "file_too_large",
            path,
            f"has {status.st_size} bytes; at most {limits.max_bytes} allowed",
        )


def decoder_options(limits: Limits) -> dict[str, str]:
    """Options of every decoder, by which FFmpeg refuses larger frames and other codecs."""
    return {
        "max_pixels": str(limits.max_pixels),
        "codec_whitelist": ",".join((*PICTURE_CODECS, *SOUND_CODECS)),
    }


def title_options() -> dict[str, Any]:
    """Arguments of av.open that accept titles in other encodings than UTF-8; PyAV 19 accepts them by default."""
    import av

    return {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}


def _open_container(file: BinaryIO, path: Path, limits: Limits) -> InputContainer:
    import av
    from av.error import ArgumentError, FFmpegError

    if file.read(16).startswith(_PLAYLISTS):
        raise Rejected(
            "container_not_allowed",
            path,
            "is a playlist that refers to other files; give the video itself",
        )
    file.seek(0)
    # Demuxers open decoders of their own to probe the first packets; they take their options from here.
    options = {
        "format_whitelist": ",".join(FORMATS),
        "protocol_whitelist": "none",
        **decoder_options(limits),
    }
    try:
        return av.open(file, mode="r", options=options, **title_options())
    except ArgumentError as error:
        raise Rejected(
            "container_not_allowed", path, "is in a container that is not decoded here"
        ) from error
    except (FFmpegError, OSError) as error:
        if _lacks_index(file):
            raise Rejected(
                "truncated_no_index",
                path,
                "was cut off before its index was written; copy it again, or repair it",
            ) from error
        raise Rejected(
            "not_a_video", path, f"is not a video or audio file: {error.strerror or error}"
        ) from error


def _lacks_index(file: BinaryIO) -> bool:
    """Return True for an MP4 without its `moov` box."""
    file.seek(0)
    if file.read(8)[4:] != b"ftyp":
        return False
    position = 0
    for _ in range(_MAX_BOXES):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            break
        if header[4:8] == b"moov":
            return False
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size < 8:
            break
        position += size
    return True


def usable(stream: Stream) -> str | None:
    """Return None if the track can be decoded here, else the reason code."""
    context = stream.codec_context
    if context is None:
        return "no_decoder"
    allowed = PICTURE_CODECS if stream.type == "video" else SOUND_CODECS
    return None if context.codec.name in allowed else "codec_not_allowed"
