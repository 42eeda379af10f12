"""Plots that show videos: the map of embeddings, anomaly scores over time, where the sampler looked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from markupsafe import Markup

from tristream.report.charts import Looks, Map, Timeline
from tristream.report.markup import clock, html, joined, visible
from tristream.report.palette import class_colours
from tristream.report.svg import UNITS, Labels, Scale, colour_class, field, path

MAP_HEIGHT = 680  # of 1000
MOST_BINS = 900  # of a timeline; more lines than a screen has pixels show nothing more
SPLITS = ("train", "val", "test", "unlabelled")


def _moment(seconds: float) -> str:
    """Return a time as an axis label."""
    return f"{seconds:g} s" if seconds < 60 else clock(seconds)


def map_places(chart: Map) -> dict[str, list[list[float] | None]]:
    """{view: place of each point in the drawing}; None where the video does not have the stream."""
    found = {}
    for view, places in chart.places.items():
        known = np.isfinite(places).all(axis=1)
        low, high = places[known].min(axis=0), places[known].max(axis=0)
        span = np.where(high > low, high - low, 1.0)
        units = 30 + (places - low) / span * (np.array([1000, MAP_HEIGHT]) - 60)
        found[view] = [
            [round(float(a), 1), round(MAP_HEIGHT - float(b), 1)] if ok else None
            for (a, b), ok in zip(units, known, strict=True)
        ]
    return found


def scatter(
    chart: Map, links: Mapping[str, str] | None = None
) -> tuple[Markup, list[tuple[str, str, int]]]:
    """The map in its first view, and its legend: (label, colour, number of videos)."""
    labels = sorted(set(chart.labels))
    colours = dict(zip(labels, class_colours(len(labels)), strict=True))
    first = next(iter(map_places(chart).values()))
    points = [
        html(
            '<use href="#m-{}" class="pt{}" data-i="{}" data-k="{}" style="color:{};transform:translate({}px,{}px)"/>',
            split if split in SPLITS else "unlabelled",
            " abnormal" if chart.abnormal[i] else "",
            i,
            labels.index(label),
            colours[label],
            *(place or (-99, -99)),
        )
        for i, (place, label, split) in enumerate(
            zip(first, chart.labels, chart.splits, strict=True)
        )
    ]
    points = [
        html('<a href="{}">{}</a>', links[name], point) if links and name in links else point
        for name, point in zip(chart.video_ids, points, strict=True)
    ]
    drawn = html(
        '<svg id="map-points" viewBox="0 0 1000 {}" role="img" aria-label="{}">{}</svg>',
        MAP_HEIGHT,
        chart.title,
        joined(points),
    )
    return drawn, [(label, colours[label], list(chart.labels).count(label)) for label in labels]


def map_data(chart: Map, thumbnails: Mapping[str, str], named: Mapping[str, str]) -> dict[str, Any]:
    """Data for the page's script: positions of the points in every view, and the tooltip of each."""
    return {
        "places": map_places(chart),
        "axes": chart.axes,
        "ids": [visible(name) for name in chart.video_ids],
        "labels": [visible(label) for label in chart.labels],
        "splits": [
            f"{split}, abnormal" if odd else split
            for split, odd in zip(chart.splits, chart.abnormal, strict=True)
        ],
        "named": [visible(named.get(name, "")) for name in chart.video_ids],
        "thumbnails": {
            i: thumbnails[name] for i, name in enumerate(chart.video_ids) if name in thumbnails
        },
    }


def timeline(chart: Timeline, place: Callable[[str], int]) -> Markup:
    """Draw the score over time with threshold and events, and below it the shares of the streams."""
    times, scores, shares = _binned(chart)
    half = float(np.median(np.diff(times))) / 2 if len(times) > 1 else 0.5
    x = Scale(max(0.0, float(times[0]) - half), float(times[-1]) + half)
    top = max(float(scores.max()), chart.threshold if np.isfinite(chart.threshold) else 0.0)
    positive = scores[scores > 0]
    log = chart.is_steep and len(positive) > 0
    y = Scale(float(positive.min()), top * 1.3, log=True) if log else Scale(0.0, top * 1.1 or 1.0)
    shapes, texts = [], []
    for number, event in enumerate(chart.events, start=1):
        a, b = x(max(event.start_seconds, x.low)), x(min(event.stop_seconds, x.high))
        shapes.append(f'<path class="event" d="M{a:.1f} 0H{max(b, a + 2):.1f}V{UNITS}H{a:.1f}Z"/>')
        texts.append(
            html(
                '<b class="peak" style="left:{};bottom:{}">{}</b>',
                x.percent(event.peak_seconds),
                y.percent(event.peak_score),
                number,
            )
        )
    if np.isfinite(chart.threshold):
        shapes.append(f'<path class="threshold" d="M0 {UNITS - y(chart.threshold):.1f}H{UNITS}"/>')
    shapes.append(
        f'<path class="line ink" d="{path(map(x, times), (UNITS - y(s) for s in scores))}"/>'
    )
    if len(times) == 1:
        shapes.append(
            f'<path class="dot ink" d="M{x(times[0]):.1f} {UNITS - y(scores[0]):.1f}h0"/>'
        )
    for a, b in chart.truth or ():
        shapes.append(
            f'<path class="truth" d="M{x(max(a, x.low)):.1f} {UNITS}H{x(min(b, x.high)):.1f}"/>'
        )
    ticks = [(tick, _moment(tick)) for tick in x.ticks(6)]
    label = "anomaly score (logarithmic)" if log else "anomaly score"
    drawn = field(
        shapes,
        x,
        y,
        x_ticks=ticks,
        texts=texts,
        words=Labels("", label, f"anomaly score of {chart.video_id} over time"),
    )
    if not shares:
        return drawn
    return drawn + _stacked(times, shares, x, half, place)


