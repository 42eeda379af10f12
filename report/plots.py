"""Plots of a run's report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tristream.report.charts import Confusion, Curves, Event, Line, Timeline, Whisker, Whiskers
from tristream.report.collect import Gain, Run, Subset, estimate

PHASES = {
    "encoder": "Encoder",
    "end_to_end": "Encoder, end to end",
    "aggregator": "Aggregator on segment embeddings",
}
MOST_TIMELINES = 8
MOST_EVENTS = 6  # of one video


def training(run: Run) -> dict[str, list[tuple[Curves, Curves]]]:
    """Return loss and accuracy in % of each training phase of each stream."""
    found: dict[str, list[tuple[Curves, Curves]]] = {}
    for stream, phases in run.curves.items():
        for phase, epochs in phases.items():
            best = min(epochs, key=lambda epoch: epoch.get("val_loss", float("inf")))
            mark = (float(best.get("epoch", 0)), "kept")
            name, title = f"training-{stream}-{phase}", PHASES.get(phase, phase)
            loss = Curves(
                f"{name}-loss",
                title,
                "epoch",
                "loss",
                _pair(stream, epochs, "loss", "val_loss", 1.0),
                mark=mark,
            )
            accuracy = Curves(
                f"{name}-accuracy",
                title,
                "epoch",
                "accuracy, %",
                _pair(stream, epochs, "accuracy", "val_accuracy", 100.0),
                y_range=(0, 100),
                mark=mark,
            )
            found.setdefault(stream, []).append((loss, accuracy))
    return found


def _pair(
    stream: str, epochs: Sequence[Mapping[str, float]], train: str, val: str, scale: float
) -> list[Line]:
    x = np.array([float(epoch.get("epoch", index + 1)) for index, epoch in enumerate(epochs)])

    def line(name: str, key: str, *, dashed: bool) -> Line:
        y = np.array([scale * float(epoch.get(key, np.nan)) for epoch in epochs])
        return Line(name, x, y, stream=stream, dashed=dashed)

    return [line("train", train, dashed=True), line("validation", val, dashed=False)]


def accuracy(subsets: Sequence[Subset], chance: float | None) -> Whiskers:
    """Test accuracy of every set of streams, in %."""
    rows = [
        Whisker(
            " + ".join(subset.streams),
            100 * subset.test.value,
            100 * subset.test.low,
            100 * subset.test.high,
            subset.streams,
            None if subset.best_possible is None else 100 * subset.best_possible,
        )
        for subset in subsets
    ]
    return Whiskers("accuracy", "Which action?", "test accuracy, %", rows, (0, 100), chance=chance)


def gains(found: Sequence[Gain]) -> Whiskers:
    """Accuracy lost without each stream, in points; to the right of 0 the stream helps."""
    rows = [
        Whisker(
            gain.stream,
            100 * gain.retrained.value,
            100 * gain.retrained.low,
            100 * gain.retrained.high,
            (gain.stream,),
        )
        for gain in found
    ]
    ends = [
        0.0,
        *(end for row in rows for end in (row.low, row.high, row.value) if np.isfinite(end)),
    ]
    margin = 0.06 * (max(ends) - min(ends)) or 1.0
    return Whiskers(
        "gains",
        "What each stream adds",
        "points of accuracy",
        rows,
        (min(ends) - margin, max(ends) + margin),
        zero=True,
    )


def confusion(run: Run) -> Confusion | None:
    """Return the confusion matrix of the classifier on all streams; None if `fuse` stored none."""
    matrix = run.classification.get("confusion")
    if not isinstance(matrix, Mapping):
        return None
    counts = next((matrix[key] for key in ("counts", "matrix") if key in matrix), None)
    classes = matrix.get("classes")
    if counts is None or classes is None or len(counts) != len(classes):
        return None
    return Confusion(
        "confusion",
        "Who is taken for whom",
        list(map(str, classes)),
        np.asarray(counts, dtype=np.int64),
    )


def timelines(run: Run) -> list[Timeline]:
    """Return the videos scored over time, highest peaks first."""
    streams = [str(name) for name in run.timelines.get("streams") or ()]
    found = [
        _timeline(index, video, streams, float(run.timelines.get("threshold", np.nan)))
        for index, video in enumerate(run.timelines.get("videos") or ())
        if video.get("times")
    ]
    ranked = sorted(
        found, key=lambda line: (-len(line.events) if line.truth else 0, -float(line.scores.max()))
    )
    return ranked[:MOST_TIMELINES]


def _timeline(
    index: int, video: Mapping[str, Any], streams: Sequence[str], threshold: float
) -> Timeline:
    times = np.asarray(video["times"], dtype=np.float64)
    shares = {
        name: np.asarray(values, dtype=np.float64)
        for name, values in (video.get("shares") or {}).items()
        if name in streams and len(values) == len(times)
    }
    events = [
        Event(
            float(event["start_seconds"]),
            float(event["stop_seconds"]),
            float(event["peak_seconds"]),
            float(event["peak_score"]),
            {str(name): float(share) for name, share in (event.get("shares") or {}).items()},
            tuple(str(near) for near in event.get("nearest") or ()),
            "" if event.get("region") in (None, "", "whole") else str(event["region"]),
        )
        for event in video.get("events") or ()
    ]
    chosen = sorted(
        sorted(events, key=lambda event: -event.peak_score)[:MOST_EVENTS],
        key=lambda e: e.start_seconds,
    )
    truth = video.get("labels")
    video_id = str(video["video_id"])
    return Timeline(
        name=f"timeline-{index:02d}-{re.sub(r'[^A-Za-z0-9]+', '-', video_id).strip('-')[:60]}",
        video_id=video_id,
        times=times,
        scores=np.asarray(video["scores"], dtype=np.float64),
        threshold=threshold,
        shares=shares,
        truth=None if truth is None else [(float(a), float(b)) for a, b in truth],
        events=chosen,
        path=str(video.get("path") or ""),
    )


def per_class(run: Run) -> Whiskers:
    """Return the accuracy of each class in %, worst first."""
    rows = [
        Whisker(name, 100 * accuracy.value, 100 * accuracy.low, 100 * accuracy.high)
        for name, figures in (run.classification.get("per_class") or {}).items()
        if (accuracy := estimate(figures.get("accuracy"))) is not None
    ]
    rows.sort(key=lambda row: row.value)
    return Whiskers("per-class", "Class by class", "named rightly, %", rows, (0, 100))


def reliability(run: Run, n_bins: int = 10) -> Curves | None:
    """Return accuracy against confidence; None without probabilities."""
    sure, right = [], []
    for video in run.classification.get("predictions") or ():
        if video.get("probabilities"):
            sure.append(max(video["probabilities"]))
            right.append(video.get("predicted") == video.get("label"))
    if not sure:
        return None
    confidence, hits = np.array(sure), np.array(right, dtype=np.float64)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    used = np.unique(bins)
    x = np.array([100 * confidence[bins == b].mean() for b in used])
    y = np.array([100 * hits[bins == b].mean() for b in used])
    line = Line("test videos", x, y, weights=np.array([(bins == b).mean() for b in used]))
    return Curves(
        "reliability", "Reliability", "how sure, %", "right, %", [line], y_range=(0, 100), x_range=(0, 100),
        diagonal=True,
    )  # fmt: skip
