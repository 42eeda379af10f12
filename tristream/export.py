"""Embeddings of a run as files for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tristream.embeddings import fuse_tables
from tristream.errors import UsageError
from tristream.fused import newest_windows, read_tables, side_by_side, trained_spaces
from tristream.workspace import Workspace, check_names

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.store.embeddings import EmbeddingTable
    from tristream.store.exports import ExportTable

FORMATS = ("parquet", "npz", "csv", "faiss")
FUSED = "fused"


@dataclass(frozen=True)
class Exported:
    """One file of an export.

    Attributes:
        path: of the file.
        n_rows, n_columns: of its matrix.
    """

    path: Path
    n_rows: int
    n_columns: int


def export(
    workspace: Workspace,
    to: str = "parquet",
    *,
    out: Path | None = None,
    streams: Sequence[str] | None = None,
    windows: bool = False,
    standardise: bool = False,
) -> dict[str, Exported]:
    """Write one file per stream, and one of all streams side by side if there are several.

    Args:
        workspace: of the run.
        to: "parquet", "npz", "csv" or "faiss" (always standardised, rows of length 1).
        out: folder for the files; None: RUN/export.
        streams: trained streams; None: all.
        windows: one row per window of the windows that were embedded last.
        standardise: columns of mean 0 and deviation 1 on train; a missing stream is 0.

    Raises:
        UsageError: an unknown format, faiss that is not installed, no embeddings.
    """
    if to not in FORMATS:
        raise UsageError(f"--to {to} is no format; available: {', '.join(FORMATS)}")
    if to == "faiss":
        _check_faiss()
    from tristream.store.exports import WRITERS

    tables = _tables(workspace, check_names(streams), windows=windows)
    rows = {row.video_id: row for row in workspace.manifest().rows}
    folder = out or workspace.folder / "export"
    suffix = "-windows" if windows else ""
    written = {}
    exports = _exports(tables, rows, standardise=standardise or to == "faiss", windows=windows)
    for name, table in exports.items():
        path = folder / f"{name}{suffix}.{to}"
        WRITERS[to](table, path)
        written[name] = Exported(path, len(table), table.X.shape[1])
    return written


def _check_faiss() -> None:
    import importlib.util

    if importlib.util.find_spec("faiss") is None:
        raise UsageError("--to faiss needs the library faiss: pip install 'tristream[export]'")


def _tables(
    workspace: Workspace, wanted: Sequence[str] | None, *, windows: bool
) -> dict[str, EmbeddingTable]:
    """Return the tables of every stream, over the same rows in the same order."""
    spaces = trained_spaces(workspace, wanted)
    if windows:
        return newest_windows(workspace, list(spaces))
    tables = read_tables(workspace, spaces)
    return side_by_side(tables, next(iter(tables.values())).video_id, workspace.folder)


def _exports(
    tables: Mapping[str, EmbeddingTable],
    rows: Mapping[str, VideoRow],
    *,
    standardise: bool,
    windows: bool,
) -> dict[str, ExportTable]:
    """Return {file name: content}."""
    from tristream.fusion.standardise import fit_standardiser
    from tristream.store.exports import ExportTable

    X, masks, columns = fuse_tables(tables)
    first = next(iter(tables.values()))
    # A region of a window is a fragment of its video's id.
    known = [rows.get(video) or rows.get(video.rpartition("#")[0]) for video in first.video_id]
    facts: dict[str, list[Any]] = {"video_id": first.video_id, "content_id": first.content_id}
    facts |= {
        name: [getattr(row, name) if row else "" for row in known]
        for name in ("label", "split", "group")
    }
    if windows:
        facts |= {
            "start_seconds": first.start_seconds.tolist(),
            "stop_seconds": first.stop_seconds.tolist(),
        }
    fitted_on = "none"
    if standardise:
        train = np.array([row is not None and row.split == "train" for row in known])
        fitted_on = "the rows of split train" if train.any() else "all rows"
        X = fit_standardiser(X[train] if train.any() else X, columns=columns).transform(X)
    exports = {}
    for s, (name, block) in enumerate(columns.items()):
        own = {name: slice(0, block.stop - block.start)}
        lineage = _lineage({name: tables[name]}, fitted_on)
        values = X[:, block].astype(np.float32)
        exports[name] = ExportTable(facts, values, masks[:, [s]], own, lineage)
    if len(columns) > 1:
        lineage = _lineage(tables, fitted_on)
        exports[FUSED] = ExportTable(facts, X.astype(np.float32), masks, columns, lineage)
    return exports


def _lineage(tables: Mapping[str, EmbeddingTable], fitted_on: str) -> dict[str, Any]:
    return {
        "spaces": {name: table.space_id for name, table in tables.items()},
        "lineage": {name: table.lineage for name, table in tables.items()},
        "standardised_on": fitted_on,
    }
