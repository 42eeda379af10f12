"""One HTML file of a run: template, style and script in one, no request to anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tristream.fusion.intervals import Estimate
from tristream.report import event_strip, links, plots, provenance, scenes, svg, verdict
from tristream.report.causes import cause_and_stream
from tristream.report.charts import Looks, Map, Timeline
from tristream.report.collect import Run, estimate
from tristream.report.markup import (
    clock,
    percent,
    script_json,
    signed,
    three_digits,
    unbroken,
    visible,
)
from tristream.report.palette import STREAM_COLOURS, stream_index

HERE = Path(__file__).parent
MOST_FAILURES = 200
MOST_HARD = 12
RIVALS = {"mean": "mean of the streams' own scores", "weighted": "weighted mean of their scores",
          "simonyan": "SVM on their scores (Simonyan & Zisserman)"}  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """Reference figures for the accuracy.

    Attributes:
        words: what the figures are, after "the red tick is".
        accuracy: {"audio+spatial": percent}.
        kinds: AUROC of each kind of anomaly, by stream: {kind: {stream: value}}; empty where none is known.
    """

    words: str = ""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    kinds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images decoded for the page.

    Attributes:
        videos: {video_id: data URI}.
        peaks: {(video_id, number of the event): data URI}.
        missing: {(video_id, number of the event): why there is none}.
        looks: where the sampler looked.
        clips: {video_id: link to its file, relative to the page}, as `links.clip_links` returns.
    """

    videos: Mapping[str, str] = field(default_factory=dict)
    peaks: Mapping[tuple[str, int], str] = field(default_factory=dict)
    missing: Mapping[tuple[str, int], str] = field(default_factory=dict)
    looks: Sequence[Looks] = ()
    clips: Mapping[str, str] = field(default_factory=dict)


