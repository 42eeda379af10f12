"""Results of an embedding written while it runs: part files of tables and states of videos."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tristream.embeddings import tables_of
from tristream.status import StatusWriter
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.streams.extraction import VideoResult
    from tristream.streams.model import TrainedStream

PART_VIDEOS = 1000  # at most, in one part file
FIRST_SECONDS = 30.0  # until the first part of a slow run
GROWTH = 0.1  # of the time so far, from one part to the next: few files, however slow the run


@dataclass
class Tally:
    """Counts of an embedding; what grows with the number of videos is their names.

    Attributes:
        n_videos: results so far.
        states: {state: number}.
        reasons: {reason code of a degraded video: number}.
        masks: {(stream, reason code): number}.
        video_ids: of the videos with a row, in order.
        failures: {video_id: reason code} of the rejected ones.
        sentences: {video_id: reason in words} of the rejected ones.
    """

    n_videos: int = 0
    states: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    masks: Counter[tuple[str, str]] = field(default_factory=Counter)
    video_ids: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)

    def add(self, result: VideoResult) -> None:
        """Count one result."""
        name = result.video.video_id
        self.n_videos += 1
        self.states[result.status] += 1
        if result.rejected:
            self.failures[name] = result.rejected_reason
            self.sentences[name] = str(result.rejected)
            return
        self.video_ids.append(name)
        self.reasons.update(set(result.reasons))
        self.masks.update(result.absent.items())


class PartWriter:
    """Write tables and states of videos as their results arrive, at most 1,000 in one part file.

    What has been written is valid at every moment: after a kill the run holds the finished parts.
    Parts of earlier embeddings stay until `close`; a row of a later part replaces theirs.

    Args:
        workspace: of the run.
        trained: streams of the results.
        replace: remove the parts of earlier embeddings at the end.
        states: earlier rows of status.csv, by video_id, that the new ones are merged into at the end;
            None: the file is written anew.
        shard: name of the part of the videos that this is, as "2-of-8"; "": all.
    """

    def __init__(
        self,
        workspace: Workspace,
        trained: Sequence[TrainedStream],
        *,
        replace: bool = True,
        states: Mapping[str, Sequence[str]] | None = None,
        shard: str = "",
    ) -> None:
        self.tally = Tally()
        self.n_present: Counter[str] = Counter()
        self._workspace, self._trained, self._replace = workspace, trained, replace
        self._status = StatusWriter(workspace, states, shard=shard)
        self._waiting: list[VideoResult] = []
        self._written: set[Path] = set()
        self._older = {
            part
            for stream in trained
            for part in self.folder_of(stream).glob("part-*.parquet")
            if replace
        }
        self._started = time.monotonic()
        self._next = FIRST_SECONDS

    def folder_of(self, stream: TrainedStream) -> Path:
        """Return the folder of a stream's tables."""
        return self._workspace.embeddings_dir(stream.name, stream.space_id)

    def add(self, result: VideoResult) -> None:
        """Take one result; its segment embeddings are not kept."""
        self.tally.add(result)
        self._waiting.append(_without_segments(result))
        seconds = time.monotonic() - self._started
        if len(self._waiting) >= PART_VIDEOS or seconds >= self._next:
            self._flush()
            self._next = max(seconds + FIRST_SECONDS, seconds * (1 + GROWTH))

    def close(self) -> None:
        """Write the rest, and remove the parts of earlier embeddings if they are replaced."""
        if self._waiting or (self._replace and not self._written):
            self._flush()
        for part in self._older - self._written:
            part.unlink(missing_ok=True)
        self._status.close()

    def _flush(self) -> None:
        from tristream.store import embeddings

        results, self._waiting = self._waiting, []
        usable = [result for result in results if not result.rejected]
        if usable or (self._replace and not self._written):
            for stream in self._trained:
                table = tables_of([stream], results)[stream.name]
                self._written.add(embeddings.write(table, self.folder_of(stream)))
                self.n_present[stream.name] += int(table.present.sum())
        self._status.add(results)


def _without_segments(result: VideoResult) -> VideoResult:
    """Return the result with the times that its segments span in place of their embeddings."""
    spans = {
        name: replace(
            segments,
            embedding=np.zeros((1, 0), np.float32),
            start_seconds=np.array([segments.start_seconds.min()]),
            stop_seconds=np.array([segments.stop_seconds.max()]),
        )
        for name, segments in result.segments.items()
        if name in result.embeddings
    }
    return replace(result, segments=spans)
