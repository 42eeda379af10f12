"""tristream detect: score how abnormal videos are, when, and by which stream."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tristream.choices import check_level
from tristream.commands import options, screen
from tristream.errors import UsageError
from tristream.paths import expanded

if TYPE_CHECKING:
    from tristream.live import Alarm, FollowOptions, LiveEvent, Notice
    from tristream.workspace import Workspace


@screen.command
def run(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Video files, folders or patterns.")
    ] = None,
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Anomaly score an alarm starts at; default: stored."),
    ] = None,
    quantile: Annotated[
        float | None,
        typer.Option("--quantile", help="… or this quantile of the normal validation scores."),
    ] = None,
    mean_sd: Annotated[
        float | None,
        typer.Option("--mean-sd", help="… or their mean + this many standard deviations."),
    ] = None,
    false_alarms_per_hour: Annotated[
        float | None,
        typer.Option("--false-alarms-per-hour", help="… or a budget of false alarms per hour."),
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(
            "--follow", metavar="SOURCE", help="Watch a growing file, a pipe or -, a camera, a URL."
        ),
    ] = None,
    protocols: Annotated[
        str | None,
        typer.Option(
            "--protocols",
            metavar="A,B",
            help="Network protocols allowed for --follow: rtsp, http, https, …",
        ),
    ] = None,
    silence: Annotated[
        float,
        typer.Option(
            "--silence", min=0.5, help="Seconds without a frame after which --follow alarms."
        ),
    ] = 20.0,
    max_lag: Annotated[
        float | None,
        typer.Option(
            "--max-lag",
            min=0,
            help="Seconds --follow may lag before it drops frames; a pipe waits.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="DIR", help="Write a short clip and an image of each event."
        ),
    ] = None,
    flow_from: options.FlowFrom = None,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    follow_links: options.FollowLinks = False,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    out: options.Out = None,
    as_json: options.Json = False,
) -> int:
    """Score how abnormal videos are: the detector's error, the share of each stream, and events.

    Higher is more anomalous; 1 is a usual normal video or window. A detector that was fitted on
    windows (tristream fuse --window) reports events with start, stop and cause; one of whole videos
    reports one score each. The threshold comes from normal validation videos and can be replaced
    for this call, without training again.
    """
    from tristream.detect import ThresholdRule, detect

    screen.check_out(out)
    check_level("--quantile", quantile, above=0, below=1)
    check_level("--mean-sd", mean_sd, above=0)
    check_level("--false-alarms-per-hour", false_alarms_per_hour, above=0)
    paths = paths or []
    if bool(paths) == bool(follow):
        what = "a" if follow else "no"
        raise UsageError(f"{len(paths)} video files and {what} --follow SOURCE; give one of them")
    if follow and out is not None:
        raise UsageError("--out is for files; with --follow, --json prints one object a line")
    rule = ThresholdRule(threshold, quantile, mean_sd, false_alarms_per_hour)
    workspace = options.existing(
        run,
        cache,
        weights_dir=weights_dir,
        limits=options.limits(config, assignments),
        follow_links=follow_links,
        flow_from=flow_from,
        device=device,
        workers=workers,
    )
    screen.begin(f"detecting with {run}")
    if follow is not None:
        from tristream.live import FollowOptions

        names = [name.strip() for name in (protocols or "").split(",") if name.strip()]
        return _follow(
            workspace, _local(follow), FollowOptions(names, silence, max_lag, rule, save), as_json
        )
    detections = detect(workspace, paths, rule, save=save)
    rows = [detection.to_json() for detection in detections]
    for row in rows if not as_json else ():
        for line in _lines(row):
            screen.echo(line)
    _write(out, rows)
    screen.emit({"detections": rows, "rejected": detections.failures}, as_json=as_json)
    return screen.SOME_REJECTED if detections.failures else screen.OK


def _lines(row: dict[str, Any]) -> list[str]:
    """Return the lines of one video: its score, then its events or the share of each stream."""
    word = "ABNORMAL" if row["abnormal"] else "normal"
    limit = row["threshold"]
    head = f"{row['path']}: {word}  {row['anomaly_score']:.3f} (threshold {limit:.3f})"
    if "events" in row:
        events = [f"  {screen.event_words(event)}" for event in row["events"]]
        head = (
            f"{row['path']}: {word}  {row['anomaly_score']:.3f} (threshold {limit:.3f}, of a video "
            f"{row['video_threshold']:.3f})"
        )
        return [f"{head}  {row['n_windows']} windows", *events]
    shares = "  ".join(f"{name} {part:.0%}" for name, part in row["shares"].items())
    masked = f"  (masked: {', '.join(row['masked'])})" if row["masked"] else ""
    return [f"{head}  [{shares}]{masked}"]


def _write(out: Path | None, rows: list[dict[str, Any]]) -> None:
    """Write --out: of windows, one line per event in a CSV."""
    if not rows or "events" not in rows[0]:
        screen.write_out(out, rows, screen.flat_detection)
    elif out is not None and out.suffix == ".csv":
        names = ("path", "anomaly_score", "threshold", "abnormal")
        cells = [
            {**{name: row[name] for name in names}, **event}
            for row in rows
            for event in row["events"] or [{}]
        ]
        screen.write_out(out, cells, screen.flat_event)
    else:
        screen.write_out(out, rows, dict)


def _local(source: str) -> str:
    """Return the source with `~` of a path expanded."""
    return str(expanded(source)) if source.startswith("~") else source


def _follow(workspace: Workspace, source: str, chosen: FollowOptions, as_json: bool) -> int:
    from tristream.live import Notice, follow

    for item in follow(workspace, source, chosen):
        if as_json:
            sys.stdout.write(json.dumps(item.to_json(), ensure_ascii=True) + "\n")
            sys.stdout.flush()
        elif isinstance(item, Notice):
            screen.warn(item.words)
        else:
            screen.echo(_live_line(item))
    return screen.OK


def _live_line(item: Alarm | LiveEvent | Notice) -> str:
    row = item.to_json()
    if row["type"] == "event":
        return "event " + screen.event_words(row)
    return (
        f"ALARM at {row['start_seconds']:.2f} s  score {row['score']:.3f} "
        f"(threshold {row['threshold']:.3f})  by {'+'.join(row['streams'])}"
    )
