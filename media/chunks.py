"""Decode a media file piece by piece in constant memory; runs inside decode processes (media/sandbox/pool.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tristream.media.clocks import FileClocks
from tristream.media.decode import PATIENCE_SECONDS, DecodedVideo, Decoding, ffmpeg_messages
from tristream.media.limits import DEFAULT_LIMITS, Limits, Wanted
from tristream.media.opening import open_media

CHUNK_SECONDS = 1.0


def decode_chunks(
    path: Path,
    *,
    pictures: bool = True,
    sound: bool = True,
    max_side: int | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
    limits: Limits = DEFAULT_LIMITS,
    root: Path | None = None,
    follow_links: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[DecodedVideo]:
    """Yield the frames and audio of a whole file in consecutive pieces, without seeking.

    Concatenated, the pieces are what `decode_video` gives, bit for bit, but for three cases: where one track lies more
    than `PATIENCE_SECONDS` behind the other in the file, what comes too late is lost; the length of the very last frame
    is the median step of the last piece, not of the file; and a silent track (`silent_audio`) is known as such only at
    the end, so its pieces hold zeros.

    Args:
        chunk_seconds: a piece holds the frames that begin, and the samples, in [k, k + 1) times this; a piece with
            neither is skipped. Silence that stands for missing audio comes with the piece in which it ends.
        (the others): as in `decode_video`.

    Yields:
        DecodedVideo whose `reasons` and counts are those so far; the last holds them all.

    Raises:
        Rejected: as in `decode_video`; possibly after some pieces.
    """
    report = on_progress or (lambda _: None)
    wanted = Wanted(start_seconds=0.0, stop_seconds=math.inf, max_side=max_side)
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
        for reached_seconds in job.steps():
            report(reached_seconds)
            yield from complete_pieces(job, chunk_seconds, patience_seconds=PATIENCE_SECONDS)
        job.outcome().judge(pictures=pictures, sound=sound)
        yield from complete_pieces(job, chunk_seconds, patience_seconds=-math.inf)
        yield last_piece(job)


def complete_pieces(
    job: Decoding, chunk_seconds: float, *, patience_seconds: float
) -> Iterator[DecodedVideo]:
    """Yield the pieces that are complete."""
    while True:
        begins = _first_seconds(job)
        if begins is None:
            return
        # The grid is that of the file, whatever was drained when: k counts from its start.
        boundary = chunk_seconds * (math.floor(begins / chunk_seconds + 1e-9) + 1)
        reached = _reached(job)
        if min(reached) < boundary and max(reached) < boundary + patience_seconds:
            return
        if max(reached) < boundary:
            return  # the last piece is made by `decode_chunks`
        yield _piece(job, boundary)


def last_piece(job: Decoding) -> DecodedVideo:
    """Return everything that is left as one piece."""
    return _piece(job, math.inf)


def _first_seconds(job: Decoding) -> float | None:
    """Start of the earliest frame or sample that was decoded and not drained."""
    shown = job.pictures.first_start_seconds if job.pictures else None
    sounds = job.sound.first_seconds if job.sound else None
    return min((time for time in (shown, sounds) if time is not None), default=None)


def _reached(job: Decoding) -> list[float]:
    """Second up to which each track is known."""
    known = []
    if job.pictures is not None:
        last = job.pictures.last_start_seconds
        known.append(-math.inf if last is None else last)
    if job.sound is not None:
        known.append(job.sound.next_seconds)
    return known


def _piece(job: Decoding, before_seconds: float) -> DecodedVideo:
    frames, starts, stops, suspect = None, np.empty(0), np.empty(0), np.empty(0, bool)
    if job.pictures is not None:
        frames, starts, stops, suspect = job.pictures.drain(before_seconds)
    samples, begins = job.sound.drain(before_seconds) if job.sound is not None else (None, 0.0)
    return DecodedVideo(
        frames=frames if len(starts) else None,
        start_seconds=starts,
        stop_seconds=stops,
        suspect=suspect,
        samples=samples,
        samples_start_seconds=begins,
        samples_stop_seconds=begins + (0 if samples is None else len(samples)) / 16_000,
        known_seconds=before_seconds,
        **job.findings(),
    )