def _stacked(
    times: Float64[np.ndarray, " n"],
    shares: Mapping[str, np.ndarray],
    x: Scale,
    half: float,
    place: Callable[[str], int],
) -> Markup:
    """Draw a band of full height, divided among the streams at every time."""
    edges = np.concatenate([[times[0] - half], (times[1:] + times[:-1]) / 2, [times[-1] + half]])
    steps = np.repeat([x(max(edge, x.low)) for edge in edges], 2)[1:-1]
    below = np.zeros(2 * len(times))
    shapes = []
    for name, share in shares.items():
        above = below + np.repeat(share, 2) * UNITS
        outline = path([*steps, *steps[::-1]], [*(UNITS - above), *(UNITS - below)[::-1]])
        shapes.append(f'<path class="area {colour_class(name, place)}" d="{outline}Z"/>')
        below = above
    return html(
        '<div class="plot shares"><div class="field"><svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="share of each stream">{}</svg></div></div>',
        UNITS,
        UNITS,
        Markup("".join(shapes)),
    )


def _binned(chart: Timeline) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return at most `MOST_BINS` windows: the highest score of each bin, so that no peak is lost."""
    n = len(chart.times)
    if n <= MOST_BINS:
        return chart.times, chart.scores, chart.shares
    bounds = np.linspace(0, n, MOST_BINS + 1).astype(int)
    peaks = np.array([a + int(np.argmax(chart.scores[a:b])) for a, b in itertools.pairwise(bounds)])
    return (
        chart.times[peaks],
        chart.scores[peaks],
        {name: share[peaks] for name, share in chart.shares.items()},
    )


def looks(chart: Looks, streams: Sequence[str], place: Callable[[str], int]) -> Markup:
    """Frames of a video, its motion below them, and a lane for each stream with a mark where a segment begins."""
    x = Scale(0.0, max(chart.stop_seconds, 1e-3))
    strip = joined(
        html(
            '<figure><img src="{}" alt="frame at {}"><figcaption>{}</figcaption></figure>',
            picture,
            clock(seconds),
            clock(seconds),
        )
        for seconds, picture in chart.frames
    )
    parts = [html('<div class="strip">{}</div>', strip)] if chart.frames else []
    if len(chart.motion):
        y = Scale(0.0, float(chart.motion.max()) * 1.1 or 1.0)
        top = [(x(t), UNITS - y(m)) for t, m in zip(chart.times, chart.motion, strict=True)]
        outline = path(
            [top[0][0], *(a for a, _ in top), top[-1][0]], [UNITS, *(b for _, b in top), UNITS]
        )
        ticks = [(tick, _moment(tick)) for tick in x.ticks(6)]
        parts.append(
            field(
                [f'<path class="area ink" d="{outline}Z"/>'],
                x,
                y,
                low=True,
                x_ticks=ticks,
                words=Labels("", "motion, px", f"motion in {chart.video_id}"),
            )
        )
    for name in streams:
        starts = chart.starts.get(name)
        if starts is None or not len(starts):
            words = f"masked ({chart.absent[name]})" if name in chart.absent else "not embedded"
            parts.append(html('<div class="lane"><b>{}</b><span>{}</span></div>', name, words))
            continue
        span = chart.spans.get(name, 0.0)
        marks = "".join(f"M{x(start + span / 2):.1f} 0V{UNITS}" for start in starts)
        parts.append(
            html(
                '<div class="lane"><b>{}</b><svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
                'aria-label="{} segments of {} s"><path class="tick {}" d="{}"/></svg><span>{} × {} s</span></div>',
                name,
                UNITS,
                UNITS,
                len(starts),
                f"{span:.2f}",
                colour_class(name, place),
                marks,
                len(starts),
                f"{span:.2f}",
            )
        )
    return joined(parts)
