"""tristream detect: how abnormal new videos are, when, and which stream says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tristream.commands import options, screen, settings
from tristream.commands.event_lines import STRONG_SHARE, flat_event, say_video
from tristream.commands.workspace import Workspace, given_rows
from tristream.errors import UsageError

if TYPE_CHECKING:
    from tristream.commands.detector_store import StoredDetector
    from tristream.streams.model import TrainedStream


@screen.command
def run(
    paths: Annotated[list[Path] | None, typer.Argument(help="Video files.")] = None,
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Anomaly score an alarm starts at; default: the stored one."
        ),
    ] = None,
    quantile: Annotated[
        float | None,
        typer.Option("--quantile", help="… or this quantile of the normal validation scores."),
    ] = None,
    mean_sd: Annotated[
        float | None,
        typer.Option("--mean-sd", help="… or their mean + so many standard deviations."),
    ] = None,
    false_alarms_per_hour: Annotated[
        float | None,
        typer.Option("--false-alarms-per-hour", help="… or a budget of alarming windows an hour."),
    ] = None,
    follow: Annotated[
        str | None,
        typer.Option(
            "--follow",
            metavar="SOURCE",
            help="Watch a growing file, a pipe or -, a camera, or a URL.",
        ),
    ] = None,
    protocols: Annotated[
        str | None,
        typer.Option(
            "--protocols", metavar="A,B", help="What --follow may speak: rtsp, http, https, …"
        ),
    ] = None,
    silence: Annotated[
        float,
        typer.Option(
            "--silence",
            min=0.5,
            help="Seconds without a frame after which --follow raises an alarm.",
        ),
    ] = 20.0,
    max_lag: Annotated[
        float | None,
        typer.Option(
            "--max-lag",
            min=0,
            help="Seconds --follow may lie behind before it drops frames; a pipe waits.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save", metavar="DIR", help="Write a short clip and a picture of each event."
        ),
    ] = None,
    flow_from: options.FlowFrom = None,
    config: options.LimitsFile = None,
    assignments: options.SetLimit = None,
    follow_links: options.FollowLinks = False,
    weights_dir: options.WeightsDir = None,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write the result to FILE.csv or FILE.json.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Score how abnormal videos are: the detector's error, the share of each stream, and, in windows, when.

    Higher is more anomalous; 1 is a usual normal video or window. A detector that was fitted on windows (tristream fuse
    --window) gives events with start, stop and cause; one of whole videos gives one score each. The threshold comes
    from normal validation videos and can be replaced for this call, without training anything again.
    """
    from tristream.commands.decide import check_out
    from tristream.commands.detector_store import StoredDetector

    check_out(out)
    paths = paths or []
    if bool(paths) == bool(follow):
        what = "a" if follow else "no"
        raise UsageError(
            f"{len(paths)} video files and {what} --follow SOURCE; give one or the other"
        )
    if follow and out is not None:
        raise UsageError("--out is for files; with --follow, --json prints one object a line")
    limits = settings.limits(config, assignments or ())
    workspace = Workspace(
        run, cache, weights_dir=weights_dir, limits=limits, follow_links=follow_links
    )
    stored = StoredDetector.load(workspace)
    limit = chosen_threshold(
        stored,
        threshold=threshold,
        quantile=quantile,
        mean_sd=mean_sd,
        per_hour=false_alarms_per_hour,
    )
    if follow is not None:
        from tristream.commands import watch

        trained = workspace.load_streams(list(stored.spaces))
        check_spaces(stored, trained, run)
        return watch.follow(
            follow, stored, trained, limit, protocols=protocols, device=device, cache=workspace.cache(),
            silence_seconds=silence, max_lag_seconds=max_lag, as_json=as_json, save=save,
        )  # fmt: skip
    if stored.plan.seconds:
        if flow_from is not None:
            raise UsageError(
                "--flow-from is for whole videos; the run's detector scores windows, whose flow is estimated"
            )
        return _windows(
            paths,
            workspace,
            stored,
            limit,
            device=device,
            workers=workers,
            out=out,
            save=save,
            as_json=as_json,
        )
    if save is not None:
        raise UsageError(
            "--save needs events; the run's detector scores whole videos: tristream fuse --window 2"
        )
    return _whole(
        paths,
        workspace,
        stored,
        limit,
        flow_from=flow_from,
        device=device,
        workers=workers,
        out=out,
        as_json=as_json,
    )


def chosen_threshold(
    stored: StoredDetector,
    *,
    threshold: float | None,
    quantile: float | None,
    mean_sd: float | None,
    per_hour: float | None,
) -> float:
    """The threshold of this call: the stored one unless an option says another.

    Raises:
        UsageError: two options at once.
        TristreamError: as `choose_threshold`.
    """
    options = {"--threshold": threshold, "--quantile": quantile, "--mean-sd": mean_sd,
               "--false-alarms-per-hour": per_hour}  # fmt: skip
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} say different thresholds; give one of them")
    if threshold is not None:
        return threshold
    rules = {"quantile": quantile, "mean_sd": mean_sd, "per_hour": per_hour}
    for rule, level in rules.items():
        if level is not None:
            found = stored.threshold(rule=rule, level=level)
            if found.remark:
                screen.warn(found.remark)
            return found.value
    return stored.detector.threshold_.value


def check_spaces(stored: StoredDetector, trained: Sequence[TrainedStream], run: Path) -> None:
    """Refuses streams that were trained again since the detector was fitted.

    Raises:
        UsageError: one was.
    """
    from tristream.commands.windows import window_spaces

    for name, space in window_spaces(trained, stored.plan).items():
        if space != stored.spaces[name]:
            raise UsageError(
                f"the stream '{name}' now gives embeddings of space {space}, the detector was fitted in "
                f"{stored.spaces[name]}; run tristream fuse --run {run} again"
            )


