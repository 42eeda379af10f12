"""tristream plan: which moments of a video each stream looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import options, screen, settings
from tristream.commands.workspace import Workspace


@screen.command
def run(
    paths: Annotated[list[Path], typer.Argument(help="Video files.")],
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
    """Show which moments of a video each trained stream looks at: the seconds each of its segments covers.

    Where the sampler is adaptive, moments lie dense where there is motion. embed stores the same times with the
    segment embeddings.
    """
    from tristream.commands.embed import results_of
    from tristream.commands.workspace import chosen_streams, given_rows

    limits = settings.limits(config, assignments or ())
    workspace = Workspace(run, cache, limits=limits, follow_links=follow_links)
    trained = workspace.load_streams(chosen_streams(stream_list))
    root = workspace.manifest(None).root if workspace.manifest_path.exists() else None
    plans: list[dict[str, Any]] = []
    failed = {}
    for result in results_of(
        given_rows(paths, root),
        trained,
        workspace,
        root,
        device="cpu",
        workers=workers,
        flow_from=flow_from,
    ):
        if result.rejected:
            failed[str(result.video.path)] = result.rejected_reason
            continue
        entry: dict[str, Any] = {"path": str(result.video.path), "streams": {}}
        for name, found in result.segments.items():
            times = [[round(float(a), 4), round(float(b), 4)] for a, b in zip(found.start_seconds, found.stop_seconds,
                                                                              strict=True)]  # fmt: skip
            entry["streams"][name] = {"absent": found.absent, "segments": times}
        plans.append(entry)
        if not as_json:
            typer.echo(screen.printable(str(result.video.path)))
            for name, found in entry["streams"].items():
                typer.echo(f"  {name:9s} {_picture(found)}")
    screen.emit({"plans": plans, "rejected": failed}, as_json=as_json)
    return screen.SOME_REJECTED if failed else screen.OK


def _picture(found: dict[str, Any]) -> str:
    """One line: how many segments, and a ruler of the video with a mark where each begins."""
    times = found["segments"]
    if found["absent"]:
        return f"masked ({found['absent']})"
    last = max(stop for _, stop in times)
    ruler = [" "] * 60
    for start, _ in times:
        place = min(59, int(start / max(last, 1e-9) * 60))
        ruler[place] = {" ": ".", ".": ":", ":": "|"}.get(ruler[place], "#")
    return f"{len(times):3d} segments of {times[0][1] - times[0][0]:.2f} s  0 s [{''.join(ruler)}] {last:.2f} s"
