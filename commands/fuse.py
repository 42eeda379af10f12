"""tristream fuse: linear SVM, anomaly detector, and the effect of each stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tristream.commands import options, screen


@screen.command
def run(
    data: options.Data = None,
    run: options.Run = options.RUN,
    stream_list: options.Streams = None,
    normal: Annotated[
        list[str] | None,
        typer.Option(
            "--normal",
            metavar="LABEL,…",
            help="Labels that are normal, for the anomaly detector; repeatable.",
        ),
    ] = None,
    preset: options.Preset = "light",
    config: options.ConfigFile = None,
    assignments: options.Set = None,
    window: Annotated[
        float,
        typer.Option(
            "--window",
            min=0,
            help="Fit the detector on windows of so many seconds; 0: whole videos.",
        ),
    ] = 0.0,
    hop: Annotated[
        float | None,
        typer.Option("--hop", help="Seconds from one window to the next; default: half a window."),
    ] = None,
    regions: Annotated[
        str | None,
        typer.Option(
            "--regions", metavar="ROWSxCOLUMNS", help="Cells that each frame is cut into."
        ),
    ] = None,
    frame_labels: Annotated[
        Path | None,
        typer.Option(
            "--frame-labels",
            metavar="FILE.json",
            help="{video_id: [[start, stop], …]} in seconds: abnormal intervals, to measure with.",
        ),
    ] = None,
    follow_links: options.FollowLinks = False,
    cache: options.CacheDir = options.CACHE,
    device: options.Device = "auto",
    workers: options.Workers = options.WORKERS,
    seed: options.Seed = 0,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Also show classes, confusions, hardest videos and baselines."
        ),
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Fit the linear SVM and the anomaly detector on the concatenated streams, and show what each adds.

    The SVM learns on train and is measured on test: every stream, every pair and all of them, with
    95 % intervals. The detector learns on normal training videos; its threshold comes from normal
    validation videos. Normal are the labels of --normal; without it, rows with anomaly = 0; without
    that column, every training video. With --window the detector learns on windows of the videos
    and reports when and why a video is abnormal (timelines.json).
    """
    from tristream.commands import fuse_tables
    from tristream.fuse import FuseOptions, fuse, parse_regions

    chosen = FuseOptions(
        streams=options.names(stream_list),
        normal=normal or None,
        window_seconds=window,
        hop_seconds=hop,
        regions=parse_regions(regions),
        frame_labels=frame_labels,
        preset=preset,
        config=config,
        assignments=tuple(assignments or ()),
        seed=seed,
    )
    workspace = options.workspace(
        run, cache, follow_links=follow_links, device=device, workers=workers
    )
    report = fuse(workspace, chosen, data=data)
    if report.get("classification"):
        fuse_tables.classification(report["classification"], verbose=verbose)
    if report["detection"]:
        _show_detection(report["detection"])
    screen.note(
        f"wrote {workspace.fusion_dir}; next: tristream report, predict FILE or detect FILE, "
        f"with --run {run}"
    )
    screen.emit(report, as_json=as_json)
    return screen.OK


def _show_detection(detection: dict[str, Any]) -> None:
    """Print the detectors side by side, by video and by frame, where both kinds are labelled."""
    if rows := detection.get("rivals"):
        by = ", by their highest window" if "windows" in detection else ""
        n_abnormal = detection["n_abnormal"]
        screen.table(
            f"What is abnormal? {detection['n_test']} test videos, {n_abnormal} abnormal{by}",
            ["detector", "AUROC", "average precision", "equal error rate", "FPR at 95 % TPR"],
            [
                [
                    name,
                    f"{m['auroc']:.3f}",
                    f"{m['average_precision']:.3f}",
                    f"{m['equal_error_rate']:.3f}",
                    f"{m['fpr_at_95_tpr']:.3f}",
                ]
                for name, m in rows.items()
            ],
            caption=f"prevalence {n_abnormal / detection['n_test']:.3f}: the average precision of "
            "chance; equal error rate by interpolation of the ROC curve",
        )
    if frames := detection.get("frames"):
        n_undefined = next(iter(frames.values()))["n_undefined"]
        screen.table(
            "When? Frame-level AUROC, 10 instants a second",
            ["detector", "micro", "macro"],
            [
                [name, f"{m['micro']:.3f}", "-" if m["macro"] is None else f"{m['macro']:.3f}"]
                for name, m in frames.items()
            ],
            caption="micro: all instants of all test videos together; macro: mean over the videos "
            f"where it is defined ({n_undefined} have only one kind of frames)",
        )
