"""Every plot as SVG and PDF for papers, by matplotlib: text stays text, fonts are embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tristream.media.reasons import printable
from tristream.report.charts import Chart, Confusion, Curves, Looks, Map, Timeline, Whiskers
from tristream.report.palette import STREAM_COLOURS, class_colours, stream_index

INK, MUTED, BAD = "#1c1e21", "#6a7076", "#b3261e"
WIDTH_INCHES = 5.5  # of a page of one column with margins
MARKERS = {"train": "o", "val": "^", "test": "s", "unlabelled": "D"}
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "text.parse_math": False,  # a name may hold a dollar
    "svg.fonttype": "none",  # text, not outlines
    "svg.hashsalt": "tristream",  # the same plot gives the same bytes
    "pdf.fonttype": 42,  # TrueType: publishers refuse Type 3
    "figure.constrained_layout.use": True,
}


def write(charts: Sequence[Chart], folder: Path, *, streams: Sequence[str]) -> list[Path]:
    """Write NAME.svg and NAME.pdf of each chart; return their paths.

    Args:
        charts: names must differ.
        folder: made where it is not there.
        streams: of the run, for their colours.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    colour = partial(_colour, streams=streams)
    written = []
    for chart in charts:
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(WIDTH_INCHES, 0.55 * WIDTH_INCHES))
            DRAW[type(chart)](chart, figure, colour)
            for canvas, ending, about in (
                (FigureCanvasSVG, "svg", {"Date": None}),
                (FigureCanvasPdf, "pdf", {"CreationDate": None}),
            ):
                path = folder / f"{chart.name}.{ending}"
                canvas(figure).print_figure(path, metadata=about)
                written.append(path)
    return written


def _colour(stream: str, streams: Sequence[str]) -> str:
    return STREAM_COLOURS[stream_index(stream, streams)][0] if stream else INK


def _curves(chart: Curves, figure: Any, colour: Callable[[str], str]) -> None:
    figure.set_size_inches(0.6 * WIDTH_INCHES, 0.42 * WIDTH_INCHES)
    axes = figure.subplots()
    if chart.diagonal and chart.y_range:
        axes.plot(chart.y_range, chart.y_range, "--", color=MUTED, linewidth=0.8)
    for line in chart.lines:
        if line.weights is not None:
            axes.scatter(
                line.x,
                line.y,
                s=8 + 120 * line.weights,
                color=colour(line.stream),
                label=line.name,
                clip_on=False,
            )
            continue
        style = {
            "linestyle": "--" if line.dashed else "-",
            "marker": "o" if len(line.x) < 12 else "",
            "markersize": 3,
        }
        axes.plot(line.x, line.y, color=colour(line.stream), label=line.name, **style)
    if chart.mark is not None:
        axes.axvline(chart.mark[0], color=MUTED, linewidth=0.8, linestyle=":")
    if chart.y_range is not None:
        axes.set_ylim(*chart.y_range)
    if chart.x_range is not None:
        axes.set_xlim(*chart.x_range)
    axes.set(xlabel=chart.x_label, ylabel=chart.y_label, title=chart.title)
    axes.legend()


def _whiskers(chart: Whiskers, figure: Any, colour: Callable[[str], str]) -> None:
    figure.set_size_inches(WIDTH_INCHES, 0.7 + 0.24 * len(chart.rows))
    axes = figure.subplots()
    for place, row in enumerate(reversed(chart.rows)):
        ink = colour(row.streams[0]) if len(row.streams) == 1 else INK
        axes.plot(
            [row.low, row.high],
            [place, place],
            color=ink,
            linewidth=2,
            alpha=0.5,
            solid_capstyle="round",
        )
        axes.plot(row.value, place, "o", color=ink, markersize=5, clip_on=False)
        if row.best is not None:
            axes.plot(
                row.best, place, "|", color=BAD, markersize=11, markeredgewidth=1.5, clip_on=False
            )
    if chart.zero:
        axes.axvline(0.0, color=MUTED, linewidth=0.8)
    if chart.chance is not None:
        axes.axvline(chart.chance, color=MUTED, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(chart.rows)), [printable(row.label) for row in reversed(chart.rows)])
    axes.set(
        xlabel=chart.x_label,
        title=chart.title,
        xlim=chart.x_range,
        ylim=(-0.6, len(chart.rows) - 0.4),
    )


