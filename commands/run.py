"""tristream run: the whole job on a folder of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tristream.commands import options, screen
from tristream.errors import UsageError


@screen.command
def run(
    data: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of videos: one folder per class.")
    ],
    run: options.Run = options.RUN,
    list_file: Annotated[
        Path | None,
        typer.Option("--list", help="CSV: path,label[,split,group,anomaly,fold]."),
    ] = None,
    preset: options.Preset = "light",
    assignments: options.Set = None,
    epochs: options.Epochs = None,
    fast: options.Fast = False,
    normal: Annotated[
        list[str] | None,
        typer.Option(
            "--normal",
            help="Labels that are normal, for the anomaly detector; repeatable.",
        ),
    ] = None,
    window: Annotated[
        float,
        typer.Option("--window", min=0, help="Detect anomalies in windows of this many seconds."),
    ] = 0.0,
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Take the trained streams of another run; no labels needed.",
        ),
    ] = None,
    cache: options.CacheDir = options.CACHE,
    follow_links: options.FollowLinks = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    backend: options.Backend = "auto",
    workers: options.Workers = options.WORKERS,
    weights_dir: options.WeightsDir = None,
    as_json: options.Json = False,
) -> int:
    """Do the whole job on your own videos: index, train every stream, embed, fuse, report.

    DIR holds one folder per class. Rerun the same command to resume; what is done is not done again. The last line
    is the verdict; the report shows the rest. Then: tristream predict FILE, tristream detect FILE.
    """
    n_epochs = options.epochs(epochs, fast=fast)
    if not data.is_dir():
        raise UsageError(f"{data} is no folder; name the folder that holds the videos")
    from tristream.settings import check

    check(preset, None, tuple(assignments or ()))
    workspace = options.workspace(
        run,
        cache,
        follow_links=follow_links,
        device=device,
        backend=backend,
        workers=workers,
        weights_dir=weights_dir,
    )
    screen.begin(f"the whole job on {data}")
    from tristream.whole_job import JobOptions, run_job

    result = run_job(
        workspace,
        data,
        JobOptions(
            list_file=list_file,
            preset=preset,
            assignments=tuple(assignments or ()),
            epochs=n_epochs,
            normal=normal or None,
            window_seconds=window,
            from_run=None if from_run is None else options.existing(from_run, cache),
            seed=seed,
        ),
    )
    if not as_json:
        screen.echo(result.verdict)
    screen.note(f"report: {result.report}; next: tristream predict FILE, with --run {run}")
    screen.emit(result.to_json(), as_json=as_json)
    return screen.SOME_REJECTED if result.n_rejected else screen.OK
