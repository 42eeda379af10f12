"""Plots as SVG on the page: shapes stretch with the window, text is HTML over them and keeps its size.

A field is drawn in units of 0 … 1000 on both axes; lines do not scale (`vector-effect` in page.css), and a point is a
line of no length with a round end, so nothing is distorted. Colours are classes: `c0` … of a stream, else ink.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from tristream.report.charts import Confusion, Curves, Line, Whisker, Whiskers
from tristream.report.markup import html, joined, short

UNITS = 1000
MOST_NUMBERED = 24  # classes; more, and the numbers in a confusion matrix are too small to read
MOST_NAMED = 60


@dataclass(frozen=True)
class Scale:
    """Values low … high → 0 … 1000; logarithmic where both are positive and it is asked for."""

    low: float
    high: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, self.low)), math.log(low), math.log(high)
        return UNITS * (value - low) / (high - low) if high > low else UNITS / 2

    def percent(self, value: float) -> str:
        """Return a position in CSS units."""
        return f"{self(value) / UNITS * 100:.2f}%"

    def ticks(self, n: int = 5) -> list[float]:
        """About `n` round values inside the scale; powers of ten where it is logarithmic."""
        if self.log:
            powers = range(
                math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1
            )
            return [10.0**power for power in powers]
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        rough = 10 ** math.floor(math.log10(span / n))
        step = next(rough * factor for factor in (1, 2, 5, 10) if span / (rough * factor) <= n)
        first = math.ceil(self.low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def path(x: Iterable[float], y: Iterable[float]) -> str:
    """SVG's path through points; one that is not finite breaks it."""
    parts, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        if math.isfinite(a) and math.isfinite(b):
            parts.append(f"{pen}{a:.1f} {b:.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def colour_class(stream: str, place: Callable[[str], int]) -> str:
    """Return the CSS class of a stream's colour; "ink" for none."""
    return f"c{place(stream)}" if stream else "ink"


class Labels(NamedTuple):
    """Words around a plot: below it, beside it, and for screen readers."""

    x: str
    y: str
    title: str


def field(
    shapes: Iterable[str],
    x: Scale,
    y: Scale,
    *,
    words: Labels,
    texts: Iterable[Markup] = (),
    x_ticks: Sequence[tuple[float, str]] | None = None,
    low: bool = False,
) -> Markup:
    """A plot with axes around `shapes`, which are SVG in units of the field.

    Args:
        texts: HTML placed in the field by its own style.
        x_ticks: (value, words); None: round numbers.
        low: a field of little height.
    """
    y_ticks = y.ticks(3 if low else 5)
    x_words = [(tick, short(tick)) for tick in x.ticks(6)] if x_ticks is None else x_ticks
    grid = "".join(f'<path class="grid" d="M0 {UNITS - y(tick):.1f}H{UNITS}"/>' for tick in y_ticks)
    labels = [
        *(
            html('<span class="yt" style="bottom:{}">{}</span>', y.percent(t), short(t))
            for t in y_ticks
        ),
        *(
            html('<span class="xt" style="left:{}">{}</span>', x.percent(t), words)
            for t, words in x_words
        ),
        *texts,
    ]
    return html(
        '<div class="plot{}"><div class="yl">{}</div><div class="field">'
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}{}</svg>{}</div>'
        '<div class="xl">{}</div></div>',
        " low" if low else "",
        words.y,
        UNITS,
        UNITS,
        words.title,
        Markup(grid),
        Markup("".join(shapes)),
        joined(labels),
        words.x,
    )


def curves(chart: Curves, place: Callable[[str], int]) -> Markup:
    """Lines over one axis, the last value of each written at its end."""
    x, y = _extent(chart)
    shapes = [_line(line, x, y, place) for line in chart.lines]
    texts = []
    if chart.diagonal:
        shapes.insert(0, f'<path class="line muted dashed" d="M0 {UNITS}L{UNITS} 0"/>')
    if chart.mark is not None:
        at, words = chart.mark
        shapes.insert(0, f'<path class="mark" d="M{x(at):.1f} 0V{UNITS}"/>')
        texts.append(html('<span class="note" style="left:{}">{}</span>', x.percent(at), words))
    title = f"{chart.title}: {chart.y_label} by {chart.x_label}"
    return field(shapes, x, y, words=Labels(chart.x_label, chart.y_label, title), texts=texts)


def _extent(chart: Curves) -> tuple[Scale, Scale]:
    xs = np.concatenate([line.x for line in chart.lines])
    ys = np.concatenate([line.y for line in chart.lines])
    ys = ys[np.isfinite(ys)]
    if chart.y_range is not None:
        low, high = chart.y_range
    else:
        bottom, top = (float(ys.min()), float(ys.max())) if len(ys) else (0.0, 1.0)
        margin = 0.06 * (top - bottom) or 0.5
        low, high = bottom - margin, top + margin
    left, right = chart.x_range or ((float(xs.min()), float(xs.max())) if len(xs) else (0.0, 1.0))
    return Scale(left, right if right > left else left + 1), Scale(low, high)


