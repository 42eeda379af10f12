"""The embedding tables of a run as commands read them: of the streams as they are trained now, row beside row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tristream.commands.workspace import Workspace
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.store.embeddings import EmbeddingTable

STREAM_CONFIG = "config.json"  # beside a stream's weights


def trained_spaces(workspace: Workspace, wanted: Sequence[str] | None) -> dict[str, str]:
    """{stream: space_id} of the checkpoints, read without loading a network.

    Raises:
        UsageError: none is trained, or one that is named is not.
    """
    names = workspace.trained_names()
    missing = [name for name in wanted or () if name not in names]
    if missing or not names:
        name = missing[0] if missing else "spatial"
        what = f"the stream '{name}' is not trained" if missing else "no stream is trained"
        raise UsageError(
            f"{what} in {workspace.run}; train it first: tristream train-stream {name} --run {workspace.run}"
        )
    return {
        name: _stored(workspace.stream_dir(name) / STREAM_CONFIG)["space_id"]
        for name in wanted or names
    }


def read_tables(workspace: Workspace, spaces: Mapping[str, str]) -> dict[str, EmbeddingTable]:
    """The tables of whole videos in these spaces.

    Raises:
        UsageError: a stream was trained but not embedded since.
    """
    from tristream.store import embeddings

    tables = {}
    for name, space in spaces.items():
        folder = workspace.embeddings_dir(name, space)
        if not folder.exists():
            other = sorted(path.name for path in folder.parent.glob("*"))
            stale = (
                f" (there are embeddings of {other[0]}, of an earlier training)" if other else ""
            )
            raise UsageError(
                f"'{name}' has no embeddings in its space {space}{stale}; run tristream embed --run {workspace.run}"
            )
        tables[name] = embeddings.read(folder)
    return tables


def side_by_side(
    tables: Mapping[str, EmbeddingTable], video_ids: Sequence[str], run: Path
) -> dict[str, EmbeddingTable]:
    """The rows of these videos, in this order, in every table.

    Raises:
        UsageError: a table lacks some of them.
    """
    found = {}
    for name, table in tables.items():
        place = {video: index for index, video in enumerate(table.video_id)}
        lost = [video for video in video_ids if video not in place]
        if lost:
            raise UsageError(
                f"embeddings disagree on videos: {len(lost)} of {len(video_ids)} are not in '{name}' (first: "
                f"{lost[0]}); embed every stream on the same videos.csv: tristream embed --run {run}"
            )
        found[name] = table.take([place[video] for video in video_ids])
    return found


def _stored(path: Path) -> dict[str, str]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(
            f"{path} is damaged ({error}); train the stream again with --force"
        ) from error


def newest_windows(workspace: Workspace, names: Sequence[str]) -> dict[str, EmbeddingTable]:
    """The tables of windows that were written last, one for each stream.

    Raises:
        UsageError: a stream has none.
    """
    from tristream.store import embeddings

    tables = {}
    for name in names:
        found = (workspace.run / "windows" / name).glob("*/part-*.parquet")
        parts = sorted(found, key=lambda part: part.stat().st_mtime)
        if not parts:
            raise UsageError(
                f"{workspace.run} has no windows of '{name}'; make them: tristream fuse --window 2 --hop 1 "
                f"--run {workspace.run}"
            )
        tables[name] = embeddings.read(parts[-1].parent)
    return tables
