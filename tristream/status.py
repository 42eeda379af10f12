"""State of every video of a run: status.csv and failures.csv, and another try of the failed ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tristream.dataset.videos_csv import text_of
from tristream.errors import UsageError
from tristream.files import append_csv, complete_lines, write_csv
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.streams.extraction import VideoResult
    from tristream.streams.model import TrainedStream

STATUS = ("video_id", "status", "reasons", "absent_streams")
FAILURES = ("video_id", "reason", "sentence")


class StatusWriter:
    """Write status.csv (one state per video) and failures.csv (the rejected ones) bit by bit.

    Args:
        workspace: of the run.
        states: earlier rows of status.csv, by video_id, of which those that are not added stay, in
            their order; the files then appear at the end. None: rows are appended as they are added.
        shard: name of a part of the videos, whose files are status/SHARD.csv; "": all of them.
    """

    def __init__(
        self,
        workspace: Workspace,
        states: Mapping[str, Sequence[str]] | None = None,
        *,
        shard: str = "",
    ) -> None:
        folder = workspace.folder
        self._paths = (folder / "status.csv", folder / "failures.csv")
        if shard:
            folder = folder / "status"
            self._paths = (folder / f"{shard}.csv", folder / f"{shard}-failures.csv")
        self._states = None if states is None else dict(states)
        self._failures: list[Sequence[str]] = []
        self._is_new = True

    def add(self, results: Sequence[VideoResult]) -> None:
        """Take the states of some videos; without earlier states they are on disk afterwards."""
        rows = [
            [
                result.video.video_id,
                result.status,
                result.rejected_reason
                or " ".join(sorted({*result.reasons, *result.absent.values()})),
                " ".join(f"{name}:{reason}" for name, reason in sorted(result.absent.items())),
            ]
            for result in results
        ]
        failures = [
            [result.video.video_id, result.rejected_reason, str(result.rejected)]
            for result in results
            if result.rejected
        ]
        if self._states is not None:
            self._states |= {row[0]: row for row in rows}
            self._failures += failures
            return
        write = write_csv if self._is_new else append_csv
        write(self._paths[0], STATUS, rows)
        write(self._paths[1], FAILURES, failures)
        self._is_new = False

    def close(self) -> None:
        """Write what is not on disk yet."""
        if self._states is not None:
            write_csv(self._paths[0], STATUS, list(self._states.values()))
            write_csv(self._paths[1], FAILURES, self._failures)
        elif self._is_new:
            self.add([])


@dataclass(frozen=True)
class Earlier:
    """State of a run before its failed videos are tried again.

    Attributes:
        failed: rows of the videos that were rejected.
        states: video_id → row of status.csv, of all videos in their order.
    """

    failed: list[VideoRow]
    states: Mapping[str, list[str]]

    @classmethod
    def read(
        cls, workspace: Workspace, rows: Sequence[VideoRow], trained: Sequence[TrainedStream]
    ) -> Earlier:
        """Read the state of `rows`.

        Raises:
            UsageError: some were not embedded before, or by other streams than the current ones.
        """
        again = f"run it once without --retry: tristream embed --run {workspace.folder}"
        for stream in trained:
            folder = workspace.embeddings_dir(stream.name, stream.space_id)
            if not any(folder.glob("part-*.parquet")):
                raise UsageError(
                    f"'{stream.name}' has no embeddings of its present training in {folder}; "
                    f"{again}"
                )
        stored = _states(workspace)
        if missing := [row.video_id for row in rows if row.video_id not in stored]:
            path = workspace.folder / "status.csv"
            raise UsageError(f"{missing[0]} has no state in {path}; {again}")
        states = {row.video_id: stored[row.video_id] for row in rows}
        return cls([row for row in rows if states[row.video_id][1] == "rejected"], states)


def _states(workspace: Workspace) -> dict[str, list[str]]:
    path = workspace.folder / "status.csv"
    embed = f"run tristream embed --run {workspace.folder}"
    if not path.exists():
        raise UsageError(f"{path} does not exist: no video was tried yet; {embed}")
    header, *rows = csv.reader(io.StringIO(complete_lines(path), newline=""))
    if tuple(header) != STATUS:
        raise UsageError(f"{path} has the columns {', '.join(header)}; {embed} again")
    return {row[0]: row for row in ([text_of(cell) for cell in row] for row in rows)}
