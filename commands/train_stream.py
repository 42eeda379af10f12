"""tristream train-stream: train one stream."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tristream.choices import check_precision
from tristream.commands import options, screen
from tristream.workspace import check_names, stream_names

if TYPE_CHECKING:
    from tristream.train_all import AllTrained
    from tristream.train_stream import TrainResult

ALL = "all"


@screen.command
def run(
    name: Annotated[
        str, typer.Argument(metavar="STREAM", help=f"One of: {', '.join(stream_names())}; or all.")
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
    epochs: options.Epochs = None,
    fast: options.Fast = False,
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
    trained again (unless --force). `all` trains every stream that the files have, one by one.
    """
    from tristream.settings import check
    from tristream.train_all import train_all, training_of
    from tristream.train_stream import TrainOptions, take_stream, train_stream

    is_all = name == ALL
    if not is_all:
        check_names([name])
    check_precision(precision)
    n_epochs = options.epochs(epochs, fast=fast)
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
    source = None if from_run is None else options.existing(from_run, cache)
    chosen = TrainOptions(
        preset=preset,
        config=config,
        assignments=tuple(assignments or ()),
        seed=seed,
        precision=precision,
        random_weights=random_weights,
        force=force,
    )
    if source is None:
        check(preset, config, chosen.assignments, stream_names=stream_names() if is_all else [name])
        screen.begin(f"training {'every stream' if is_all else f'the stream {name!r}'} of {run}")
    result: TrainResult | AllTrained
    if is_all:
        result = train_all(workspace, chosen, epochs=n_epochs, from_run=source, data=data)
    elif source is not None:
        result = take_stream(workspace, name, source)
    else:
        one = chosen if n_epochs is None else training_of(name, chosen, n_epochs)
        result = train_stream(workspace, name, one, data=data)
    screen.emit(result.to_json(), as_json=as_json and result.rank == 0)
    return screen.SOME_REJECTED if result.n_rejected else screen.OK
