"""State of every video of a run: status.csv and failures.csv, and another try of the failed ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tristream.dataset.videos_csv import text_of
from tristream.errors import UsageError
from tristream.files import write_csv
from tristream.workspace import Workspace

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.streams.extraction import VideoResult
    from tristream.streams.model import TrainedStream

STATUS = ("video_id", "status", "reasons", "absent_streams")


def write_status(
    workspace: Workspace,
    results: Sequence[VideoResult],
    states: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write status.csv (one state per video) and failures.csv (the rejected ones).

    Args:
        workspace: of the run.
        results: of the videos that were embedded now.
        states: video_id → earlier row of status.csv, for videos that were not; their order stays.
    """
    rows = {
        result.video.video_id: [
            result.video.video_id,
            result.status,
            result.rejected_reason or " ".join(sorted({*result.reasons, *result.absent.values()})),
            " ".join(f"{name}:{reason}" for name, reason in sorted(result.absent.items())),
        ]
        for result in results
    }
    write_csv(workspace.folder / "status.csv", STATUS, list({**(states or {}), **rows}.values()))
    failures = [[r.video.video_id, r.rejected_reason, r.rejected] for r in results if r.rejected]
    write_csv(workspace.folder / "failures.csv", ["video_id", "reason", "sentence"], failures)


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
    header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    if tuple(header) != STATUS:
        raise UsageError(f"{path} has the columns {', '.join(header)}; {embed} again")
    return {row[0]: row for row in ([text_of(cell) for cell in row] for row in rows)}
