"""tristream report: a run as one HTML file that opens without a network."""

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
        typer.Option(
            "--out", metavar="FILE.html", help="Where to write it.  [default: RUN/report.html]"
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            "--figures", metavar="DIR", help="Also write every plot as SVG and PDF, for papers."
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Above it all; default: the name of the run.")
    ] = None,
    how: Annotated[
        str, typer.Option("--map", help="How embeddings are put on a plane: pca or umap.")
    ] = "pca",
    claims: Annotated[
        Path | None,
        typer.Option(
            "--claims",
            metavar="FILE.toml",
            help="Figures to hold the accuracy against: docs/report.md.",
        ),
    ] = None,
    thumbnails: Annotated[
        int,
        typer.Option(
            "--thumbnails", min=0, help="Videos shown as small pictures; 0: none are decoded."
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
    from tristream.report import collect, links, page, plots, projection
    from tristream.report import figures as papers
    from tristream.store.atomic import write_bytes

    if not run.is_dir():
        raise UsageError(
            f"{run} is no folder of a run; make one first: tristream index --run {run} --data DIR"
        )
    if how not in projection.PROJECTIONS:
        raise UsageError(
            f"--map {how} is not known; available: {', '.join(projection.PROJECTIONS)}"
        )
    _check_installed(how, figures)
    out = out or run / "report.html"
    workspace = Workspace(run, cache)
    workspace.check_writable(out.parent, *([figures] if figures else []))
    found = collect.collect(run, data=data)
    beside = _beside(found, claims)
    chart = projection.project(found.fused, how=how, seed=seed) if found.fused else None
    timelines = plots.timelines(found)
    pictures, gaps = _pictures(
        found, workspace, chart, timelines, thumbnails, workers, follow_links
    )
    pictures = dataclasses.replace(pictures, clips=links.clip_links(found, out))
    found = dataclasses.replace(found, gaps=(*found.gaps, *gaps))
    text = page.render(
        found, title=title or run.resolve().name, made=datetime.datetime.now().strftime("%-d %B %Y, %H:%M"),
        version=importlib.metadata.version("tristream"), beside=beside, chart=chart, timelines=timelines,
        pictures=pictures,
    )  # fmt: skip
    write_bytes(out, text.encode())
    written: list[Path] = []
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
    about = json.loads(facts.read_text(encoding="utf-8"))
    if about.get("variant") != "classes" or about.get("silence") != "none":
        return None
    from tristream.workshop.classes import CEILINGS

    return CEILINGS
