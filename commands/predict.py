"""tristream predict: name the action in new videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import options, screen


@screen.command
def run(
    paths: options.Paths,
    run: options.Run = options.RUN,
    cache: options.CacheDir = options.CACHE,
    top: Annotated[
        int, typer.Option("--top", min=1, help="Number of classes to list for each video.")
    ] = 5,
    max_error: Annotated[
        float | None,
        typer.Option(
            "--max-error",
            min=0,
            max=1,
            metavar="SHARE",
            help="Answer 'not sure' so that at most this share of the named videos is wrong, as on val.",
        ),
    ] = None,
    more_runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="RUN",
            help="Average the probabilities with those of this run; repeatable.",
        ),
    ] = None,
    segments: Annotated[
        bool,
        typer.Option(
            "--segments",
            help="Print label and probability of each segment, by streams with a read-out of steps.",
        ),
    ] = False,
    stream_list: options.Streams = None,
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
    """Name the action in new videos, with probabilities calibrated on the validation videos of `fuse`.

    Without validation videos the numbers are margins of the SVM (any real number). A stream that a
    video lacks is masked and reported; --streams masks the others. Several runs with the same
    classes (--with) are an ensemble: their probabilities are averaged.
    """
    from tristream.predict import PredictOptions, predict

    screen.check_out(out)
    parts: dict[str, Any] = {
        "weights_dir": weights_dir,
        "limits": options.limits(config, assignments),
        "follow_links": follow_links,
        "flow_from": flow_from,
        "device": device,
        "workers": workers,
    }
    chosen = PredictOptions(
        top=top,
        max_error=max_error,
        streams=options.names(stream_list),
        more_runs=tuple(options.existing(each, cache, **parts) for each in more_runs or ()),
        segments=segments,
    )
    workspace = options.existing(run, cache, **parts)
    screen.begin(f"predicting with {run}")
    predictions = predict(workspace, paths, chosen)
    rows = [prediction.to_json() for prediction in predictions]
    for row in rows if not as_json else ():
        screen.echo(_line(row))
        for line in _segment_lines(row):
            screen.echo(line)
    screen.write_out(out, rows, screen.flat_prediction)
    screen.emit({"predictions": rows, "rejected": predictions.failures}, as_json=as_json)
    return screen.SOME_REJECTED if predictions.failures else screen.OK


def _segment_lines(row: dict[str, Any]) -> list[str]:
    return [
        f"  {name} {each['start_seconds']:.2f}-{each['stop_seconds']:.2f} s: "
        f"{each['label']} {each['probability']:.2f}"
        for name, segments in row.get("segments", {}).items()
        for each in segments
    ]


def _line(row: dict[str, Any]) -> str:
    scores = "  ".join(
        f"{entry['label']} {entry['probability']:.2f}"
        if "probability" in entry
        else f"{entry['label']} {entry['score']:+.2f}"
        for entry in row["top"]
    )
    word = row["label"] or ("not sure" if row["not_sure"] else "no usable stream")
    masked = f"; masked: {', '.join(row['masked'])}" if row["masked"] else ""
    used = ", ".join(row["streams"]) or "no stream"
    seen = "  seen in training" if row.get("seen_in_training") else ""
    return f"{row['path']}: {word}  [{scores}]  (by {used}{masked}){seen}"
