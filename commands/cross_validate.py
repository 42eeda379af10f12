"""tristream cross-validate: test every labelled video once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tristream.choices import check_precision
from tristream.commands import options, screen
from tristream.errors import UsageError


@screen.command
def run(
    data: options.Data = None,
    run: options.Run = options.RUN,
    folds: Annotated[
        int | None,
        typer.Option("--folds", min=2, help="Number of folds; groups stay whole.  [default: 5]"),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="fold", help="Use the column fold of videos.csv instead."),
    ] = None,
    stream_list: options.Streams = None,
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
        str, typer.Option("--precision", help="Of the training: float32, or bf16.")
    ] = "float32",
    workers: options.Workers = options.WORKERS,
    weights_dir: options.WeightsDir = None,
    random_weights: options.RandomWeights = None,
    deterministic: options.Deterministic = False,
    as_json: options.Json = False,
    force: options.Force = False,
) -> int:
    """Train, embed and fuse once per fold; print the accuracy over all labelled videos of a run.

    Every fold is a run of its own in RUN/folds, with the fold as its test split. The folds share the
    cache. Finished folds are not repeated: rerun the same command to resume (--force: start again).
    """
    from tristream.cross_validate import RESULT, CrossValidateOptions, cross_validate
    from tristream.settings import check
    from tristream.train_stream import TrainOptions
    from tristream.workspace import stream_names

    if by not in (None, "fold"):
        raise UsageError(f"--by {by} is unknown; it can be: fold")
    if by is not None and folds is not None:
        raise UsageError("--folds and --by exclude each other; give one of them")
    check_precision(precision)
    streams = options.names(stream_list)
    settings = (preset, config, tuple(assignments or ()))
    check(*settings, stream_names=streams or stream_names())
    workspace = options.existing(
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
    train = TrainOptions(
        *settings, seed=seed, precision=precision, random_weights=random_weights, force=force
    )
    chosen = CrossValidateOptions(folds or 5, by is not None, streams, train)
    screen.begin(f"cross-validating {run}")
    result = cross_validate(workspace, chosen, data=data)
    _show(result)
    screen.note(f"wrote {workspace.folder / RESULT}")
    screen.emit(result, as_json=as_json)
    return screen.OK


def _show(result: dict[str, Any]) -> None:
    """Print one row per fold, then mean, standard deviation and the interval over all videos."""
    subsets = list(result["subsets"])
    rows = [
        [
            fold["name"],
            *(str(fold[count]) for count in ("n_train", "n_val", "n_test")),
            *(_percent(fold["subsets"].get(subset)) for subset in subsets),
        ]
        for fold in result["folds"]
    ]
    for title, key in (("mean", "mean"), ("standard deviation", "standard_deviation")):
        rows.append([title, "", "", "", *(_percent(result["subsets"][s][key]) for s in subsets)])
    pooled = result["pooled"]
    low, high = _percent(pooled["low"]), _percent(pooled["high"])
    screen.table(
        f"Cross-validation: test accuracy of the linear SVM, %; {len(result['folds'])} folds",
        ["fold", "train", "val", "test", *subsets],
        rows,
        caption=f"all streams on all {pooled['n']} videos together: {_percent(pooled['value'])} "
        f"[{low}, {high}], 95 % interval over {pooled['n_groups']} groups",
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
