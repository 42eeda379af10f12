"""tristream detect --follow: windows of a live source, scored as they come, events said as they happen."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from tristream import streams
from tristream.commands import screen
from tristream.commands.detector_store import StoredDetector
from tristream.commands.event_lines import STRONG_SHARE, event_words
from tristream.commands.workspace import choose_device
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.fusion.anomaly.online_events import Alarm, Ended, OnlineEvents
    from tristream.media.live.follow import Follower, Notice, Piece
    from tristream.media.live.source import LiveSource
    from tristream.store.cache import Cache
    from tristream.streams.model import TrainedStream
    from tristream.streams.windows import Window


class Watch:
    """One live source before one detector.

    Args:
        stored: the detector; fitted on windows.
        trained: its streams.
        limit: threshold.
        device: where the networks run.
        cache: of compiled networks.
        as_json: one JSON object a line on stdout, else sentences.
        save: folder for a clip and a picture of each event; None: none are kept.
    """

    def __init__(
        self,
        stored: StoredDetector,
        trained: Sequence[TrainedStream],
        limit: float,
        device: str,
        *,
        cache: Cache,
        as_json: bool,
        save: Path | None = None,
    ) -> None:
        from tristream.commands.event_pictures import LivePictures
        from tristream.fusion.anomaly.online_events import OnlineEvents
        from tristream.media.live.picture_state import PictureState
        from tristream.streams import compute
        from tristream.streams.extraction import make_fillers
        from tristream.streams.windows import Ring

        self._stored, self._trained = stored, trained
        self._limit, self._as_json = limit, as_json
        engine = compute.choose(
            "auto", device=choose_device(device, deterministic=False), cache=cache
        )
        self._device, self._fillers = engine.device, make_fillers(trained, engine)
        self._ring = Ring(stored.plan)
        self._offset = 0.0
        self._pictures = PictureState()
        self._saved = None if save is None else LivePictures(save, limit, stored.plan.seconds)
        self._regions = [cell.name for cell in stored.plan.cells()]
        self._events: OnlineEvents = OnlineEvents(
            limit,
            stored.hysteresis * abs(limit),
            stored.plan.hop_seconds,
            stored.min_seconds,
            tuple(stored.spaces),
        )
        self._kept: list[
            np.ndarray
        ] = []  # rows of the event that is open, and of the window in hand
        self.n_windows = 0
        self.n_events = 0

    def run(self, follower: Follower) -> None:
        """Until the source ends."""
        from tristream.media.live.follow import Notice

        for thing in follower:
            if isinstance(thing, Notice):
                self.say_notice(thing)
            else:
                self.look(thing)
        for window in self._ring.finish():
            self._score(window)
        self._report(self._events.close())

    def look(self, piece: Piece) -> None:
        """Takes the next piece."""
        from tristream.streams.windows import Ring

        if piece.is_new:
            for window in self._ring.finish():
                self._score(window)
            self._report(self._events.close())
            self._ring, self._offset = Ring(self._stored.plan), piece.offset_seconds
            self._pictures.restart()
            if self._saved is not None:
                self._saved.restart()
        if piece.video.frames is not None:
            if self._saved is not None:
                self._saved.add_frames(piece.video.start_seconds + self._offset, piece.video.frames)
            for what, since in self._pictures.add(piece.video.frames, piece.video.start_seconds):
                self._say_picture(what, since + self._offset)
        for window in self._ring.add(piece.video):
            self._score(window)

    def say_notice(self, notice: Notice) -> None:
        """A line about the source itself."""
        self._emit(
            {"type": "notice", "kind": notice.kind, "at_seconds": round(notice.at_seconds, 3),
             "value": round(notice.value, 3), "words": notice.words},
            notice.words,
        )  # fmt: skip

    def _say_picture(self, what: str, since: float) -> None:
        states = {"black": "is black", "frozen": "is frozen", "picture": "moves again"}
        words = f"the picture {states[what]} since {since:.1f} s"
        self._emit(
            {
                "type": "notice",
                "kind": what,
                "at_seconds": round(since, 3),
                "value": 0.0,
                "words": words,
            },
            words,
        )

    def _score(self, window: Window) -> None:
        from tristream.streams.window_rows import aggregate, cut, embed_now

        rows = cut(window, "", Path(), self._stored.plan, self._trained)
        embed_now(rows, self._fillers)
        X = np.concatenate(
            [aggregate(rows, stream, self._device) for stream in self._trained], axis=1
        )
        there = np.flatnonzero(~np.isnan(X).all(axis=1))
        if not len(there):
            return
        self.n_windows += 1
        X = X[there].astype(np.float64)
        regions = np.array([rows[n].region for n in there], np.int64)
        scores = self._stored.scores(X, regions)
        best = int(np.argmax(scores))
        errors = self._stored.errors(X[best : best + 1], regions[best : best + 1])[0]
        centre = (window.start_seconds + window.stop_seconds) / 2 + self._offset
        region = int(regions[best])
        if self._saved is not None:
            self._saved.add_score(centre, float(scores[best]))
        # The row at the peak is kept with the event: its neighbours are looked up when it ends.
        self._report(
            self._events.add(centre, float(scores[best]), errors, region, self._keep(X[best]))
        )

    def _keep(self, row: np.ndarray) -> int:
        """Remembers a row for as long as an event may ask for it; returns its number."""
        if not self._events.is_open:
            self._kept = []
        self._kept.append(row)
        return len(self._kept) - 1

    def _report(self, found: Sequence[Alarm | Ended]) -> None:
        from tristream.fusion.anomaly.online_events import Alarm

        for one in found:
            line: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="milliseconds")}
            shares = {name: round(share, 4) for name, share in one.shares.items()}
            ordered = sorted(shares, key=lambda name: -shares[name])
            by = [name for name in ordered if shares[name] >= STRONG_SHARE] or ordered[:1]
            common = {"shares": shares, "streams": by, "region": self._regions[one.region]}
            common["nearest"] = self._stored.nearest(
                self._kept[one.row][None], np.array([one.region])
            )[0]
            if isinstance(one, Alarm):
                line |= {
                    "type": "alarm",
                    "start_seconds": round(one.at_seconds, 3),
                    "score": round(one.score, 6),
                }
                line |= {"threshold": round(self._limit, 6), **common}
                words = (
                    f"ALARM at {one.at_seconds:.2f} s  score {one.score:.3f} (threshold {self._limit:.3f})  by "
                    f"{'+'.join(by)}"
                )
                if self._saved is not None:
                    self._saved.begin(one.at_seconds)
            else:
                self.n_events += 1
                event = one.event
                line |= {
                    "type": "event",
                    "start_seconds": round(event.start_seconds, 3),
                    "stop_seconds": round(event.stop_seconds, 3),
                    "peak_seconds": round(event.peak_seconds, 3),
                    "peak_score": round(event.peak_score, 6),
                    **common,
                }
                words = "event " + event_words(line)
                if self._saved is not None:
                    line["files"] = self._save(line)
            self._emit(line, words)

    def _save(self, line: dict[str, Any]) -> list[str]:
        """Names of the files of an event; a disk that is full ends no watch."""
        assert self._saved is not None
        moment = line["at"].replace("-", "").replace(":", "")[:15]
        try:
            return [
                str(path)
                for path in self._saved.end(line, f"{moment}-{line['start_seconds']:08.2f}s")
            ]
        except OSError as error:
            screen.warn(f"the pictures of this event were not saved: {error}")
            return []

    def _emit(self, line: dict[str, Any], words: str) -> None:
        if self._as_json:
            sys.stdout.write(json.dumps(line, ensure_ascii=True) + "\n")
            sys.stdout.flush()
        elif line["type"] == "notice":
            screen.warn(words)
        else:
            typer.echo(screen.printable(words))


def follow(
    text: str,
    stored: StoredDetector,
    trained: Sequence[TrainedStream],
    limit: float,
    *,
    protocols: str | None,
    device: str,
    cache: Cache,
    silence_seconds: float,
    max_lag_seconds: float | None,
    as_json: bool,
    save: Path | None = None,
) -> int:
    """Follows a source until it ends.

    Raises:
        UsageError: the detector scores whole videos.
        TristreamError: as `parse_source`.
    """
    import cv2

    from tristream.media.live.follow import Follower

    if not stored.plan.seconds:
        raise UsageError(
            "--follow needs a detector of windows, and this one scores whole videos; fit one: "
            "tristream fuse --window 2 --hop 1"
        )
    cv2.setNumThreads(1)
    source = source_of(text, protocols)
    wanted = [streams.stream_class(stream.name) for stream in trained]
    watch = Watch(stored, trained, limit, device, cache=cache, as_json=as_json, save=save)
    with Follower(
        source,
        pictures=any(stream.needs_pictures for stream in wanted),
        sound=any(stream.needs_sound for stream in wanted),
        max_side=trained[0].data.max_side_px,
        chunk_seconds=min(1.0, stored.plan.hop_seconds),
        silence_seconds=silence_seconds,
        max_lag_seconds=max_lag_seconds,
    ) as follower:
        watch.run(follower)
        dropped = follower.n_dropped_frames
    screen.note(f"{watch.n_windows} windows, {watch.n_events} events, {dropped} frames dropped")
    return screen.OK


def source_of(text: str, protocols: str | None) -> LiveSource:
    """--follow SOURCE with --protocols A,B."""
    from tristream.media.live.source import parse_source

    return parse_source(
        text, [name.strip() for name in (protocols or "").split(",") if name.strip()]
    )
