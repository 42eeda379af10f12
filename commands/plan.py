"""tristream plan: show the moments of a video that each stream reads."""

from __future__ import annotations

from typing import Any

from tristream.commands import options, screen


@screen.command
def run(
    paths: options.Paths,
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    stream_list: options.Streams = None,
    flow_from: options.FlowFrom = None,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    follow_links: options.FollowLinks = False,
    workers: options.Workers = options.WORKERS,
    as_json: options.Json = False,
) -> int:
    """Show the moments of a video that each trained stream reads: the seconds of each of its segments.

    With the adaptive sampler, moments are dense where there is motion. embed stores the same times
    with the segment embeddings.
    """
    from tristream.sampling_plan import sampling_plans

    wanted = options.names(stream_list)
    workspace = options.existing(
        run,
        cache,
        limits=options.limits(config, assignments),
        follow_links=follow_links,
        flow_from=flow_from,
        workers=workers,
    )
    screen.begin(f"reading videos as the streams of {run} do")
    plans = sampling_plans(workspace, paths, streams=wanted)
    rows = [plan.to_json() for plan in plans]
    for row in rows if not as_json else ():
        screen.echo(row["path"])
        for name, stream in row["streams"].items():
            screen.echo(f"  {name:9s} {_picture(stream)}")
    screen.emit({"plans": rows, "rejected": plans.failures}, as_json=as_json)
    return screen.SOME_REJECTED if plans.failures else screen.OK


def _picture(stream: dict[str, Any]) -> str:
    """Return the number of segments, and a ruler of the video with a mark at the start of each."""
    times = stream["segments"]
    if stream["absent"]:
        return f"masked ({stream['absent']})"
    last = max(stop for _, stop in times)
    ruler = [" "] * 60
    for start, _ in times:
        place = min(59, int(start / max(last, 1e-9) * 60))
        ruler[place] = {" ": ".", ".": ":", ":": "|"}.get(ruler[place], "#")
    return f"{len(times):3d} segments of {times[0][1] - times[0][0]:.2f} s  0 s [{''.join(ruler)}] {last:.2f} s"