def _line(line: Line, x: Scale, y: Scale, place: Callable[[str], int]) -> str:
    colour = colour_class(line.stream, place)
    if line.weights is not None:
        sizes = 5 + 17 * np.sqrt(line.weights)  # px: the area says how many
        spots = zip(line.x, line.y, sizes, strict=True)
        return "".join(
            f'<path class="dot {colour}" style="stroke-width:{size:.1f}" d="M{x(a):.1f} {UNITS - y(b):.1f}h0"/>'
            for a, b, size in spots
        )
    kind = f"line {colour}{' dashed' if line.dashed else ''}"
    points = path((x(value) for value in line.x), (UNITS - y(value) for value in line.y))
    if len(line.x) == 1 and points:
        return f'<path class="dot {colour}" d="{points}h0"/>'
    return f'<path class="{kind}" d="{points}"/>'


def whisker(chart: Whiskers, row: Whisker, place: Callable[[str], int]) -> Markup:
    """One row of a dot-and-whisker plot: interval, value, and a tick where the best possible is."""
    x = Scale(*chart.x_range)
    colour = colour_class(row.streams[0] if len(row.streams) == 1 else "", place)
    shapes = ['<path class="rail" d="M0 500H1000"/>']
    if chart.zero:
        shapes.append(f'<path class="zero" d="M{x(0):.1f} 0V1000"/>')
    if chart.chance is not None:
        shapes.append(f'<path class="mark" d="M{x(chart.chance):.1f} 0V1000"/>')
    if math.isfinite(row.low) and math.isfinite(row.high):
        shapes.append(
            f'<path class="whisker {colour}" d="M{x(row.low):.1f} 500H{x(row.high):.1f}"/>'
        )
    if row.best is not None:
        shapes.append(f'<path class="best" d="M{x(row.best):.1f} 120V880"/>')
    shapes.append(f'<path class="dot {colour}" d="M{x(row.value):.1f} 500h0"/>')
    label = f"{row.label}: {row.value:.1f}, 95 % interval {row.low:.1f} to {row.high:.1f}"
    return html(
        '<svg class="row" viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>',
        label,
        Markup("".join(shapes)),
    )


def axis(chart: Whiskers) -> Markup:
    """Draw the axis below a dot-and-whisker plot."""
    x = Scale(*chart.x_range)
    return html(
        '<div class="axis">{}</div>',
        joined(
            html('<span class="xt" style="left:{}">{}</span>', x.percent(tick), short(tick))
            for tick in x.ticks(5)
        ),
    )


def confusion(chart: Confusion, links: Mapping[tuple[str, str], str] | None = None) -> Markup:
    """Draw a confusion matrix: correct cells in ink, mistakes in red; the shade is the share of the row."""
    n = len(chart.classes)
    sums = chart.counts.sum(axis=1)
    cells, numbers = [], []
    for row, column in zip(*np.nonzero(chart.counts), strict=True):
        count = int(chart.counts[row, column])
        share = count / sums[row]
        kind = "right" if row == column else "wrong"
        words = f"{count} of {sums[row]} {chart.classes[row]}: named {chart.classes[column]}"
        cell = html(
            '<rect class="{}" x="{}" y="{}" width="1" height="1" opacity="{}"><title>{}</title></rect>',
            kind,
            column,
            row,
            f"{0.12 + 0.88 * share:.2f}",
            words,
        )
        link = (links or {}).get((chart.classes[row], chart.classes[column]))
        cells.append(html('<a href="{}">{}</a>', link, cell) if link else cell)
        if n <= MOST_NUMBERED:
            numbers.append(
                html(
                    '<span class="{}" style="left:{}%;top:{}%">{}</span>',
                    "strong" if share > 0.45 else "",
                    f"{100 * (column + 0.5) / n:.2f}",
                    f"{100 * (row + 0.5) / n:.2f}",
                    count,
                )
            )
    names = chart.classes if n <= MOST_NAMED else []
    labels = joined(html("<span>{}</span>", name) for name in names)
    lines = (
        "".join(f'<path class="grid" d="M0 {i}H{n}M{i} 0V{n}"/>' for i in range(n + 1))
        if n <= MOST_NAMED
        else ""
    )
    return html(
        '<div class="confusion" style="--n:{}"><div class="columns" aria-hidden="true">{}</div>'
        '<div class="names" aria-hidden="true">{}</div><div class="cells">'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>{}</div></div>',
        n,
        labels,
        labels,
        n,
        n,
        f"confusion matrix of {n} classes",
        Markup(lines),
        joined(cells),
        joined(numbers),
    )


def dots(used: Sequence[str], streams: Sequence[str], place: Callable[[str], int]) -> Markup:
    """One dot for each stream of the run, filled where it is used."""
    return html(
        '<span class="streams">{}</span>',
        joined(
            html(
                '<i class="{}{}" title="{}"></i>',
                colour_class(name, place),
                "" if name in used else " off",
                name if name in used else f"without {name}",
            )
            for name in streams
        ),
    )
