"""What an earlier `embed` said of a run's videos, so that those that failed can be tried again alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tristream.commands.workspace import STATUS, Workspace
from tristream.dataset.videos_csv import text_of
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.streams.model import TrainedStream


@dataclass(frozen=True)
class Earlier:
    """The state of a run before its failed videos are tried again.

    Attributes:
        failed: rows of the videos that were rejected.
        states: video_id → what its row of status.csv says, of all videos and in their order.
    """

    failed: list[VideoRow]
    states: Mapping[str, list[str]]

    @classmethod
    def read(
        cls, workspace: Workspace, rows: Sequence[VideoRow], trained: Sequence[TrainedStream]
    ) -> Earlier:
        """What the run says of `rows`.

        Raises:
            UsageError: some were not embedded before, or by other streams than those of today.
        """
        again = f"run it once without --retry: tristream embed --run {workspace.run}"
        for stream in trained:
            folder = workspace.embeddings_dir(stream.name, stream.space_id)
            if not any(folder.glob("part-*.parquet")):
                raise UsageError(
                    f"'{stream.name}' has no embeddings of its present training in {folder}; {again}"
                )
        said = _states(workspace)
        if missing := [row.video_id for row in rows if row.video_id not in said]:
            raise UsageError(
                f"{missing[0]} has no state in {workspace.run / 'status.csv'}; {again}"
            )
        states = {row.video_id: said[row.video_id] for row in rows}
        return cls([row for row in rows if states[row.video_id][1] == "rejected"], states)


def _states(workspace: Workspace) -> dict[str, list[str]]:
    path = workspace.run / "status.csv"
    if not path.exists():
        raise UsageError(
            f"{path} does not exist: nothing was tried yet; run tristream embed --run {workspace.run}"
        )
    header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    if tuple(header) != STATUS:
        raise UsageError(
            f"{path} has the columns {', '.join(header)}; run tristream embed --run {workspace.run} again"
        )
    return {row[0]: row for row in ([text_of(cell) for cell in row] for row in rows)}
