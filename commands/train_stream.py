"""tristream train-stream: train one stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tristream.choices import check_precision
from tristream.commands import options, screen
from tristream.workspace import check_names, stream_names


@screen.command
def run(
    name: Annotated[
        str, typer.Argument(metavar="STREAM", help=f"One of: {', '.join(stream_names())}.")
    ],
    data: options.Data = None,
    run: options.Run = options.RUN,
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN", help="Copy the trained stream of another run instead."
        ),
    ] = None,
    flow_from: options.FlowFrom = None,
    no_flow_cache: options.NoFlowCache = False,
    follow_links: options.FollowLinks = False,
    cache: options.CacheDir = options.CACHE,
    preset: options.Preset = "light",
    config: options.ConfigFile = None,
    assignments: options.Set = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    backend: options.Backend = "auto",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="Of the training: float32, or bf16 (weights and losses stay float32).",
        ),
    ] = "float32",
    workers: options.Workers = options.WORKERS,
    weights_dir: options.WeightsDir = None,
    random_weights: options.RandomWeights = None,
    deterministic: options.Deterministic = False,
    as_json: options.Json = False,
    force: options.Force = False,
) -> int:
    """Train one stream alone: first its CNN, then its stacked BiGRU, on the training split.

    The epoch of the lowest validation loss is stored. Rerun the same command to resume an
    interrupted training; it ends with the same weights. A stream that is trained already is not
    trained again (unless --force).
    """
    from tristream.settings import check
    from tristream.train_stream import TrainOptions, take_stream, train_stream

    check_names([name])
    check_precision(precision)
    workspace = (options.workspace if from_run else options.existing)(
        run,
        cache,
        keeps_flow=not no_flow_cache,
        weights_dir=weights_dir,
        follow_links=follow_links,
        flow_from=flow_from,
        device=device,
        backend=backend,
        workers=workers,
        deterministic=deterministic,
    )
    if from_run is not None:
        result = take_stream(workspace, name, options.existing(from_run, cache))
    else:
        chosen = TrainOptions(
            preset=preset,
            config=config,
            assignments=tuple(assignments or ()),
            seed=seed,
            precision=precision,
            random_weights=random_weights,
            force=force,
        )
        check(preset, config, chosen.assignments, stream_names=[name])
        screen.begin(f"training the stream '{name}' of {run}")
        result = train_stream(workspace, name, chosen, data=data)
    screen.emit(result.to_json(), as_json=as_json and result.rank == 0)
    return screen.SOME_REJECTED if result.n_rejected else screen.OK
