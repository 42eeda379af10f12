"""tristream similar: list the videos of a run that are most similar to one video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import options, screen
from tristream.paths import expanded


@screen.command
def run(
    video: Annotated[str, typer.Argument(help="A video_id of the run, or any video file.")],
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    n_videos: Annotated[
        int, typer.Option("-n", "--n", min=1, help="Number of videos to list.")
    ] = 10,
    stream_list: options.Streams = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Only videos of this split: train, val or test.")
    ] = None,
    flow_from: options.FlowFrom = None,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    follow_links: options.FollowLinks = False,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write the result to FILE.csv or FILE.json.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """List the videos of a run that are most similar to VIDEO, by all its streams or those of --streams.

    Similarity is the cosine of standardised embeddings, over the streams that both videos have. A
    file outside the run is embedded first; the video itself is not listed.
    """
    from tristream.fused import trained_spaces
    from tristream.similar import similar

    screen.check_out(out)
    wanted = options.names(stream_list)
    workspace = options.existing(
        run,
        cache,
        limits=options.limits(config, assignments),
        follow_links=follow_links,
        flow_from=flow_from,
        device=device,
        workers=workers,
    )
    screen.begin(f"comparing with the videos of {run}")
    if video.startswith("~"):
        video = str(expanded(video))
    names = list(trained_spaces(workspace, wanted))
    results = similar(workspace, video, n_videos=n_videos, streams=wanted, split=split)
    if results.failures:
        reason = next(iter(results.failures.values()))
        screen.emit({"query": video, "rejected": reason}, as_json=as_json)
        return screen.SOME_REJECTED
    rows = [result.to_json() for result in results]
    for row in rows if not as_json else ():
        screen.echo(_line(row, names))
    if not rows:
        screen.note(f"no video of {run} has a stream in common with {video}")
    screen.write_out(out, rows, lambda row: {**row, "streams": " ".join(row["streams"])})
    screen.emit({"query": video, "by": names, "similar": rows}, as_json=as_json)
    return screen.OK


def _line(row: dict[str, Any], names: list[str]) -> str:
    by = "" if len(row["streams"]) == len(names) else f"  (by {', '.join(row['streams'])} only)"
    label = f"  {row['label']}" if row["label"] else ""
    return f"{row['cosine']:.3f}  {row['video_id']}{label}  {row['split']}{by}".rstrip()
