"""tristream export: write the embeddings of a run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.workspace import Workspace

ONNX = "onnx"


@screen.command
def run(
    to: Annotated[
        str, typer.Option("--to", help="parquet, npz, csv or faiss; onnx: networks and classifier.")
    ] = "parquet",
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
    --to onnx writes each stream's encoder and aggregator and the classifier as ONNX graphs, and compares each with
    torch on the first videos of the run.
    """
    from tristream.export import FORMATS, export

    if to not in (*FORMATS, ONNX):
        raise UsageError(f"--to {to} is no format; available: {', '.join((*FORMATS, ONNX))}")
    if to == ONNX and (windows or standardise):
        raise UsageError("--to onnx writes networks; leave out --windows and --standardise")
    streams = options.names(stream_list)
    workspace = options.existing(run)
    if to == ONNX:
        return _graphs(workspace, run, out, streams, as_json)
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


def _graphs(
    workspace: Workspace, run: Path, out: Path | None, streams: list[str] | None, as_json: bool
) -> int:
    from tristream.onnx_export import export_onnx

    screen.begin(f"exporting the networks of {run}")
    graphs = export_onnx(workspace, out=out, streams=streams)
    for graph in graphs.values() if not as_json else ():
        [(taken, shape)] = graph.inputs.items()
        screen.echo(
            f"{graph.path}  {taken} {shape}: differs from torch by {graph.error:.0e} "
            f"on {graph.n_checked} inputs"
        )
    written = {
        name: {
            "path": str(graph.path),
            "inputs": graph.inputs,
            "outputs": graph.outputs,
            "error": graph.error,
            "checked": graph.n_checked,
        }
        for name, graph in graphs.items()
    }
    screen.emit({"format": ONNX, "written": written}, as_json=as_json)
    return screen.OK
