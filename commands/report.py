"""tristream report: write one HTML file about a run that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tristream.commands import options, screen

if TYPE_CHECKING:
    from tristream.workspace import Workspace


@screen.command
def run(
    data: options.Data = None,
    run: options.Run = options.RUN,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="The file.  [default: RUN/report.html]"),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="DIR", help="Also write every plot as SVG and PDF, for papers."
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Heading; default: the name of the run.")
    ] = None,
    how: Annotated[
        str, typer.Option("--map", help="Projection of the embeddings: pca or umap.")
    ] = "pca",
    claims: Annotated[
        Path | None,
        typer.Option(
            "--claims",
            metavar="FILE.toml",
            help="Figures to compare the accuracy with: docs/report.md.",
        ),
    ] = None,
    thumbnails: Annotated[
        int,
        typer.Option(
            "--thumbnails", min=0, help="Number of videos with a thumbnail; 0: no video is decoded."
        ),
    ] = 200,
    follow_links: options.FollowLinks = False,
    cache: options.CacheDir = options.CACHE,
    seed: options.Seed = 0,
    workers: options.Workers = options.WORKERS,
    as_json: options.Json = False,
) -> int:
    """Write a run into one HTML file: verdict, accuracy, mistakes, map, anomalies, training, lineage.

    The file opens without a network, on a phone, in print, in light and dark. Missing parts are
    named with the command that makes them. Videos that have moved: --data. For the data of
    `tristream workshop`, accuracies are beside the best possible ones.
    """
    from tristream.make_report import ReportOptions, report

    workspace = options.existing(run, cache, follow_links=follow_links, workers=workers)
    chosen = ReportOptions(out, figures, title, how, claims, thumbnails, seed)
    screen.begin(f"reporting on {run}")
    written = report(workspace, chosen, data=data, ceilings=_ceilings(workspace, data))
    if figures is not None:
        screen.note(f"wrote {len(written.figures)} files into {figures}")
    for gap in written.gaps:
        make = f" Make it: {gap.command}" if gap.command else ""
        screen.note(f"not in the report: {gap.words}{make}")
    screen.note(f"wrote {written.path} ({written.n_bytes / 1e6:.1f} MB); open it in a browser")
    screen.emit(
        {
            "report": str(written.path),
            "bytes": written.n_bytes,
            "figures": [str(path) for path in written.figures],
            "missing": [gap.words for gap in written.gaps],
        },
        as_json=as_json,
    )
    return screen.OK


def _ceilings(workspace: Workspace, data: Path | None) -> Mapping[str, float] | None:
    """Return the best possible accuracies if the run's videos are the workshop's classes."""
    if not workspace.manifest_path.exists():
        return None
    facts = workspace.manifest(data).root / "workshop.json"
    if not facts.is_file():
        return None
    rendered = json.loads(facts.read_text(encoding="utf-8"))
    if rendered.get("variant") != "classes" or rendered.get("silence") != "none":
        return None
    from tristream.workshop.classes import CEILINGS

    return CEILINGS
