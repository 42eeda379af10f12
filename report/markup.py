"""Text that is safe on the page: names are escaped and made visible, numbers are written as people read them."""

from __future__ import annotations

import json
import math
from typing import Any

from markupsafe import Markup

from tristream.media.reasons import printable


def html(template: str, *values: object) -> Markup:
    """`template` with values in its `{}`: escaped, and with line ends and control characters spelled out.

    Only what is `Markup` already goes in as it is.
    """
    return Markup(template).format(*(visible(value) for value in values))


def visible(value: Any) -> Any:
    """Return an untrusted text with control characters spelled out; anything else unchanged."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def unbroken(text: Markup) -> Markup:
    """Return the text without a line break between a number and its %."""
    return Markup(text.replace(" %", "\u00a0%"))


def joined(parts: Any) -> Markup:
    """Markup after markup; text in between is escaped."""
    return Markup("").join(parts)


def script_json(value: Any) -> Markup:
    """Return JSON that is safe inside <script>: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share of 1 in %, without the sign; a dash if unknown."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f}"


def short(value: float) -> str:
    """Return a number as an axis label."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign, with a typographic minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def three_digits(value: float) -> str:
    """Return a score with three significant digits: 0.0123, 4.9, 1,580."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def clock(seconds: float) -> str:
    """Return seconds in readable form: 4.2 s, 1:05, 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def listed(names: Any) -> str:
    """Return the words as `a, b and c`."""
    names = list(names)
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
