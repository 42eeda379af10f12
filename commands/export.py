"""tristream export: write the embeddings of a run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError


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
    """Write the embeddings of a run for other programs: one file per stream, and one of all side by side.

    video_id, label, split and group are beside the numbers. docs/embeddings.md describes the files.
    A FAISS index always holds standardised embeddings of length 1: its inner product is their cosine.
    """
    from tristream.export import FORMATS, export

    if to not in FORMATS:
        raise UsageError(f"--to {to} is no format; available: {', '.join(FORMATS)}")
    streams = options.names(stream_list)
    workspace = options.existing(run)
    screen.begin(f"exporting the embeddings of {run}")
    written = export(
        workspace,
        to,
        out=out,
        streams=streams,
        windows=windows,
        standardise=standardise,
    )
    for file in written.values() if not as_json else ():
        screen.echo(f"{file.path}  {file.n_rows} rows x {file.n_columns}")
    files = {
        name: {"path": str(file.path), "rows": file.n_rows, "columns": file.n_columns}
        for name, file in written.items()
    }
    screen.emit({"format": to, "written": files}, as_json=as_json)
    return screen.OK
