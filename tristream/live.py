"""Anomaly detection on a source without an end: alarms, events and notices as they happen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.decision import Decision
from tristream.detect import STRONG_SHARE, ThresholdRule, check_spaces
from tristream.errors import UsageError
from tristream.extract import warn_of_estimated_flow
from tristream.stored_detector import StoredDetector
from tristream.workspace import HasWorkspace, Workspace

if TYPE_CHECKING:
    from tristream.event_pictures import LivePictures
    from tristream.fusion.anomaly.online_events import Alarm as Raised
    from tristream.fusion.anomaly.online_events import Ended
    from tristream.media.live.follow import Follower, Piece
    from tristream.streams.model import TrainedStream
    from tristream.streams.window_rows import Row


@dataclass(frozen=True)
class Notice:
    """State of the source: silent, lost, opened again, black, frozen.

    Attributes:
        kind: stable code.
        at_seconds: source time.
        value: number of the notice, as seconds of silence.
        words: sentence.
    """

    kind: str
    at_seconds: float
    value: float
    words: str

    def to_json(self) -> dict[str, Any]:
        return {
            "type": "notice",
            "kind": self.kind,
            "at_seconds": round(self.at_seconds, 3),
            "value": round(self.value, 3),
            "words": self.words,
        }


@dataclass(frozen=True)
class Cause:
    """Cause of an alarm or event.

    Attributes:
        shares: {stream: part of the squared error}.
        streams: those that caused it, largest share first.
        region: media fragment; "" for the whole frame.
        nearest: most similar normal training videos.
    """

    shares: dict[str, float]
    streams: tuple[str, ...]
    region: str
    nearest: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "shares": dict(self.shares),
            "streams": list(self.streams),
            "region": self.region,
            "nearest": list(self.nearest),
        }


@dataclass(frozen=True)
class Alarm:
    """Start of an event, raised as soon as a window reaches the threshold.

    Attributes:
        at: wall-clock time, ISO 8601 in UTC.
        start_seconds: centre of the window, in source time.
    """

    at: str
    start_seconds: float
    score: float
    threshold: float
    cause: Cause

    def to_json(self) -> dict[str, Any]:
        return {
            "at": self.at,
            "type": "alarm",
            "start_seconds": self.start_seconds,
            "score": self.score,
            "threshold": self.threshold,
            **self.cause.to_json(),
        }


@dataclass(frozen=True)
class LiveEvent:
    """Event that has ended.

    Attributes:
        at: wall-clock time of its end, ISO 8601 in UTC.
        files: clip and picture, where they are saved.
    """

    at: str
    start_seconds: float
    stop_seconds: float
    peak_seconds: float
    peak_score: float
    cause: Cause
    files: tuple[str, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        values = {
            "at": self.at,
            "type": "event",
            "start_seconds": self.start_seconds,
            "stop_seconds": self.stop_seconds,
            "peak_seconds": self.peak_seconds,
            "peak_score": self.peak_score,
            **self.cause.to_json(),
        }
        return values if self.files is None else {**values, "files": list(self.files)}


@dataclass(frozen=True)
class FollowOptions:
    """Choices of following a source.

    Attributes:
        protocols: network protocols that the source may use.
        silence_seconds: without a frame, after which a notice is raised.
        max_lag_seconds: behind the source, after which frames are dropped; None: by its kind.
        rule: another threshold than the stored one.
        save: folder for a clip and a picture of each event.
    """

    protocols: Sequence[str] = ()
    silence_seconds: float = 20.0
    max_lag_seconds: float | None = None
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    save: Path | None = None


def follow(
    run: str | Path | Workspace | HasWorkspace, source: str, options: FollowOptions | None = None
) -> Iterator[Notice | Alarm | LiveEvent]:
    """Yield alarms, events and notices of a live source until it ends.

    Args:
        run: fused run whose detector scores windows.
        source: growing file, pipe ("-"), camera device or URL.
        options: protocols, threshold, saved clips.

    Raises:
        UsageError: a detector of whole videos, or a stream trained since.
        TristreamError: a source that is not allowed or does not exist.
    """
    import cv2

    from tristream.media.live.follow import Follower
    from tristream.media.live.source import parse_source

    options = options or FollowOptions()
    workspace = Workspace.of(run)
    stored = Decision(workspace).detector
    limit = options.rule.value(workspace, stored)
    trained = workspace.load_streams(list(stored.spaces))
    check_spaces(workspace, stored, trained)
    warn_of_estimated_flow(workspace, trained)
    if not stored.plan.seconds:
        raise UsageError(
            "--follow needs a detector of windows, and this one scores whole videos; fit one: "
            "tristream fuse --window 2 --hop 1"
        )
    cv2.setNumThreads(1)
    place = parse_source(source, list(options.protocols))
    watch = Watch(workspace, stored, trained, limit, save=options.save)
    with Follower(
        place,
        **watch.cutter.decode_options,
        chunk_seconds=min(1.0, stored.plan.hop_seconds),
        silence_seconds=options.silence_seconds,
        max_lag_seconds=options.max_lag_seconds,
    ) as follower:
        yield from watch.items(follower)
        dropped = follower.n_dropped_frames
    workspace.progress.note(
        f"{watch.n_windows} windows, {watch.n_events} events, {dropped} frames dropped"
    )


class Watch:
    """Detector on the pieces of one live source.

    Args:
        workspace: of the run.
        stored: detector of windows.
        trained: its streams.
        limit: threshold.
        save: folder for a clip and a picture of each event.
    """

    def __init__(
        self,
        workspace: Workspace,
        stored: StoredDetector,
        trained: Sequence[TrainedStream],
        limit: float,
        *,
        save: Path | None = None,
    ) -> None:
        from tristream.event_pictures import LivePictures
        from tristream.fusion.anomaly.online_events import OnlineEvents
        from tristream.media.live.picture_state import PictureState
        from tristream.streams.extraction import make_fillers
        from tristream.streams.window_cutter import WindowCutter

        self._workspace, self._stored, self._trained = workspace, stored, trained
        self._limit = limit
        engine = workspace.compute.engine(workspace.cache())
        self._device, self._fillers = engine.device, make_fillers(trained, engine)
        self.cutter = WindowCutter.for_streams(trained, stored.plan, backend=engine)
        self._feed = self.cutter.begin()
        self._offset = 0.0
        self._pictures = PictureState()
        self._saved: LivePictures | None = None
        if save is not None:
            self._saved = LivePictures(save, limit, stored.plan.seconds)
        self._regions = [cell.name for cell in stored.plan.cells()]
        self._events = OnlineEvents(
            limit,
            stored.hysteresis * abs(limit),
            stored.plan.hop_seconds,
            stored.min_seconds,
            tuple(stored.spaces),
            window_seconds=stored.plan.seconds,
        )
        self._rows: list[np.ndarray] = []  # of the open event and of the current window
        self.n_windows = 0
        self.n_events = 0

    def items(self, follower: Follower) -> Iterator[Notice | Alarm | LiveEvent]:
        """Yield what happens until the source ends."""
        from tristream.media.live.follow import Notice as SourceNotice

        for thing in follower:
            if isinstance(thing, SourceNotice):
                yield Notice(thing.kind, thing.at_seconds, thing.value, thing.words)
            else:
                yield from self.look(thing)
        yield from self._end_of_piece()

    def look(self, piece: Piece) -> Iterator[Notice | Alarm | LiveEvent]:
        """Score the windows that end in the next piece."""
        if piece.is_new:
            yield from self._end_of_piece()
            self._feed, self._offset = self.cutter.begin(), piece.offset_seconds
            self._pictures.restart()
            if self._saved is not None:
                self._saved.restart()
        frames = piece.video.frames
        if frames is not None:
            if self._saved is not None:
                self._saved.add_frames(piece.video.start_seconds + self._offset, frames)
            for state, since in self._pictures.add(frames, piece.video.start_seconds):
                yield _picture_notice(state, since + self._offset)
        for rows in self._feed.add(piece.video):
            yield from self._score(rows)

    def _end_of_piece(self) -> Iterator[Alarm | LiveEvent]:
        for rows in self._feed.finish():
            yield from self._score(rows)
        yield from self._report(self._events.close())

    def _score(self, rows: list[Row]) -> Iterator[Alarm | LiveEvent]:
        from tristream.streams.window_rows import aggregate, embed_now

        embed_now(rows, self._fillers)
        blocks = [aggregate(rows, stream, self._device) for stream in self._trained]
        X = np.concatenate(blocks, axis=1)
        usable = np.flatnonzero(~np.isnan(X).all(axis=1))
        if not len(usable):
            return
        self.n_windows += 1
        X = X[usable].astype(np.float64)
        regions = np.array([rows[n].region for n in usable], np.int64)
        scores = self._stored.scores(X, regions)
        best = int(np.argmax(scores))
        errors = self._stored.errors(X[best : best + 1], regions[best : best + 1])[0]
        centre = (rows[0].start_seconds + rows[0].stop_seconds) / 2 + self._offset
        score = float(scores[best])
        if self._saved is not None:
            self._saved.add_score(centre, score)
        row = self._keep(X[best])  # its neighbours are looked up when the event ends
        yield from self._report(self._events.add(centre, score, errors, int(regions[best]), row))

    def _keep(self, row: np.ndarray) -> int:
        """Store a row as long as an event may ask for it; return its number."""
        if not self._events.is_open:
            self._rows = []
        self._rows.append(row)
        return len(self._rows) - 1

    def _report(self, changes: Sequence[Raised | Ended]) -> Iterator[Alarm | LiveEvent]:
        from tristream.fusion.anomaly.online_events import Alarm as Raised

        for change in changes:
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            cause = self._cause(change)
            if isinstance(change, Raised):
                if self._saved is not None:
                    self._saved.begin(change.at_seconds)
                yield Alarm(
                    at,
                    round(change.at_seconds, 3),
                    round(change.score, 6),
                    round(self._limit, 6),
                    cause,
                )
                continue
            self.n_events += 1
            event = change.event
            times = event.start_seconds, event.stop_seconds, event.peak_seconds
            start, stop, peak = (round(seconds, 3) for seconds in times)
            ended = LiveEvent(at, start, stop, peak, round(event.peak_score, 6), cause)
            yield ended if self._saved is None else self._with_files(ended, self._saved)

    def _cause(self, change: Raised | Ended) -> Cause:
        shares = {name: round(share, 4) for name, share in change.shares.items()}
        ordered = sorted(shares, key=lambda name: -shares[name])
        strong = [name for name in ordered if shares[name] >= STRONG_SHARE] or ordered[:1]
        row = self._rows[change.row][None]
        nearest = self._stored.nearest(row, np.array([change.region]))[0]
        return Cause(shares, tuple(strong), self._regions[change.region], tuple(nearest))

    def _with_files(self, event: LiveEvent, saved: LivePictures) -> LiveEvent:
        """Save the clip and picture of an event; a full disk does not end the watch."""
        from dataclasses import replace

        moment = event.at.replace("-", "").replace(":", "")[:15]
        name = f"{moment}-{event.start_seconds:08.2f}s"
        try:
            paths = [str(path) for path in saved.end(event.to_json(), name)]
        except OSError as error:
            self._workspace.progress.warn(f"the clip of this event was not saved: {error}")
            paths = []
        return replace(event, files=tuple(paths))


def _picture_notice(state: str, since_seconds: float) -> Notice:
    words = {"black": "is black", "frozen": "is frozen", "picture": "moves again"}[state]
    return Notice(state, since_seconds, 0.0, f"the picture {words} since {since_seconds:.1f} s")
