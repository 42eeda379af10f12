"""Plots of what was measured, as SVG that any browser shows: bars for where time goes, lines for how cost grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee")  # Paul Tol's bright scheme
_WIDTH = 720
_STYLE = "font-family:system-ui,sans-serif;font-size:13px"


def bars(title: str, parts: Sequence[str], rows: Mapping[str, Sequence[float]]) -> str:
    """One bar for each row, cut into parts whose shares are written beside it.

    Args:
        title: above all.
        parts: names of the pieces.
        rows: name → one value for each part, in seconds.
    """
    left, height = 110, 34
    lines = [_text(10, 22, title, bold=True)]
    for index, part in enumerate(parts):
        at = 10 + index * 120
        lines += [
            f'<rect x="{at}" y="36" width="12" height="12" fill="{COLOURS[index % len(COLOURS)]}"/>'
        ]
        lines += [_text(at + 17, 47, part)]
    for row, (name, values) in enumerate(rows.items()):
        y, x, total = 66 + row * (height + 26), float(left), sum(values) or 1.0
        lines.append(_text(10, y + 22, name))
        for index, value in enumerate(values):
            width = (_WIDTH - left - 20) * value / total
            colour = COLOURS[index % len(COLOURS)]
            lines.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'
            )
            x += width
        shares = "  ".join(
            f"{part} {value / total:.1%}"
            for part, value in zip(parts, values, strict=True)
            if value
        )
        lines.append(_text(left, y + height + 15, f"{total:.2f} s: {shares}"))
    return _svg(lines, 66 + len(rows) * (height + 26) + 10)


def curves(
    title: str, x_name: str, x: Sequence[str], series: Mapping[str, Sequence[float]], unit: str
) -> str:
    """A line for each series, each point with its value; the axis begins at 0."""
    left, top, height = 70, 70, 240
    highest = max(max(values) for values in series.values()) or 1.0
    step = (_WIDTH - left - 60) / max(1, len(x) - 1)
    lines = [_text(10, 22, title, bold=True)]
    lines.append(
        f'<path d="M{left} {top}V{top + height}H{_WIDTH - 30}" fill="none" stroke="#888"/>'
    )
    lines += [
        _text(left + index * step - 8, top + height + 20, name) for index, name in enumerate(x)
    ]
    lines += [_text(_WIDTH / 2, top + height + 42, x_name), _text(6, top + 5, unit)]
    for index, (name, values) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = [
            (left + n * step, top + height * (1 - value / highest))
            for n, value in enumerate(values)
        ]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (px, py), value in zip(points, values, strict=True):
            lines += [
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>',
                _text(px + 5, py - 7, _short(value)),
            ]
        lines += [f'<rect x="{10 + index * 190}" y="36" width="12" height="12" fill="{colour}"/>']
        lines += [_text(27 + index * 190, 47, name)]
    return _svg(lines, top + height + 55)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}"{weight} fill="#222">{escape(text)}</text>'


def _svg(lines: Sequence[str], height: float) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" style="{_STYLE}">'
    return "\n".join(
        [head, f'<rect width="{_WIDTH}" height="{height:.0f}" fill="white"/>', *lines, "</svg>", ""]
    )
