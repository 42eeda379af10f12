"""tristream embed: compute one embedding per video and trained stream."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tristream.choices import check_precision
from tristream.commands import options, screen
from tristream.errors import UsageError


@screen.command
def run(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="More video files, folders or patterns, in addition to those of the run."
        ),
    ] = None,
    data: options.Data = None,
    run: options.Run = options.RUN,
    stream_list: options.Streams = None,
    retry: Annotated[
        str | None,
        typer.Option("--retry", metavar="failed", help="Only videos that were rejected before."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="K/N",
            help="Only part K of N of the videos, for job arrays; parts may run at once.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only estimate time and disk space."),
    ] = False,
    flow_from: options.FlowFrom = None,
    no_flow_cache: options.NoFlowCache = False,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    follow_links: options.FollowLinks = False,
    cache: options.CacheDir = options.CACHE,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    backend: options.Backend = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="From now on in this run: float32, or bf16 (faster, less exact; its error on the "
            "first videos is printed).",
        ),
    ] = None,
    workers: options.Workers = options.WORKERS,
    deterministic: options.Deterministic = False,
    as_json: options.Json = False,
    force: options.Force = False,
) -> int:
    """Embed every video of RUN/videos.csv, and those in PATHS, by every trained stream.

    Each video is decoded once for all streams; earlier results come from the cache. A
    video without a stream (no audio, one frame) gets a row with a mask and a reason, not zeros. A
    broken file is named and skipped.
    """
    if retry not in (None, "failed"):
        raise UsageError(f"--retry {retry} is unknown; it can be: failed")
    from tristream.embed import EmbedOptions, embed, forecast_embedding

    check_precision(precision)
    chosen_shard = _shard(shard)
    streams = options.names(stream_list)
    workspace = options.existing(
        run,
        cache,
        keeps_flow=not no_flow_cache,
        weights_dir=weights_dir,
        limits=options.limits(config, assignments),
        follow_links=follow_links,
        flow_from=flow_from,
        device=device,
        backend=backend,
        workers=workers,
        deterministic=deterministic,
    )
    chosen = EmbedOptions(
        streams=streams,
        precision=precision,
        retry=retry is not None,
        force=force,
        shard=chosen_shard,
    )
    screen.begin(f"embedding the videos of {run}")
    if dry_run:
        forecast = forecast_embedding(workspace, chosen, data=data, paths=paths or ())
        screen.note(forecast.sentence())
        screen.emit(asdict(forecast), as_json=as_json)
        return screen.OK
    result = embed(workspace, chosen, data=data, paths=paths or ())
    screen.note(f"wrote {run / 'embeddings'}; next: tristream fuse --run {run}")
    screen.emit(result.report, as_json=as_json)
    return screen.SOME_REJECTED if result.report["rejected"] else screen.OK


def _shard(text: str | None) -> tuple[int, int] | None:
    """Return (K, N) of "K/N".

    Raises:
        UsageError: another form.
    """
    if text is None:
        return None
    k, _, n = text.partition("/")
    if not (k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise UsageError(f"--shard {text} is not K/N with 1 <= K <= N, as 3/8")
    return int(k), int(n)