def render(
    run: Run,
    *,
    title: str,
    made: str,
    version: str,
    beside: Beside | None = None,
    chart: Map | None = None,
    timelines: Sequence[Timeline] = (),
    pictures: Pictures | None = None,
) -> str:
    """Return the page as HTML.

    Args:
        run: what was found.
        title: above it all.
        made: date, as people write it.
        version: of this program.
        beside: what accuracy is held against.
        chart: the map of embeddings.
        timelines: anomaly scores over time.
        pictures: what was decoded.
    """
    beside, pictures = beside or Beside(), pictures or Pictures()
    place = partial(stream_index, streams=run.streams)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    named = {
        str(video["video_id"]): str(video["predicted"])
        for video in run.classification.get("predictions") or ()
    }
    context: dict[str, Any] = {
        "run": run,
        "title": title,
        "made": made,
        "version": version,
        "css": Markup((HERE / "page.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_hash": Markup(
            "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        ),
        "stream_colours": STREAM_COLOURS,
        "facts": verdict.facts(run),
        "verdict": [unbroken(sentence) for sentence in verdict.verdict(run, beside.accuracy)],
        "leaks": [
            *(
                f"The encoder of {name} has random weights: this is a rehearsal, no result"
                for name in provenance.rehearsed(run)
            ),
            *(run.decisions.get("leaks") or ()),
        ],
        "percent": percent,
        "signed": signed,
        "colour": partial(svg.colour_class, place=place),
        "colour_known": lambda name: name in run.streams,
        "cause": cause_and_stream,
        "dots": lambda used: svg.dots(used, run.streams if len(used) != 1 else used, place),
        "whisker": partial(svg.whisker, place=place),
        "axis": svg.axis,
        **_accuracy(run, beside),
        **_mistakes(run, pictures, place),
        "map": _map(chart, pictures.clips),
        "map_json": script_json(scenes.map_data(chart, pictures.videos, named) if chart else None),
        **_anomalies(run, beside, timelines, pictures, place),
        "looks": [
            {
                "video_id": look.video_id,
                "label": look.label,
                "drawn": scenes.looks(look, run.streams, place),
            }
            for look in pictures.looks
        ],
        "has_looks": bool(pictures.looks) or any(gap.section == "looks" for gap in run.gaps),
        "sampler_words": provenance.sampler_words(run),
        "training": _training(run, place),
        **provenance.left_out(run, MOST_FAILURES),
        **provenance.lineage(run),
    }
    context["contents"] = _contents(context)
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=visible,
    )  # fmt: skip
    return environment.get_template("page.html.j2").render(context)


def _contents(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts = [("accuracy", "Which action?", True), ("gains", "What each stream adds", bool(context["gains"].rows)),
             ("mistakes", "Where it goes wrong", context["confusion"] or context["per_class"].rows),
             ("map", "The map of embeddings", True), ("anomalies", "What is abnormal?", True),
             ("timelines", "Over time", bool(context["timelines"])), ("looks", "Where it looked", context["has_looks"]),
             ("training", "How the streams learned", True), ("left-out", "What was left out", True),
             ("lineage", "What it was made of", True)]  # fmt: skip
    return [(name, title) for name, title, there in parts if there]


def _accuracy(run: Run, beside: Beside) -> dict[str, Any]:
    subsets, gains = run.subsets(beside.accuracy), run.gains()
    n_classes = verdict.n_training_classes(run)
    classification = run.classification
    rivals: list[tuple[str, Estimate]] = []
    if softmax := estimate(classification.get("softmax")):
        rivals.append(("softmax head on all embeddings", softmax))
    for name, figure in (classification.get("late") or {}).items():
        if late := estimate(figure):
            rivals.append((RIVALS.get(name, name), late))
    for name, figure in (classification.get("heads") or {}).items():
        if head := estimate(figure):
            rivals.append((f"{name}: the softmax layer it was trained with", head))
    views = [
        (
            name,
            {
                "n": view.get("n_test_without"),
                "figures": [estimate(view.get(key)) for key in "abcd"],
            },
        )
        for name, view in (classification.get("views") or {}).items()
        if view.get("n_test_without") or view.get("n_train_without")
    ]
    return {
        "subsets": subsets,
        "accuracy": plots.accuracy(subsets, 100 / n_classes if n_classes else None),
        "n_test": subsets[-1].test.n if subsets else 0,
        "best_words": beside.words if any(subset.best_possible is not None for subset in subsets) else "",
        "has": {key: any(getattr(s, key) is not None for s in subsets) for key in ("mean_class", "top5", "train")},
        "gains": plots.gains(gains),
        "withheld": {gain.stream: gain.withheld.value for gain in gains if gain.withheld},
        "presence": (classification.get("presence") or {}).get("words"),
        "views": views,
        "rivals": rivals,
        "warnings": [f"{word[0].upper()}{word[1:].removesuffix('.')}" for word in
                     dict.fromkeys([*(classification.get("words") or ()),
                                    *(classification.get("warnings") or ())]) if word],
    }  # fmt: skip


def _mistakes(run: Run, pictures: Pictures, place: Any) -> dict[str, Any]:
    classification = run.classification
    matrix, per_class, reliability = (
        plots.confusion(run),
        plots.per_class(run),
        plots.reliability(run),
    )
    classes = classification.get("per_class") or {}
    alone = {name: figures.get("alone") or {} for name, figures in classes.items()}
    by_stream = list(next(iter(alone.values()), {}))
    hardest = [
        {"video_id": video["video_id"], "label": video.get("label"), "predicted": video.get("predicted"),
         "margin": video.get("margin"), "picture": pictures.videos.get(video["video_id"])}
        for video in (classification.get("hardest") or ())[:MOST_HARD]
    ]  # fmt: skip
    return {
        "confusion": svg.confusion(matrix, links.cell_links(run, pictures.clips))
        if matrix
        else None,
        "per_class": per_class,
        "class_counts": {name: figures.get("n", "–") for name, figures in classes.items()},
        "class_alone": alone,
        "class_streams": by_stream if len(by_stream) > 1 else [],
        "hardest": hardest,
        "reliability": svg.curves(reliability, place) if reliability else None,
        "calibration_words": verdict.calibration(classification.get("calibration") or {}),
        "rejection": classification.get("rejection") or [],
    }


def _map(chart: Map | None, clips: Mapping[str, str]) -> dict[str, Any] | None:
    if chart is None:
        return None
    drawn, legend = scenes.scatter(chart, clips)
    views = list(chart.places)
    splits = [split for split in scenes.SPLITS if split in chart.splits]
    return {"drawn": drawn, "legend": legend, "views": views, "axes": chart.axes[views[0]],
            "n_left_out": chart.n_left_out, "n_abnormal": sum(chart.abnormal), "splits": splits}  # fmt: skip


def _anomalies(
    run: Run, beside: Beside, timelines: Sequence[Timeline], pictures: Pictures, place: Any
) -> dict[str, Any]:
    columns = list(next(iter(beside.kinds.values()), {}))
    rows = [
        (kind, [by.get(name, float("nan")) for name in columns])
        for kind, by in beside.kinds.items()
    ]
    shown = []
    for line in timelines:
        events = [
            {
                "picture": pictures.peaks.get((line.video_id, number)),
                "why": pictures.missing.get((line.video_id, number), "no picture"),
                "when": f"{clock(max(0.0, event.start_seconds))} – {clock(event.stop_seconds)}",
                "peak": clock(event.peak_seconds),
                "score": three_digits(event.peak_score),
                "shares": sorted(event.shares.items()),
                "region": event.region,
                "part": event_strip.part_of(event.region),
                "nearest": event.nearest[:2],
                "clip": _at(pictures.clips.get(line.video_id), event.start_seconds),
            }
            for number, event in enumerate(line.events)
        ]
        shown.append(
            {"video_id": line.video_id, "drawn": scenes.timeline(line, place), "events": events}
        )
    window, hop = run.timelines.get("window_seconds"), run.timelines.get("hop_seconds")
    return {
        "detection": verdict.detection_figures(run.detection),
        "detector_kind": run.detection.get("kind", "autoencoder"),
        "detectors": _detectors(run.detection),
        "kinds": {"columns": columns, "rows": rows} if rows else None,
        "timelines": shown,
        "timeline_streams": sorted({name for line in timelines for name in line.shares}),
        "window_words": f"{window:g} s, one every {hop:g} s," if window and hop else "a video",
        "any_truth": any(line.truth for line in timelines),
    }


def _at(clip: str | None, seconds: float) -> str:
    """Return a link to a time of a clip (media fragment); "" without one."""
    return f"{clip}#t={max(0.0, seconds):.1f}" if clip else ""


def _detectors(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the detector beside baselines: figures over videos, and over times where labels give them."""
    whole, frames = found.get("rivals") or {}, found.get("frames") or {}
    columns = {"auroc": "AUROC", "average_precision": "average precision", "equal_error_rate": "equal error rate",
               "fpr_at_95_tpr": "false alarms at 95 % found", "micro": "AUROC of moments",
               "macro": "the same, mean of videos"}  # fmt: skip
    rows = {
        name: {**(whole.get(name) or {}), **(frames.get(name) or {})} for name in [*whole, *frames]
    }
    used = [key for key in columns if any(isinstance(row.get(key), float) for row in rows.values())]
    if not used:
        return None
    return {
        "columns": [columns[key] for key in used],
        "rows": [
            (name, [row.get(key) for key in used], name == found.get("kind"))
            for name, row in rows.items()
        ],
    }


def _training(run: Run, place: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": stream,
            "phases": [
                {"title": loss.title, "words": verdict.phase(accuracy),
                 "loss": svg.curves(loss, place), "accuracy": svg.curves(accuracy, place)}
                for loss, accuracy in phases
            ],
        }
        for stream, phases in plots.training(run).items()
    ]  # fmt: skip