def _confusion(chart: Confusion, figure: Any, colour: Callable[[str], str]) -> None:
    n = len(chart.classes)
    figure.set_size_inches(WIDTH_INCHES, 0.9 * WIDTH_INCHES)
    axes = figure.subplots()
    shares = chart.counts / np.maximum(chart.counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(chart.counts), strict=True):
        if n <= 24:
            ink = "white" if shares[row, column] > 0.5 else INK if row == column else BAD
            axes.text(
                column,
                row,
                str(chart.counts[row, column]),
                ha="center",
                va="center",
                color=ink,
                fontsize=6.5,
            )
    if n <= 60:
        names = [printable(name) for name in chart.classes]
        axes.set_xticks(range(n), names, rotation=90)
        axes.set_yticks(range(n), names)
    axes.set(xlabel="named", ylabel="class", title=chart.title)


def _map(chart: Map, figure: Any, colour: Callable[[str], str]) -> None:
    n_views = len(chart.places)
    figure.set_size_inches(WIDTH_INCHES, 0.45 * WIDTH_INCHES * ((n_views + 1) // 2) + 0.4)
    labels = sorted(set(chart.labels))
    colours = dict(zip(labels, class_colours(len(labels)), strict=True))
    grid = figure.subplots((n_views + 1) // 2, min(2, n_views), squeeze=False).ravel()
    for axes, (view, places) in zip(grid, chart.places.items(), strict=False):
        for split in dict.fromkeys(chart.splits):
            chosen = np.array([other == split for other in chart.splits]) & np.isfinite(places).all(
                axis=1
            )
            ink = [colours[label] for label, take in zip(chart.labels, chosen, strict=True) if take]
            rims = [
                0.6 if odd else 0.0
                for odd, take in zip(chart.abnormal, chosen, strict=True)
                if take
            ]
            marker = MARKERS.get(split, "D")
            axes.scatter(
                *places[chosen].T, c=ink, marker=marker, s=7, linewidths=rims, edgecolors=INK
            )
        axes.set(title=view, xticks=[], yticks=[])
        axes.set_xlabel(chart.axes[view], fontsize=6)
    for axes in grid[n_views:]:
        axes.set_axis_off()
    if len(labels) <= 24:
        from matplotlib.lines import Line2D

        dots = [
            Line2D([], [], marker="o", linestyle="", color=colours[name], label=printable(name))
            for name in labels
        ]
        figure.legend(handles=dots, loc="outside right upper", fontsize=6)


def _timeline(chart: Timeline, figure: Any, colour: Callable[[str], str]) -> None:
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    above.plot(chart.times, chart.scores, color=INK, linewidth=1)
    above.axhline(chart.threshold, color=MUTED, linewidth=0.8, linestyle="--")
    for event in chart.events:
        above.axvspan(event.start_seconds, event.stop_seconds, color=BAD, alpha=0.12, linewidth=0)
    for start, stop in chart.truth or ():
        above.plot(
            [start, stop], [0, 0], color=BAD, linewidth=4, transform=above.get_xaxis_transform()
        )
    above.set(
        ylabel="anomaly score",
        title=printable(chart.video_id),
        yscale="log" if chart.is_steep else "linear",
    )
    if chart.shares:
        names = list(chart.shares)
        below.stackplot(
            chart.times,
            *chart.shares.values(),
            colors=[colour(name) for name in names],
            labels=names,
        )
        below.legend(loc="upper center", bbox_to_anchor=(0.5, -0.9), ncols=len(names), fontsize=7)
    below.set(yticks=[], ylim=(0, 1), xlabel="seconds", ylabel="share")


def _looks(chart: Looks, figure: Any, colour: Callable[[str], str]) -> None:
    figure.set_size_inches(WIDTH_INCHES, 0.4 * WIDTH_INCHES)
    names = list(chart.starts)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, max(1, len(names)) * 0.6))
    above.fill_between(chart.times, chart.motion, color=INK, alpha=0.3, linewidth=0)
    above.set(
        ylabel="motion, px",
        title=printable(chart.video_id),
        ylim=(0, None),
        xlim=(0, chart.stop_seconds),
    )
    middles = [chart.starts[name] + chart.spans.get(name, 0) / 2 for name in names]
    below.eventplot(
        middles, colors=[colour(name) for name in names], linelengths=0.7, linewidths=0.8
    )
    below.set_yticks(range(len(names)), names)
    below.set(xlabel="seconds")


DRAW: dict[type, Callable[[Any, Any, Callable[[str], str]], None]] = {
    Curves: _curves,
    Whiskers: _whiskers,
    Confusion: _confusion,
    Map: _map,
    Timeline: _timeline,
    Looks: _looks,
}
