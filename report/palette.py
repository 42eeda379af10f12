"""Colours: one for each stream, the same everywhere; one for each class, as far apart as there are classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

# (on light paper, on dark paper); told apart also by people who see no red or no green.
STREAM_COLOURS = (
    ("#12806a", "#57c4ab"),  # teal
    ("#2a63b6", "#82b1f2"),  # blue
    ("#c2570c", "#f0985a"),  # orange
    ("#8646a6", "#c99be3"),
    ("#8a6d0b", "#d6b752"),
    ("#b93a66", "#f090b2"),
)
_USUAL = {"audio": 0, "spatial": 1, "temporal": 2}  # a report of one stream looks like one of three


def stream_index(name: str, streams: Sequence[str]) -> int:
    """Return the index of a stream's colour in `STREAM_COLOURS`: its own, or the next unused one."""
    if name in _USUAL:
        return _USUAL[name]
    others = sorted(other for other in {*streams, name} if other not in _USUAL)
    return (len(_USUAL) + others.index(name)) % len(STREAM_COLOURS)


def class_colours(n: int) -> list[str]:
    """`n` colours as #rrggbb, with evenly spaced hues, readable on light and dark backgrounds."""
    lightness = (0.62, 0.72, 0.54)  # neighbours in hue differ in lightness too
    return [
        _oklch(lightness[i % 3] if n > 6 else 0.64, 0.13, 30 + 360 * i / max(n, 1))
        for i in range(n)
    ]


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    """Source: Ottosson 2020, "A perceptual color space for image processing" (OKLab)."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    curve = lambda c: 12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055  # noqa: E731
    return "#" + "".join(
        f"{round(255 * min(1.0, max(0.0, curve(max(0.0, c))))):02x}" for c in linear
    )
