"""The verdict: results of a run in a few sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from tristream.fusion.action.ablation import effect
from tristream.fusion.intervals import Estimate
from tristream.report.causes import main_cause
from tristream.report.charts import Curves
from tristream.report.collect import Gain, Run, Subset
from tristream.report.markup import clock, html, listed, signed

FEW_TEST_VIDEOS = 30  # below, one video is more than 3 points


def verdict(run: Run, best_possible: Mapping[str, float] | None = None) -> list[Markup]:
    """Return one paragraph: accuracy, effect of each stream, anomalies, rejected videos."""
    subsets, sentences = run.subsets(best_possible), []
    if subsets:
        sentences += _accuracy(run, subsets)
        sentences += _streams(run.gains(), subsets)
    elif run.timelines.get("videos"):
        sentences += _events(run.timelines)
    elif run.detection:
        sentences.append(Markup("This run detects anomalies among whole videos."))
    elif run.decisions:
        sentences.append(Markup("This run has no classifier: its videos have no labels."))
    elif run.configs:
        names = listed(sorted(run.configs))
        sentences.append(
            html("The streams {} are trained; nothing has been decided with them yet.", names)
        )
    else:
        sentences.append(Markup("Nothing is trained in this run yet."))
    sentences += _detection(run.detection)
    sentences += _left_out(run)
    return sentences


def _accuracy(run: Run, subsets: Sequence[Subset]) -> list[Markup]:
    whole = subsets[-1]
    who = (
        f"{listed(whole.streams)} together name"
        if len(whole.streams) > 1
        else f"{whole.streams[0]} alone names"
    )
    n_classes = n_training_classes(run)
    of = html(" of {} classes", n_classes) if n_classes else Markup("")
    guess = Markup("")
    commonest = (run.classification.get("presence") or {}).get("commonest")
    if n_classes:
        chance = 1 / n_classes if commonest is None else max(commonest, 1 / n_classes)
        words = "guessing" if commonest is None else "always the commonest class"
        guess = html(
            "; <strong>{}</strong> would do as well ({} %)"
            if whole.test.low <= chance
            else "; {} would give {} %",
            words,
            f"{100 * chance:.1f}",
        )
    limit = Markup("")
    if whole.best_possible is not None:
        limit = html(", and {} % is the best possible", f"{100 * whole.best_possible:.4g}")
    sentences = [
        html(
            "On {} test videos{}, {} the right action in <strong>{} %</strong> of cases{}{}{}.",
            whole.test.n,
            of,
            who,
            f"{100 * whole.test.value:.1f}",
            interval(whole.test),
            guess,
            limit,
        )
    ]
    if whole.test.n < FEW_TEST_VIDEOS:
        sentences.append(
            html(
                "<strong>Only {} test videos</strong>: below {}, an accuracy is a rough indication.",
                whole.test.n,
                FEW_TEST_VIDEOS,
            )
        )
    best = max(subsets, key=lambda subset: subset.test.value)
    if best.test.value > whole.test.value:
        sentences.append(
            html(
                "With {} only it is {} %{}, the highest in the table: picked by looking at the test videos, so a "
                "hint and no result.",
                listed(best.streams),
                f"{100 * best.test.value:.1f}",
                interval(best.test),
            )
        )
    return sentences


def interval(share: Estimate) -> Markup:
    """The 95 % interval of a share and its number of groups, in brackets; "" without an interval."""
    if not (math.isfinite(share.low) and math.isfinite(share.high)):
        return Markup("")
    n_groups = getattr(share, "n_groups", None)
    groups = f" from {n_groups} groups" if n_groups else ""
    return html(
        " (95 % interval {}–{} %{})", f"{100 * share.low:.1f}", f"{100 * share.high:.1f}", groups
    )


def _streams(gains: Sequence[Gain], subsets: Sequence[Subset]) -> list[Markup]:
    """Streams that help, that hurt, and without a measurable effect."""
    if not gains:
        return []
    helps, hurts, unclear = (
        [gain for gain in gains if effect(gain.retrained) == kind]
        for kind in ("helps", "worse", "unclear")
    )
    sentences = []
    if len(helps) == len(gains):
        sentences.append(html("Every stream helps: {}.", _losses(helps)))
    elif helps:
        sentences.append(html("What helps: {}.", _losses(helps)))
    for gain in hurts:
        sentences.append(
            html(
                "<strong>{} makes it worse</strong>: an SVM without it names {} points more [{}, {}].",
                gain.stream.capitalize(),
                *(f"{-100 * v:.1f}" for v in _value_low_high(gain.retrained, flip=True)),
            )
        )
    if unclear:
        parts = [f"{gain.stream} {_points(gain.retrained)}" for gain in unclear]
        sentences.append(html("No effect can be told from chance for {}.", listed(parts)))
    return sentences


def _losses(gains: Sequence[Gain]) -> str:
    first, *rest = sorted(gains, key=lambda gain: -gain.retrained.value)
    words = [f"without {first.stream} {100 * first.retrained.value:.1f} points are lost"]
    return listed(
        [*words, *(f"without {gain.stream} {100 * gain.retrained.value:.1f}" for gain in rest)]
    )


def _value_low_high(found: Estimate, *, flip: bool) -> tuple[float, float, float]:
    return (found.value, found.high, found.low) if flip else (found.value, found.low, found.high)


def _points(found: Estimate) -> str:
    value, low, high = (signed(100 * part) for part in (found.value, found.low, found.high))
    return f"({value} points, {low} to {high})"


def _events(timelines: Mapping[str, Any]) -> list[Markup]:
    """Number of events, and the strongest one: its video, time and cause."""
    videos = timelines.get("videos") or ()
    events = [(video, event) for video in videos for event in video.get("events") or ()]
    in_videos = f"{len(videos)} video{'' if len(videos) == 1 else 's'}"
    if not events:
        return [html("<strong>No event</strong> in {}.", in_videos)] if videos else []
    video, event = max(events, key=lambda pair: float(pair[1]["peak_score"]))
    reason = main_cause(event.get("shares") or {})
    return [
        html(
            "<strong>{} event{}</strong> in {}; the strongest: {} at {}{}.",
            len(events),
            "" if len(events) == 1 else "s",
            in_videos,
            video["video_id"],
            clock(event["peak_seconds"]),
            f", {reason}" if reason else "",
        )
    ]


def _detection(found: Mapping[str, Any]) -> list[Markup]:
    """Ranking of videos by the detector, its hits and false alarms, and labelled events."""
    sentences = []
    if found.get("auroc") is not None:
        sentence = html(
            "Shown one abnormal and one normal test video, the detector knows which is which in "
            "<strong>{} %</strong> of cases (50 % is guessing)",
            f"{100 * found['auroc']:.0f}",
        )
        if found.get("hits") is not None and found.get("false_alarms") is not None:
            sentence += html(
                "; at its threshold it finds {} % of the abnormal ones and raises a false alarm on {} % of the normal",
                f"{100 * found['hits']:.0f}",
                f"{100 * found['false_alarms']:.0f}",
            )
        sentences.append(sentence + ".")
    events = found.get("events") or {}
    if events.get("n_true") and events.get("watched_seconds"):
        sentences.append(
            html(
                "Of {} labelled events it finds <strong>{}</strong>, with {} false alarms in {} of video.",
                events["n_true"],
                events["n_hits"],
                events["n_false"],
                clock(events["watched_seconds"]),
            )
        )
    return sentences


def _left_out(run: Run) -> list[Markup]:
    """Number of videos rejected, or used without some of the streams."""
    if not run.status:
        return []
    n = len(run.status)
    rejected = sum(row.get("status") == "rejected" for row in run.status)
    masked: dict[str, int] = {}
    for row in run.status:
        for absent in (row.get("absent_streams") or "").split():
            if row.get("status") != "rejected":
                name = absent.partition(":")[0]
                masked[name] = masked.get(name, 0) + 1
    if not rejected and not masked:
        return [html("All {} videos could be used by every stream.", n)]
    parts = [f"{rejected} of {n} videos could not be used at all"] if rejected else []
    parts += [
        f"{count} of {n} have no {name} and are judged without it"
        for name, count in sorted(masked.items())
    ]
    return [html("{}.", listed(parts).capitalize())]


def n_training_classes(run: Run) -> int:
    """Return the number of classes of the classifier."""
    return len({row.label for row in run.rows if row.split == "train" and row.label})


def facts(run: Run) -> list[str]:
    """Number of videos, classes and streams, in a few words each."""
    words = []
    if run.rows:
        seconds = sum(row.duration_seconds or 0.0 for row in run.rows)
        words.append(
            f"{len(run.rows)} videos" + (f", {seconds / 60:.0f} minutes" if seconds >= 60 else "")
        )
    if n_classes := n_training_classes(run):
        words.append(f"{n_classes} classes")
    if run.streams:
        words.append(listed(run.streams))
    return words


def phase(accuracy: Curves) -> str:
    """Epochs of one training phase and the validation accuracy of the epoch it selected."""
    val = accuracy.lines[-1]
    if accuracy.mark is None or not len(val.y):
        return ""
    at = int(np.argmin(np.abs(val.x - accuracy.mark[0])))
    return f"{len(val.x)} epochs, kept number {accuracy.mark[0]:.0f}: {val.y[at]:.1f} % of the validation videos right"


def detection_figures(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Figures of the detector: (name, figure, explanation)."""
    told = [
        ("auroc", "AUROC", ".3f", "1: every abnormal video above every normal one; 0.5: chance"),
        ("average_precision", "average precision", ".3f", ""),
        ("equal_error_rate", "equal error rate", ".3f", "by interpolation of the ROC curve"),
        ("hits", "found at the threshold", ".0%", "of the abnormal test videos"),
        ("false_alarms", "false alarms", ".0%", "of the normal test videos"),
        ("threshold", "threshold", ".4g", "anomaly score from which it alarms"),
        ("bottleneck", "bottleneck", "d", "numbers that must say all of an embedding"),
    ]
    figures = []
    for key, name, form, note in told:
        value = found.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            if key == "average_precision" and found.get("prevalence") is not None:
                note = f"a random score has {found['prevalence']:.3f}"
            bounds = found.get(f"{key}_interval")
            if bounds and all(isinstance(end, int | float) for end in bounds):
                words = f"95 % interval {bounds[0]:.3f}–{bounds[1]:.3f}"
                note = f"{words}; {note}" if note else words
            figures.append((name, format(value, form).replace("%", " %"), note))
    events = found.get("events") or {}
    if events.get("n_true"):
        figures.append(
            (
                "events found",
                f"{events['n_hits']} of {events['n_true']}",
                "labelled abnormal stretches",
            )
        )
    if isinstance(events.get("false_per_hour"), int | float):
        watched = clock(events.get("watched_seconds") or 0.0)
        figures.append(
            ("false alarms an hour", f"{events['false_per_hour']:.3g}", f"over {watched} of video")
        )
    if isinstance(events.get("median_seconds_to_alarm"), int | float):
        figures.append(
            (
                "alarm after",
                f"{events['median_seconds_to_alarm']:.1f} s",
                "from the start of an event, median",
            )
        )
    return figures


def calibration(found: Mapping[str, Any]) -> str:
    """Calibration error before and after, one sentence; "" without a calibration."""
    if found.get("ece_before") is None or found.get("ece_after") is None:
        return ""
    return (
        f"Calibrated by {found.get('method', 'an unnamed method')} on {found.get('n_val', '–')} validation videos: the "
        f"calibration error went from {100 * found['ece_before']:.1f} to {100 * found['ece_after']:.1f} %."
    )