def _windows(
    paths: Sequence[Path],
    workspace: Workspace,
    stored: StoredDetector,
    limit: float,
    *,
    device: str,
    workers: int,
    out: Path | None,
    save: Path | None,
    as_json: bool,
) -> int:
    """Events of each video, from windows of the length that the detector was fitted on."""
    import numpy as np

    from tristream.commands.decide import write_out
    from tristream.commands.fit_windows import events_of, scored
    from tristream.commands.windows import embed_windows, side_by_side
    from tristream.fusion.anomaly.window_scores import event_json

    trained = workspace.load_streams(list(stored.spaces))
    check_spaces(stored, trained, workspace.run)
    root = workspace.manifest(None).root if workspace.manifest_path.exists() else None
    rows = given_rows(paths, root)
    typed = {row.video_id: str(path) for row, path in zip(rows, paths, strict=True)}
    results = embed_windows(
        rows, trained, stored.plan, workspace, root, device=device, workers=workers
    )
    whole = side_by_side(results, trained)
    lines = {
        line.video_id: line for line in scored(stored, whole, np.ones(len(whole.video_id), bool))
    }
    regions = [cell.name for cell in stored.plan.cells()]
    videos: list[dict[str, Any]] = []
    for row in rows:
        if (line := lines.get(row.video_id)) is None:
            continue
        caused = events_of(stored, line, limit)
        at = [one.row for one in caused]
        nearest = stored.nearest(whole.X[at], whole.region[at])
        events = [
            {**event_json(one, near, regions), "streams": one.streams(at_least=STRONG_SHARE)}
            for one, near in zip(caused, nearest, strict=True)
        ]
        videos.append(
            {
                "path": typed[row.video_id],
                "anomaly_score": round(float(line.scores.max()), 6),
                "threshold": round(limit, 6),
                "abnormal": bool(line.scores.max() >= limit),
                "n_windows": len(line.scores),
                "watched_seconds": round(line.watched_seconds, 3),
                "events": events,
            }
        )
        if save is not None and events:
            from tristream.commands.event_pictures import save_events

            written = save_events(
                save, row.path, line, events, limit, workers=workers, limits=workspace.limits
            )
            screen.note(
                f"{typed[row.video_id]}: {len(written)} files of {len(events)} events in {save}"
            )
    for video in videos if not as_json else ():
        say_video(video)
    failed = {typed[r.source.video_id]: r.rejected_reason for r in whole.rejected}
    if out is not None and out.suffix == ".csv":
        about = ("path", "anomaly_score", "threshold", "abnormal")
        cells = [
            {**{k: v[k] for k in about}, **event} for v in videos for event in v["events"] or [{}]
        ]
        write_out(out, cells, flat_event)
    else:
        write_out(out, videos, dict)
    screen.emit({"detections": videos, "rejected": failed}, as_json=as_json)
    return screen.SOME_REJECTED if failed else screen.OK


def _whole(
    paths: Sequence[Path],
    workspace: Workspace,
    stored: StoredDetector,
    limit: float,
    *,
    flow_from: Path | None,
    device: str,
    workers: int,
    out: Path | None,
    as_json: bool,
) -> int:
    """One score for each video."""
    import numpy as np

    from tristream.commands.decide import embed_new, write_out

    names = list(stored.spaces)
    new = embed_new(
        paths, workspace, stored.spaces, names, device=device, workers=workers, flow_from=flow_from
    )
    rows: list[dict[str, Any]] = []
    if len(new.X):
        detector = stored.detector
        scores, shares = detector.anomaly_score(new.X), detector.attribution(new.X)
        nearest = stored.nearest(new.X, np.zeros(len(new.X), np.int64))
        for result, score, share, mask, near in zip(
            new.usable, scores, shares, new.masks, nearest, strict=True
        ):
            rows.append(
                {
                    "path": new.name(result),
                    "anomaly_score": round(float(score), 6),
                    "threshold": round(float(limit), 6),
                    "abnormal": bool(score >= limit),
                    "shares": {
                        name: round(float(part), 4) for name, part in zip(names, share, strict=True)
                    },
                    "masked": [name for name, there in zip(names, mask, strict=True) if not there],
                    "nearest": near,
                }
            )
    failed = {new.name(r): r.rejected_reason for r in new.results if r.rejected}
    for row in rows if not as_json else ():
        word = "ABNORMAL" if row["abnormal"] else "normal"
        shares_text = "  ".join(f"{name} {part:.0%}" for name, part in row["shares"].items())
        masked = f"  (masked: {', '.join(row['masked'])})" if row["masked"] else ""
        typer.echo(
            screen.printable(
                f"{row['path']}: {word}  {row['anomaly_score']:.3f} (threshold {limit:.3f})  [{shares_text}]{masked}"
            )
        )
    write_out(out, rows, _flat)
    screen.emit({"detections": rows, "rejected": failed}, as_json=as_json)
    return screen.SOME_REJECTED if failed else screen.OK


def _flat(row: Any) -> dict[str, Any]:
    shares = {f"share_{name}": part for name, part in row["shares"].items()}
    return {
        **{k: v for k, v in row.items() if k not in ("shares", "masked", "nearest")},
        **shares,
        "masked": " ".join(row["masked"]),
        "nearest": " ".join(row["nearest"]),
    }
