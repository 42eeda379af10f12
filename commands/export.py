"""tristream export: the embeddings of a run as files for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from tristream.commands import options, screen
from tristream.commands.workspace import Workspace, chosen_streams
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.dataset.manifest import VideoRow
    from tristream.store.embeddings import EmbeddingTable
    from tristream.store.exports import ExportTable

FORMATS = ("parquet", "npz", "csv", "faiss")  # `store.exports.WRITERS`, which is slow to import
FUSED = "fused"


@screen.command
def run(
    to: Annotated[str, typer.Option("--to", help="parquet, npz, csv or faiss.")] = "parquet",
    run: options.Run = options.RUN,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the files; default: RUN/export.")
    ] = None,
    stream_list: options.Streams = None,
    windows: Annotated[
        bool,
        typer.Option(
            "--windows", help="One row for each window of `fuse --window`, not for each video."
        ),
    ] = False,
    standardise: Annotated[
        bool,
        typer.Option(
            "--standardise",
            help="Columns of mean 0 and deviation 1 on train; a missing stream is 0.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Write the embeddings of a run for other programs: one file for each stream, and one of all of them side by side.

    Beside the numbers stand video_id, label, split and group. What each file holds is in docs/embeddings.md. A FAISS
    index is always of standardised embeddings scaled to length 1: its inner product is their cosine.
    """
    from tristream.store.exports import WRITERS

    if to not in FORMATS:
        raise UsageError(f"--to {to} is no format; available: {', '.join(FORMATS)}")
    if to == "faiss":
        _check_faiss()
    workspace = Workspace(run, options.CACHE)
    tables = _tables(workspace, chosen_streams(stream_list), windows=windows)
    rows = {row.video_id: row for row in workspace.manifest(None).rows}
    folder = out or run / "export"
    suffix = "-windows" if windows else ""
    written = {}
    for name, table in _exports(
        tables, rows, standardise=standardise or to == "faiss", windows=windows
    ).items():
        path = folder / f"{name}{suffix}.{to}"
        WRITERS[to](table, path)
        written[name] = {"path": str(path), "rows": len(table), "columns": table.X.shape[1]}
        typer.echo(f"{path}  {len(table)} rows x {table.X.shape[1]}") if not as_json else None
    screen.emit({"format": to, "written": written}, as_json=as_json)
    return screen.OK


def _check_faiss() -> None:
    import importlib.util

    if importlib.util.find_spec("faiss") is None:
        raise UsageError("--to faiss needs the library faiss: pip install 'tristream[export]'")


def _tables(
    workspace: Workspace, wanted: Sequence[str] | None, *, windows: bool
) -> dict[str, EmbeddingTable]:
    """The tables of every stream, over the same rows in the same order.

    Raises:
        UsageError: there are none, or they are not over the same videos.
    """
    from tristream.commands.tables import newest_windows, read_tables, side_by_side, trained_spaces

    spaces = trained_spaces(workspace, wanted)
    if windows:
        return newest_windows(workspace, list(spaces))
    tables = read_tables(workspace, spaces)
    return side_by_side(tables, next(iter(tables.values())).video_id, workspace.run)


def _exports(
    tables: Mapping[str, EmbeddingTable],
    rows: Mapping[str, VideoRow],
    *,
    standardise: bool,
    windows: bool,
) -> dict[str, ExportTable]:
    """{file: what it holds}: each stream, and all of them where there are several."""
    from tristream.fusion.concatenate import fuse_tables
    from tristream.fusion.standardise import fit_standardiser
    from tristream.store.exports import ExportTable

    X, masks, columns = fuse_tables(tables)
    first = next(iter(tables.values()))
    # A region of a window is a fragment of its video's id.
    known = [rows.get(video) or rows.get(video.rpartition("#")[0]) for video in first.video_id]
    about_rows: dict[str, list[Any]] = {"video_id": first.video_id, "content_id": first.content_id}
    about_rows |= {
        name: [getattr(row, name) if row else "" for row in known]
        for name in ("label", "split", "group")
    }
    if windows:
        about_rows |= {
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
        about = _about({name: tables[name]}, fitted_on)
        exports[name] = ExportTable(
            about_rows, X[:, block].astype(np.float32), masks[:, [s]], own, about
        )
    if len(columns) > 1:
        exports[FUSED] = ExportTable(
            about_rows, X.astype(np.float32), masks, columns, _about(tables, fitted_on)
        )
    return exports


def _about(tables: Mapping[str, EmbeddingTable], fitted_on: str) -> dict[str, Any]:
    return {
        "spaces": {name: table.space_id for name, table in tables.items()},
        "lineage": {name: table.lineage for name, table in tables.items()},
        "standardised_on": fitted_on,
    }
