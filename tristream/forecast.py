"""Time, disk and memory of an extraction: measured on a sample before, and its pace during it."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tristream.memory import tree_bytes
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.streams.extraction import VideoResult
    from tristream.streams.timings import Stages

N_PROBED = 48  # videos whose length is read
N_MEASURED = 8  # videos that are embedded, at most
LEAST_MEASURED = 3
SECONDS = 10.0  # after which no further one is begun
RECENT_SECONDS = 60.0  # the pace is that of the last minute
ROW_BYTES = 4200  # of a video and stream in Parquet: 1024 numbers and what stands beside them


@dataclass(frozen=True)
class Forecast:
    """Expected cost of an extraction.

    Attributes:
        n_videos: all that are asked for.
        n_todo: estimated from the sample: those that are not cached.
        n_measured: videos that were embedded for the measurement.
        seconds: of the whole extraction from its start.
        seconds_per_video: after start-up.
        disk_bytes: growth of the cache and the tables.
        memory_bytes: peak of this process and its decode processes.
    """

    n_videos: int
    n_todo: int
    n_measured: int
    seconds: float
    seconds_per_video: float
    disk_bytes: float
    memory_bytes: float

    def sentence(self) -> str:
        """Return the forecast in words."""
        return (
            f"{self.n_todo} of {self.n_videos} videos to compute: about {duration(self.seconds)}, "
            f"{self.disk_bytes / 1e6:.0f} MB of disk, {self.memory_bytes / 1e6:.0f} MB of memory (measured on "
            f"{self.n_measured} of them; within a factor of 1.5 while the machine is as busy as now)"
        )


def forecast(
    rows: Sequence[VideoRow],
    embed: Callable[[Sequence[VideoRow], Workspace], Iterator[VideoResult]],
    seconds_of: Callable[[VideoRow], float],
    is_done: Callable[[VideoRow], bool],
    workspace: Workspace,
    *,
    n_streams: int,
    clock: Callable[[], float] = time.monotonic,
) -> Forecast:
    """Forecast the cost of `embed` for all rows from a sample of them.

    Args:
        rows: all videos.
        embed: embeds some of them with the cache of a workspace; networks are prepared in its first call.
        seconds_of: seconds of a video that are read; 0 for a file that cannot be read.
        is_done: True if a video's embeddings are cached.
        workspace: of the run.
        n_streams: streams that are embedded.
        clock: seconds.
    """
    generator = np.random.default_rng(0)
    sample = [rows[index] for index in generator.permutation(len(rows))[:N_PROBED]]
    todo = [row for row in sample if not is_done(row)]
    n_todo = round(len(rows) * len(todo) / max(1, len(sample)))
    lengths = {row.video_id: seconds_of(row) for row in todo}
    usable = sorted(
        (row for row in todo if lengths[row.video_id] > 0), key=lambda row: lengths[row.video_id]
    )
    if not usable:
        return Forecast(len(rows), 0 if not todo else n_todo, 0, 0.0, 0.0, 0.0, 0.0)
    # The one in the middle first, for the start; then some spread over all lengths.
    middle, spread = (
        usable[len(usable) // 2],
        np.linspace(0, len(usable) - 1, min(N_MEASURED, len(usable))),
    )
    chosen = [usable[index] for index in np.unique(spread.round().astype(int))]
    generator.shuffle(chosen)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder, _watched_memory() as peak:
        scratch = replace(workspace, cache_dir=Path(folder))
        begun = clock()
        list(embed([middle], scratch))
        start = clock() - begun
        warm_bytes = _folder_bytes(Path(folder))
        begun, looked_at, n_measured = clock(), 0.0, 0
        rest = [row for row in chosen if row is not middle] or [middle]
        for result in embed(rest, replace(workspace, cache_dir=Path(folder) / "again")):
            n_measured += 1
            looked_at += lengths[result.video.video_id]
            if n_measured >= LEAST_MEASURED and clock() - begun > SECONDS:
                break
        took = clock() - begun
        written = _folder_bytes(Path(folder)) - warm_bytes
    mean_length = float(np.mean([lengths[row.video_id] for row in usable]))
    usable_share = len(usable) / len(todo)
    per_video = took * mean_length / max(looked_at, 1e-9)
    preparing = max(0.0, start - per_video)
    return Forecast(
        n_videos=len(rows),
        n_todo=n_todo,
        n_measured=n_measured + 1,
        seconds=preparing + per_video * n_todo * usable_share,
        seconds_per_video=per_video,
        disk_bytes=n_todo
        * usable_share
        * (written * mean_length / max(looked_at, 1e-9) + n_streams * ROW_BYTES),
        memory_bytes=max(peak),
    )


def duration(seconds: float) -> str:
    """Return a time in words: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _watched_memory() -> Iterator[list[int]]:
    """A list that grows by the memory of this process and its children, ten times a second."""
    peaks, over = [tree_bytes(os.getpid())], threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peaks.append(tree_bytes(os.getpid()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        over.set()
        watcher.join()


class Pace:
    """Pace, remaining time and shares of stages, for the note beside a progress bar.

    Args:
        total: number of results.
        stages: time per stage.
    """

    def __init__(self, total: int, stages: Stages) -> None:
        self._total = total
        self._stages = stages
        self._n_done = 0
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def note(self) -> str:
        """Count one more result and return the note."""
        self._n_done += 1
        now = time.monotonic()
        self._recent.append((now, self._n_done))
        while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        since, n_before = self._recent[0]
        per_second = (self._n_done - n_before) / max(now - since, 1e-9)
        left = (self._total - self._n_done) / per_second
        shares = self._stages.shares().items()
        stages = ", ".join(f"{stage} {share:.0%}" for stage, share in shares if share >= 0.005)
        pace = f"{per_second:.2g} videos/s" if per_second < 100 else f"{per_second:.0f} videos/s"
        ends = f", {duration(left)} to go" if self._n_done < self._total else ""
        return f"{pace}{ends}" + (f"  [{stages}]" if stages else "")
